"""How popular items were as of a moment: counts of browses before its day, never what came later.

Letters: t moments, c candidates, l browses of the population.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from features.record import KIND_BROWSE
from model.config import DAY_MS
from model.train.dataset import Dataset, Ints

WINDOWS_DAYS = (36500, 28, 7)
_BITS = 34  # of seconds: rows and times in one sorted key


class Popularity:
    """Counts of browses of each item and type; nothing at or after `until_ms` is ever counted."""

    def __init__(self, dataset: Dataset, until_ms: int) -> None:
        records = dataset.histories.records
        wanted = (records["kind"] == KIND_BROWSE) & (dataset.item_rows > 0) & (records["time"] < until_ms)
        rows, times = dataset.item_rows[wanted], records["time"][wanted]
        self._until = until_ms
        self._types = dataset.types + 1  # [n + 1]; 0: none
        self._keys, self._type_keys = np.sort(_key(rows, times)), np.sort(_key(self._types[rows], times))

    def features(self, rows: Ints, now: Ints) -> Tensor:
        """[t, c, 5] of item rows [t, c] at now [t], from browses before now's day.

        log(1 + browses) / 3 of ever, 28 days and 7 days; the same of ever for its type; its share in its type.
        """
        now = np.minimum(now - now % DAY_MS, self._until).reshape(-1, *[1] * (rows.ndim - 1))
        now = np.broadcast_to(now, rows.shape)
        end = np.searchsorted(self._keys, _key(rows, now))
        ever, *lately = (end - np.searchsorted(self._keys, _key(rows, (now - d * DAY_MS).clip(min=0))) for d in WINDOWS_DAYS)
        types = self._types[rows]
        kin = np.searchsorted(self._type_keys, _key(types, now)) - np.searchsorted(self._type_keys, _key(types, now * 0))
        kin = kin * (types > 0)
        columns = [*(np.log1p(count) / 3 for count in (ever, *lately, kin)), ever * (types > 0) / np.maximum(kin, 1)]
        return torch.from_numpy((np.stack(columns, -1) * (rows > 0)[..., None]).astype(np.float32))


def _key(rows: Ints, time_ms: NDArray[np.int64]) -> Ints:
    return (rows.astype(np.int64) << _BITS) + time_ms // 1000
