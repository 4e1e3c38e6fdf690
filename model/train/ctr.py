"""Fine-tuning of the click model between t1 and t2, from a pretrained PSU or from scratch."""

import logging
import time
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from features.publish import path
from model.compute import tune
from model.config import Config, Windows
from model.nn.click import ClickModel, restore
from model.train import checkpoint
from model.train.batch import encode
from model.train.dataset import Dataset, load, vocabulary
from model.train.examples import ClickExamples, Moments
from model.train.optimise import Optimiser
from model.train.psu import spec_of

log = logging.getLogger(__name__)
Ints = NDArray[np.int64]

SEARCHES = {"seminar": "topk", "din_full": "all", "din_recent": "recent"}
"""Methods that are this click model with another search: full-history DIN, last-50 DIN."""


def finetune(
    home: Path,
    *,
    windows: Windows,
    psu: str | None = None,
    search: str = "seminar",
    config: Config | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Train a click model on [t1, t2) and write its checkpoint below `<home>/checkpoints`.

    Returns {"checkpoint": folder, "restored": counts by fate, "losses": [mean by epoch], "labels", "seconds"}.
    """
    tune()
    config, begin = config or Config(), time.monotonic()
    dataset = load(home, windows.t2, config.model)
    rows = vocabulary(dataset, windows.t2, config.train)
    torch.manual_seed(seed)
    spec = spec_of(config, dataset, int(rows.max(initial=0)), SEARCHES[search])
    model = spec.click()
    report: dict[str, list[str]] = {"restored": [], "new": sorted(model.state_dict()), "unused": []}
    if psu is not None:
        pretrained = checkpoint.read(path(home / "psu", psu))
        report = restore(model, checkpoint.map_tables(pretrained, dataset, rows))
    _popularity(model, dataset, rows, windows.t2)
    examples = ClickExamples(home, dataset, windows.t1, windows.t2, config.train.negatives)
    losses = _fit(model, dataset, rows, config, examples, seed)
    facts = {
        "method": search,
        "psu": psu,
        "seed": seed,
        "windows": windows.as_dates(),
        "config": config.as_dict(),
        "encoder": dataset.encoder,
        "losses": losses,
        "labels": examples.labels(),
        "restored": report,
    }
    folder = home / "checkpoints" / f"{search}-{uuid.uuid4().hex[:12]}"
    checkpoint.write(folder, spec, model, checkpoint.ids_of(dataset, rows), facts)
    return {
        "checkpoint": str(folder),
        "restored": {name: len(found) for name, found in report.items()},
        "losses": losses,
        "labels": facts["labels"],
        "seconds": round(time.monotonic() - begin, 1),
    }


def _popularity(model: ClickModel, dataset: Dataset, rows: Ints, until: int) -> None:
    """Start the item bias at half of the log popularity; unknown items get that of a rare one."""
    counts = dataset.counts(until)
    bias = torch.zeros(len(model.item_bias.weight))
    bias[rows[rows > 0]] = torch.from_numpy(np.log1p(counts[rows > 0])).float()
    with torch.no_grad():
        model.item_bias.weight[:, 0] = 0.5 * (bias - bias[1:].mean()) if len(bias) > 1 else bias


def logits(
    model: ClickModel,
    dataset: Dataset,
    rows: Ints,
    moments: list[Moments],
    dropout: float = 0.0,
    rng: np.random.Generator | None = None,
) -> list[torch.Tensor]:
    """Log-odds [t, c] of each user's moments, without offsets of source and position."""
    lengths = [(m.user, int(m.prefix.max(initial=0))) for m in moments]
    encoded = encode(
        model.backbone, dataset, rows, lengths, [m.items for m in moments], [m.queries for m in moments], dropout, rng
    )
    return [
        model(
            encoded.item(m.items),
            encoded.query(m.queries),
            torch.from_numpy(rows[m.items]),
            encoded.history(dataset, m.user, length),
            encoded.parts,
            torch.from_numpy(m.prefix),
            torch.from_numpy(m.now),
        )
        for m, (_, length) in zip(moments, lengths, strict=True)
    ]


def _fit(model: ClickModel, dataset: Dataset, rows: Ints, config: Config, examples: ClickExamples, seed: int) -> list[float]:
    train, rng = config.train, np.random.default_rng(seed)
    steps = train.ctr_epochs * -(-len(examples.users) // train.users)
    optimiser = Optimiser(model, train.lr, train.table_lr, steps)
    means = []
    for epoch in range(train.ctr_epochs):
        found, order = [], rng.permutation(examples.users)
        for start in range(0, len(order), train.users):
            moments = [examples.draw(rng, user, train.targets) for user in order[start : start + train.users].tolist()]
            losses, weights = [], []
            for m, scores in zip(moments, logits(model, dataset, rows, moments, train.id_dropout, rng), strict=True):
                source = torch.from_numpy(m.source).unsqueeze(1).expand_as(scores)
                scores = scores + model.offset(source, torch.from_numpy(m.position))
                real = torch.from_numpy(m.real)
                losses.append(
                    F.binary_cross_entropy_with_logits(scores[real], torch.from_numpy(m.labels)[real], reduction="sum")
                )
                weights.append(int(m.real.sum()))
            loss = torch.stack(losses).sum() / max(sum(weights), 1)
            optimiser.step(loss)
            found.append(loss.item())
        means.append(round(float(np.mean(found)), 4))
        log.info("%s epoch %d: log loss %.4f", model.backbone.search, epoch + 1, means[-1])
    return means
