"""How popular items were as of a moment: counts of browses before its day, never what came later.

Letters: t moments, c candidates, l browses of the population.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from features.record import KIND_BROWSE
from model.config import DAY_MS
from model.nn.features import POPULARITY
from model.train.dataset import Dataset, Ints

WINDOWS_DAYS = (36500, 28, 7)
_BITS = 34  # of seconds: rows and times in one sorted key


class Popularity:
    """Counts of browses of each item; nothing at or after `until_ms` is ever counted."""

    def __init__(self, dataset: Dataset, until_ms: int) -> None:
        records = dataset.histories.records
        wanted = (records["kind"] == KIND_BROWSE) & (dataset.item_rows > 0) & (records["time"] < until_ms)
        self._until = until_ms
        self._keys = np.sort(_key(dataset.item_rows[wanted], records["time"][wanted]))

    def features(self, rows: Ints, now: Ints) -> Tensor:
        """[t, c, 3] of item rows [t, c] at now [t]: log(1 + browses) / 3 of ever, 28 days and 7 days before now's day."""
        now = np.minimum(now - now % DAY_MS, self._until).reshape(-1, *[1] * (rows.ndim - 1))
        end = np.searchsorted(self._keys, _key(rows, np.broadcast_to(now, rows.shape)))
        out = np.empty((*rows.shape, POPULARITY), np.float32)
        for i, days in enumerate(WINDOWS_DAYS):
            begin = np.searchsorted(self._keys, _key(rows, np.broadcast_to((now - days * DAY_MS).clip(min=0), rows.shape)))
            out[..., i] = np.log1p(end - begin) / 3
        return torch.from_numpy(out * (rows > 0)[..., None])


def _key(rows: Ints, time_ms: NDArray[np.int64]) -> Ints:
    return (rows.astype(np.int64) << _BITS) + time_ms // 1000
