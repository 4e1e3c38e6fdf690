"""Pretraining of the search unit on pairs that users went on to, before t1 (arXiv 2407.10714)."""

import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from features.errors import SeminarError
from features.publish import path, point, publish
from model.compute import tune
from model.config import Config, TrainConfig, Windows
from model.nn.inputs import Parts
from model.nn.psu import PSU, alignment_loss, next_pair_loss, relevance_loss
from model.nn.spec import Spec
from model.train import checkpoint
from model.train.batch import Step, encode, gather
from model.train.dataset import Dataset, load, vocabulary
from model.train.loop import Losses, Resume, finished, fit, resume_file
from model.train.pairs import HARD, LEAST, Pairs

log = logging.getLogger(__name__)
Ints = NDArray[np.int64]

CONTRASTED = 256  # items and pairs of a contrastive batch


def spec_of(config: Config, dataset: Dataset, ids: int, search: str = "topk") -> Spec:
    """The shapes of a model for a data set with `ids` known items."""
    model = config.model
    tiers = [name for name in model.tiers.split(",") if name and name not in model.without.split(",")]
    return Spec(
        model.dim,
        model.heads,
        model.retrieved,
        model.recent,
        search,
        ids + 1,
        model.attribute_rows,
        model.token_rows,
        dataset.text_width,
        dataset.image_width,
        model.history,
        model.without,
        model.counters,
        ",".join(tiers),
    )


def pretrain(
    home: Path,
    *,
    windows: Windows,
    config: Config | None = None,
    seed: int = 0,
    warm: str | None = None,
    strict: bool = True,
    history: str | None = None,
    dataset: Dataset | None = None,
) -> dict[str, Any]:
    """Train and publish a PSU from what happened before t1; the pointer moves to it.

    warm: the PSU version to start from; without it from scratch. Where its shapes or encoders are others (the first pictures
    came) SeminarError, or from scratch if not `strict`. history: the version of history that is read; dataset: the one as of
    t1, where it is loaded already.
    Returns {"version", "losses": {objective: [mean by epoch]}, "warm", "seconds", "data"}.
    """
    tune()
    config = config or Config()
    begin = time.monotonic()
    dataset = dataset or load(home, windows.t1, config.model, history)
    rows = vocabulary(dataset, windows.t1, config.train)
    torch.manual_seed(seed)
    spec = spec_of(config, dataset, int(rows.max(initial=0)))
    psu = spec.psu()
    starts, begun = 0, None
    if warm is not None:
        former, begun = checkpoint.read(path(home / "psu", warm)), checkpoint.digest(path(home / "psu", warm))
        try:
            checkpoint.warm(psu, former, dataset, rows)
            starts = former.facts.get("warm_starts", 0) + 1
        except SeminarError as error:
            if strict:
                raise
            log.warning("from scratch: %s", error)
            warm, begun = None, None
    pairs = Pairs(dataset, windows.t1, config.train.negatives)
    if not len(pairs.users):
        problem = f"leaves nobody to pretrain on: nobody browsed a known item before it after {LEAST} behaviours"
        raise SeminarError("windows.t1", windows.as_dates()["t1"], problem, "give a later t1, or import more of the past")
    run = {"windows": windows.as_dates(), "config": config.as_dict(), "seed": seed, "warm": warm, "history": history}
    resume = Resume(resume_file(home, dataset, {"method": "psu", **run, "begun": begun}))
    step_losses = _losses(psu, dataset, rows, config.train, pairs)
    train = config.train
    losses = fit(psu, pairs.users, train, train.psu_epochs, train.decay, seed, step_losses, resume)
    losses.pop("total")
    facts = {
        **run,
        "warm_starts": starts,
        "encoder": dataset.encoder,
        "losses": losses,
        "data": {
            "users": len(dataset.histories.user_ids),
            "behaviours": len(dataset.histories.records),
            "items": len(dataset.item_ids),
            "known_items": int((rows > 0).sum()),
        },
    }

    def build(folder: Path) -> None:
        checkpoint.write(folder, spec, psu, checkpoint.ids_of(dataset, rows), facts)

    def check(folder: Path) -> None:
        found = checkpoint.read(folder)
        found.spec.psu().load_state_dict(found.weights)

    version = publish(home / "psu", build, check)
    point(home / "psu", version)
    finished(resume)
    seconds = round(time.monotonic() - begin, 1)
    return {"version": version, "losses": losses, "warm": warm, "seconds": seconds, "data": facts["data"]}


def _losses(psu: PSU, dataset: Dataset, rows: Ints, train: TrainConfig, pairs: Pairs) -> Losses:
    def losses(rng: np.random.Generator, users: Ints) -> dict[str, torch.Tensor]:
        step = gather(dataset, pairs.draw(rng, users, train.psu_targets), psu.backbone.history)
        parts = encode(psu.backbone, dataset, rows, step, train.id_dropout, rng)
        scores = psu.score(step.items, step.queries, step.history, parts, step.seen)
        log_q = torch.from_numpy(pairs.log_q[step.item_rows]).float()
        # These were not drawn by popularity: corrected by it, a rare one would weigh many times the true pair.
        log_q[:, 1 : 1 + HARD] = log_q[:, :1]
        found = {
            "next_pair": next_pair_loss(scores, log_q, step.real),
            "alignment": _align(psu, dataset, rows, step, rng),
            "relevance": _relate(step, parts, rng),
        }
        weights = {"next_pair": train.next_pair, "alignment": train.alignment, "relevance": train.relevance}
        return {**found, "total": torch.stack([weights[name] * value for name, value in found.items()]).sum()}

    return losses


def _align(psu: PSU, dataset: Dataset, rows: Ints, step: Step, rng: np.random.Generator) -> torch.Tensor:
    """Over distinct items of the step."""
    some = rng.choice(step.distinct_items, min(CONTRASTED, len(step.distinct_items)), replace=False)
    vectors, present = psu.backbone.items.modality_vectors(dataset.item_inputs(some, rows))
    titles = torch.from_numpy(dataset.titles[some])
    same = (titles.unsqueeze(0) == titles.unsqueeze(1)) & (titles >= 0)  # without a title nothing is the same
    return alignment_loss(vectors, present, same)


def _relate(step: Step, parts: Parts, rng: np.random.Generator) -> torch.Tensor:
    """Over behaviours of the step that had both an item and a query."""
    both = np.flatnonzero((step.history.item > 0).numpy() & (step.history.query > 0).numpy())
    some = torch.from_numpy(rng.choice(both, min(CONTRASTED, len(both)), replace=False) if len(both) else both)
    items, queries = step.history.item[some], step.history.query[some]
    return relevance_loss(F.embedding(queries, parts.query), F.embedding(items, parts.item), queries, items)
