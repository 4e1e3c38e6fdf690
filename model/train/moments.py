"""Moments: the unit of training and evaluation, (user, prefix length, candidates) into one sorted history.

Letters: t moments of a user, c candidates of a moment.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.train.dataset import Dataset

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]


@dataclass
class Moments:
    """t moments of one user: prefix, now [t]; item and query rows [t, c]; labels [t, c]; source [t]; position [t, c]."""

    user: int
    prefix: Ints
    now: Ints
    items: Ints
    queries: Ints
    labels: Floats
    source: Ints
    position: Ints
    real: NDArray[np.bool_]  # [t, c] False: padding

    def widened(self, c: int) -> "Moments":
        """The same, padded to c candidates."""
        more = ((0, 0), (0, c - self.items.shape[1]))
        filled = {"items": 0, "labels": 0, "position": -1, "real": False}
        changed: dict[str, Any] = {n: np.pad(getattr(self, n), more, constant_values=v) for n, v in filled.items()}
        return replace(self, queries=np.pad(self.queries, more, "edge"), **changed)


@dataclass(frozen=True)
class Row:
    """One moment before padding."""

    prefix: int
    now: int
    query: int
    items: Ints
    labels: Floats
    source: int
    positions: Ints | None


def session_time(dataset: Dataset, user: int, prefix: int) -> int:
    """When the session that begins at `prefix` began: the moment of a request."""
    return int(dataset.histories.records["time"][dataset.histories.offsets[user] + prefix])


def pad(user: int, rows: list[Row]) -> Moments:
    """Rows of one user as arrays; candidates are padded to the longest list."""
    t, c = len(rows), max((len(row.items) for row in rows), default=0)
    items, labels = np.zeros((t, c), np.int64), np.zeros((t, c), np.float32)
    position, real = np.full((t, c), -1, np.int64), np.zeros((t, c), bool)
    for i, row in enumerate(rows):
        n = len(row.items)
        items[i, :n], labels[i, :n], real[i, :n] = row.items, row.labels, True
        if row.positions is not None:
            position[i, :n] = row.positions
    queries = np.repeat(np.array([[row.query] for row in rows], np.int64).reshape(t, 1), c, 1)
    return Moments(
        user,
        np.array([row.prefix for row in rows], np.int64),
        np.array([row.now for row in rows], np.int64),
        items,
        queries,
        labels,
        np.array([row.source for row in rows], np.int64),
        position,
        real,
    )
