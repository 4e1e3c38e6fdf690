"""The wide head first, alone, on plain features: no item is encoded and nothing attended to, so it sees many times more
examples in the same time than the whole model does; what counters say is learned before anything else is.

Letters: x candidates of m moments.
"""

import logging
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model.config import TrainConfig
from model.nn.click import ClickModel
from model.nn.features import PLAIN, plain
from model.train.batch import Step, gather
from model.train.dataset import Dataset
from model.train.examples import ClickExamples
from model.train.moments import Moments
from model.train.objective import objective
from model.train.popularity import Popularity

log = logging.getLogger(__name__)
Ints = NDArray[np.int64]
MOMENTS = 64
"""Of a user and draw."""
DRAWS, MOST = 3, 60_000
"""At most so many draws, with negatives of their own, and moments in all: a head of its size learns no more from more."""
BATCH = 64
LR = 4e-3
WARM = 0.05
"""Share of the steps in which the learning rate rises."""
READ = ("users", "targets", "negatives", "wide_epochs", "impressed", "listwise")
"""The settings that decide what a wide head learns."""
Heads = dict[tuple[object, ...], dict[str, Tensor]]
"""Weights of wide heads by what decided them, of one data set and one window: methods that differ elsewhere share them."""


class Sample(NamedTuple):
    """Plain features [x, 31], labels and positions [x] of moments, one after the other; their sizes and sources [m]."""

    plain: Tensor
    labels: Tensor
    position: Tensor
    sizes: Ints
    source: Tensor


def learn(
    model: ClickModel,
    dataset: Dataset,
    examples: ClickExamples,
    popularity: Popularity,
    settings: TrainConfig,
    seed: int,
    heads: Heads | None = None,
) -> None:
    """Train the wide head of a model on a sample of examples, for `wide_epochs` (0: not at all).

    It begins from weights of its own seed, so that what it learns depends on no other part of the model. heads: those that
    were learned before on these examples, and where this one is added.
    """
    if not settings.wide_epochs:
        return
    told = (getattr(settings, name) for name in READ)
    standard = torch.cat([model.mean[-PLAIN:], model.spread[-PLAIN:]]).tolist()
    key = (seed, model.backbone.history, *told, *standard)
    if heads is not None and key in heads:
        model.load_state_dict(heads[key], strict=False)
        return
    rng = np.random.default_rng((seed, 2))
    torch.manual_seed(seed)
    for layer in model.wide:
        if isinstance(layer, nn.Linear):
            layer.reset_parameters()
    found = sample(dataset, examples, popularity, rng, settings.users, model.backbone.history)
    losses = train(model, found, settings, rng)
    log.info("wide head: %d moments, losses %s", len(found.sizes), losses)
    if heads is not None:
        own = ("wide.", "source", "position")
        heads[key] = {name: value.clone() for name, value in model.state_dict().items() if name.startswith(own)}


def sample(
    dataset: Dataset,
    examples: ClickExamples,
    popularity: Popularity,
    rng: np.random.Generator,
    together: int,
    history: int = 0,
) -> Sample:
    """Moments of all users, or of as many as may be. together: users gathered at once; history: as `gather` has it."""
    rows: list[tuple[Tensor, ...]] = []
    for moments in drawn(rng, examples, together):
        step = gather(dataset, moments, history)
        rows.append(
            (
                described(step, popularity)[step.real],
                step.labels[step.real],
                step.position[step.real],
                step.real.sum(1),
                step.source,
            )
        )
    x, labels, position, sizes, source = (torch.cat(column) for column in zip(*rows, strict=True))
    return Sample(x, labels, position, sizes.numpy(), source)


def drawn(rng: np.random.Generator, examples: ClickExamples, together: int) -> Iterator[list[Moments]]:
    """Moments of some users at a time: of all, DRAWS times, or until there are MOST."""
    found = 0
    for _ in range(DRAWS):
        users = rng.permutation(examples.users)
        for start in range(0, len(users), together):
            if found >= MOST:
                return
            moments = examples.draw(rng, users[start : start + together], MOMENTS)
            found += sum(len(m.prefix) for m in moments)
            yield moments


def described(step: Step, popularity: Popularity) -> Tensor:
    """Plain features [t, c, 31] of a step."""
    known = popularity.features(step.item_rows, step.seen.now.numpy())
    return plain(step.items, step.queries, known, step.history, step.seen, step.types, step.source)


def train(model: ClickModel, found: Sample, settings: TrainConfig, rng: np.random.Generator) -> list[float]:
    """Fit the wide head and the offsets of source and position to a sample; returns the mean loss of each epoch."""
    weights = [*model.wide.parameters(), model.source, model.position]
    batches = max(1, len(found.sizes) // BATCH)
    optimiser = torch.optim.AdamW(weights, LR, weight_decay=1e-4)
    steps = settings.wide_epochs * batches + 1
    steps += steps * WARM == 1  # of which torch's schedule would divide by zero
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LR, total_steps=steps, pct_start=WARM)
    starts = np.cumsum(found.sizes) - found.sizes
    means = []
    for _ in range(settings.wide_epochs):
        total = 0.0
        for some in np.array_split(rng.permutation(len(found.sizes)), batches):
            loss = _loss(model, found, some, starts, settings)
            optimiser.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            optimiser.step()
            schedule.step()
            total += loss.item()
        means.append(round(total / batches, 4))
    return means


def _loss(model: ClickModel, found: Sample, some: Ints, starts: Ints, settings: TrainConfig) -> Tensor:
    """Of some moments [b]: the log loss, and the ranking within each, as the whole model's."""
    sizes = found.sizes[some]
    widest = np.arange(sizes.max(initial=1))
    real = torch.from_numpy(widest < sizes[:, None])
    at = torch.from_numpy(np.where(widest < sizes[:, None], starts[some, None] + widest, 0))
    scores = model.known(found.plain[at])
    shown = model.offset(found.source[some].unsqueeze(1).expand_as(scores), found.position[at])
    return objective(scores + shown, found.labels[at], real, found.source[some], settings)["total"]
