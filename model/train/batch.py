"""A step's users with their items and queries encoded once, whatever repeats within and between them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.nn.backbone import Backbone, History, Parts
from model.train.dataset import Dataset

Ints = NDArray[np.int64]


@dataclass
class Encoded:
    """Parts of a step's distinct items and queries; `item` and `query` map dataset rows (any shape) to rows of the parts."""

    parts: Parts
    item_rows: Ints
    query_rows: Ints

    def item(self, rows: Ints) -> Tensor:
        """Rows of `parts.item`; dataset row 0 stays 0."""
        return _local(self.item_rows, rows)

    def query(self, rows: Ints) -> Tensor:
        """Rows of `parts.query`; dataset row 0 stays 0."""
        return _local(self.query_rows, rows)

    def history(self, dataset: Dataset, user: int, length: int) -> History:
        """A user's first `length` behaviours, in rows of the parts."""
        whole = dataset.history(user)
        cut = [column[:length] for column in whole]
        return History(self.item(cut[0].numpy()), self.query(cut[1].numpy()), cut[2], cut[3])


def _local(known: Ints, rows: Ints) -> Tensor:
    return torch.from_numpy(np.where(rows > 0, np.searchsorted(known, rows) + 1, 0))


def encode(
    backbone: Backbone,
    dataset: Dataset,
    vocabulary: Ints,
    users: Sequence[tuple[int, int]],
    items: Sequence[Ints],
    queries: Sequence[Ints],
    id_dropout: float = 0.0,
    rng: np.random.Generator | None = None,
) -> Encoded:
    """Encode what the histories (user, length) and these rows mention. id_dropout: share of items shown without their id."""
    starts = dataset.histories.offsets
    seen = [slice(starts[user], starts[user] + length) for user, length in users]
    item_rows = np.unique(np.concatenate([*(dataset.item_rows[s] for s in seen), *(x.ravel() for x in items)]))
    query_rows = np.unique(np.concatenate([*(dataset.query_rows[s] for s in seen), *(x.ravel() for x in queries)]))
    item_rows, query_rows = item_rows[item_rows > 0], query_rows[query_rows > 0]
    inputs = dataset.item_inputs(item_rows, vocabulary)
    if id_dropout and rng is not None:
        inputs = inputs._replace(row=inputs.row * torch.from_numpy(rng.random(len(item_rows)) >= id_dropout))
    return Encoded(backbone.parts(inputs, torch.from_numpy(dataset.tokens[query_rows - 1])), item_rows, query_rows)
