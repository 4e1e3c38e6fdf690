"""A step's users with their items and queries encoded once, whatever repeats within and between them.

Letters: u users, t moments of all of them, c candidates (padded to the most), l behaviours of all of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.nn.backbone import OWN, Backbone
from model.nn.inputs import History, Parts, Seen
from model.train.dataset import Dataset
from model.train.moments import Moments

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Step:
    """What a model scores at once: candidates' rows of the parts and of the data set [t, c]; labels as in `Moments`."""

    history: History
    seen: Seen
    items: Tensor
    queries: Tensor
    item_rows: Ints
    labels: Tensor
    source: Tensor
    position: Tensor
    real: Tensor
    distinct_items: Ints  # data set rows of the items and of the queries that the step knows, from row 1 on
    distinct_queries: Ints
    types: Tensor  # [1 + i] of the parts, as `model.nn.features` wants them
    behaviours: Ints  # places of the history in the data set's records
    sizes: list[tuple[int, int]]  # moments and candidates of each user

    def split(self, scores: Tensor) -> list[Tensor]:
        """Scores [t, c] by user, without the padding."""
        pieces = torch.split(scores, [t for t, _ in self.sizes])
        return [piece[:, :c] for piece, (_, c) in zip(pieces, self.sizes, strict=True)]


def gather(dataset: Dataset, moments: Sequence[Moments], history: int = 0) -> Step:
    """What these users' histories and candidates mention. history: the newest behaviours that exist (0: all)."""
    starts = dataset.histories.offsets
    lengths = [int(m.prefix.max(initial=0)) for m in moments]
    at = np.concatenate([np.arange(starts[m.user], starts[m.user] + n) for m, n in zip(moments, lengths, strict=True)])
    begins = np.cumsum([0, *lengths[:-1]])
    begin = np.repeat(begins, [len(m.prefix) for m in moments])
    end = begin + np.concatenate([m.prefix for m in moments])
    if history:
        begin = np.maximum(begin, end - history)
    items, queries = _stack([m.items for m in moments], 0), _stack([m.queries for m in moments], 0)
    item_rows, query_rows = _distinct(dataset.item_rows[at], items), _distinct(dataset.query_rows[at], queries)
    records = dataset.histories.records
    behaviours = History(
        _local(item_rows, dataset.item_rows[at]),
        _local(query_rows, dataset.query_rows[at]),
        torch.from_numpy(records["time"][at].astype(np.int64)),
        torch.from_numpy(records["kind"][at].astype(np.int64)),
    )
    seen = Seen(
        torch.from_numpy(begin),
        torch.from_numpy(end),
        torch.from_numpy(np.concatenate([m.now for m in moments])),
    )
    return Step(
        behaviours,
        seen,
        _local(item_rows, items),
        _local(query_rows, queries),
        items,
        torch.from_numpy(_stack([m.labels for m in moments], 0)),
        torch.from_numpy(np.concatenate([m.source for m in moments])),
        torch.from_numpy(_stack([m.position for m in moments], -1)),
        torch.from_numpy(_stack([m.real for m in moments], False)),
        item_rows,
        query_rows,
        torch.from_numpy(np.concatenate([np.zeros(1, np.int64), dataset.types[item_rows] + 1])),
        at,
        [m.items.shape for m in moments],
    )


def encode(
    backbone: Backbone,
    dataset: Dataset,
    vocabulary: Ints,
    step: Step,
    id_dropout: float = 0.0,
    rng: np.random.Generator | None = None,
) -> Parts:
    """Encode all of it once. id_dropout: share of items shown without their id."""
    inputs = dataset.item_inputs(step.distinct_items, vocabulary)
    if id_dropout and rng is not None:
        shown = torch.from_numpy(rng.random(len(step.distinct_items)) >= id_dropout)
        inputs = inputs._replace(row=inputs.row * shown)
    parts = backbone.parts(inputs, torch.from_numpy(dataset.tokens[step.distinct_queries - 1]))
    if backbone.search not in OWN:
        parts = parts._replace(frozen=dataset.frozen(step.distinct_items, step.distinct_queries))
    return parts


def _distinct(*rows: Ints) -> Ints:
    found = np.unique(np.concatenate([x.ravel() for x in rows]))
    return found[found > 0]


def _local(known: Ints, rows: Ints) -> Tensor:
    return torch.from_numpy(np.where(rows > 0, np.searchsorted(known, rows) + 1, 0))


def _stack(columns: Sequence[NDArray[Any]], fill: float) -> NDArray[Any]:
    """Columns [t_u, c_u] under each other [t, c], padded to the widest."""
    widest = max(column.shape[1] for column in columns)
    return np.concatenate(
        [np.pad(column, ((0, 0), (0, widest - column.shape[1])), constant_values=fill) for column in columns]
    )
