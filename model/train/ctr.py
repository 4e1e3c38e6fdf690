"""Fine-tuning of the click model between t1 and t2, from a pretrained PSU or from scratch."""

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from features.errors import SeminarError
from features.publish import path
from model.compute import tune
from model.config import Config, TrainConfig, Windows
from model.nn.click import ClickModel, Evidence, restore
from model.nn.inputs import Parts
from model.train import checkpoint, wide
from model.train.batch import Step, encode, gather
from model.train.dataset import Dataset, load, vocabulary
from model.train.examples import ClickExamples
from model.train.loop import Losses, Resume, finished, fit, goes_on, resume_file
from model.train.moments import Moments
from model.train.objective import objective
from model.train.popularity import Popularity
from model.train.psu import spec_of

Ints = NDArray[np.int64]

SAMPLE = 64
"""Users whose examples tell how scalars vary."""
SEARCHES = {"seminar": "topk", "din_full": "all", "din_recent": "recent"}
"""Methods that are this click model with another search: full-history DIN, last-50 DIN."""


@dataclass(frozen=True)
class Task:
    """What a click model learns from: id-table rows [n + 1] of the data set's items, examples, popularity as it was."""

    dataset: Dataset
    rows: Ints
    examples: ClickExamples
    popularity: Popularity
    settings: TrainConfig


def finetune(
    home: Path,
    *,
    windows: Windows,
    psu: str | None = None,
    search: str = "seminar",
    config: Config | None = None,
    seed: int = 0,
    history: str | None = None,
    dataset: Dataset | None = None,
    heads: wide.Heads | None = None,
) -> dict[str, Any]:
    """Train a click model on [t1, t2) of a version of history (or as it is now) and write its
    checkpoint below `<home>/checkpoints`. psu: the version to restore, which learned from nothing after t1 (SeminarError).

    dataset: the one as of t2, where it is loaded already; heads: the wide heads learned on it before, for `wide.learn`.
    Returns {"checkpoint": folder, "restored": counts by fate, "losses": [mean by epoch], "labels", "seconds"}.
    """
    tune()
    config, begin = config or Config(), time.monotonic()
    dataset = dataset or load(home, windows.t2, config.model, history)
    # Ids are those known at t1. At t2 an item that was new in between would have one because it was browsed, and what
    # nobody browsed would have none: to have an id would mean to be a target.
    rows = vocabulary(dataset, windows.t1, config.train)
    torch.manual_seed(seed)
    spec = spec_of(config, dataset, int(rows.max(initial=0)), SEARCHES.get(search, search))
    model = spec.click(config.train.dropout)
    report: dict[str, list[str]] = {"restored": [], "new": sorted(model.state_dict()), "unused": []}
    restored = None
    if psu is not None:
        pretrained, restored = checkpoint.read(path(home / "psu", psu)), checkpoint.digest(path(home / "psu", psu))
        checkpoint.learned_before(pretrained.facts, "t1", windows.t1, f"psu {psu}", "t1")
        report = restore(model, checkpoint.map_tables(pretrained, dataset, rows))
    examples = ClickExamples(home, dataset, windows.t1, windows.t2, config.train.negatives)
    run = {"method": search, "psu": psu, "windows": windows.as_dates(), "config": config.as_dict(), "seed": seed}
    run["history"] = history
    if not len(examples.users):
        dates = windows.as_dates()
        problem = "have nothing to learn from between them: no impression, and nobody browsed a known item"
        raise SeminarError("windows", f"{dates['t1']} to {dates['t2']}", problem, "give an earlier t1 or a later t2")
    resume = Resume(resume_file(home, dataset, {**run, "restored": restored, "labels": examples.labels()}))
    task = Task(dataset, rows, examples, Popularity(dataset, windows.t2), config.train)
    if not goes_on(resume):  # a run that does has learned all that
        standardise(model, task, seed)
        wide.learn(model, dataset, examples, task.popularity, config.train, seed, heads)
    train, step_losses = config.train, _losses(model, task)
    losses = fit(model, examples.users, train, train.ctr_epochs, train.ctr_decay, seed, step_losses, resume)["total"]
    facts = {
        **run,
        "encoder": dataset.encoder,
        "losses": losses,
        "labels": examples.labels(),
        "restored": report,
    }
    folder = home / "checkpoints" / f"{search}-{uuid.uuid4().hex[:12]}"
    checkpoint.write(folder, spec, model, checkpoint.ids_of(dataset, rows), facts)
    finished(resume)
    return {
        "checkpoint": str(folder),
        "restored": {name: len(found) for name, found in report.items()},
        "losses": losses,
        "labels": facts["labels"],
        "seconds": round(time.monotonic() - begin, 1),
    }


def logits(
    model: ClickModel, dataset: Dataset, rows: Ints, moments: Sequence[Moments], popularity: Popularity
) -> list[torch.Tensor]:
    """Log-odds [t, c] of each user's moments, without offsets of source and position."""
    step = gather(dataset, moments, model.backbone.history)
    return step.split(score(model, step, encode(model.backbone, dataset, rows, step), rows, popularity))


def score(model: ClickModel, step: Step, parts: Parts, rows: Ints, popularity: Popularity) -> torch.Tensor:
    """Log-odds [t, c] of a step."""
    bias_rows = torch.from_numpy(rows[step.item_rows])
    found: torch.Tensor = model.combine(_evidence(model, step, parts, popularity), model.item_bias(bias_rows).squeeze(-1))
    return found


def _evidence(model: ClickModel, step: Step, parts: Parts, popularity: Popularity) -> Evidence:
    known = popularity.features(step.item_rows, step.seen.now.numpy())
    return model.evidence(step.items, step.queries, known, step.history, parts, step.seen, step.types, step.source)


def standardise(model: ClickModel, task: Task, seed: int) -> None:
    """Tell the model how its scalars vary over examples of a few users."""
    rng = np.random.default_rng((seed, 1))
    users = rng.choice(task.examples.users, min(SAMPLE, len(task.examples.users)), replace=False)
    with torch.no_grad():
        sample = []
        for start in range(0, len(users), task.settings.users):
            moments = task.examples.draw(rng, users[start : start + task.settings.users], task.settings.targets)
            step = gather(task.dataset, moments, model.backbone.history)
            parts = encode(model.backbone, task.dataset, task.rows, step)
            sample.append(model.scalars(_evidence(model, step, parts, task.popularity))[step.real])
        model.standardise(torch.cat(sample))


def _losses(model: ClickModel, task: Task) -> Losses:
    def losses(rng: np.random.Generator, users: Ints) -> dict[str, torch.Tensor]:
        step = gather(task.dataset, task.examples.draw(rng, users, task.settings.targets), model.backbone.history)
        parts = encode(model.backbone, task.dataset, task.rows, step, task.settings.ctr_id_dropout, rng)
        scores = score(model, step, parts, task.rows, task.popularity)
        scores = scores + model.offset(step.source.unsqueeze(1).expand_as(scores), step.position)
        return objective(scores, step.labels, step.real, step.source, task.settings)

    return losses
