"""What a moment did not lead to: popular items, items of the same type, items of the user's own past.

Letters: t targets, n negatives of each.
"""

import numpy as np
from numpy.typing import NDArray

from model.train.dataset import Dataset

Ints = NDArray[np.int64]


class Negatives:
    """Draws item rows; popularity is that before `until_ms`, raised to a power below 1."""

    def __init__(self, dataset: Dataset, until_ms: int, power: float = 0.75) -> None:
        self._dataset = dataset
        weight = dataset.counts(until_ms)
        weight[0] = 0
        weight = weight**power
        self._cumulative = np.cumsum(weight / weight.sum())
        onsale = np.flatnonzero(weight > 0)
        self._of_type = onsale[np.argsort(dataset.types[onsale], kind="stable")]
        codes = dataset.types[self._of_type]
        every = np.arange(-1, int(dataset.types.max(initial=-1)) + 1)
        self._first, self._last = np.searchsorted(codes, every), np.searchsorted(codes, every, "right")
        starts = np.repeat(dataset.histories.offsets[:-1], np.diff(dataset.histories.offsets))
        self._session = starts + dataset.basket_starts
        self._width = len(dataset.item_ids) + 1
        owners = np.repeat(np.arange(len(dataset.histories.user_ids)), np.diff(dataset.histories.offsets))
        known = np.flatnonzero(dataset.item_rows > 0)
        _, first = np.unique(owners[known] * self._width + dataset.item_rows[known], return_index=True)
        self._firsts = np.sort(known[first])  # the place of each user's first browse of each item
        self._met = np.unique(self._session * self._width + dataset.item_rows)

    def popular(self, rng: np.random.Generator, *shape: int) -> Ints:
        """Rows (any shape) by popularity."""
        return np.searchsorted(self._cumulative, rng.random(shape)).clip(max=len(self._cumulative) - 1)

    def kin(self, rng: np.random.Generator, rows: Ints, n: int) -> Ints:
        """Rows [t, n] of the same types as rows [t]; 0 where a type has none."""
        first, last = self._first[self._dataset.types[rows] + 1], self._last[self._dataset.types[rows] + 1]
        place = first[:, None] + (rng.random((len(rows), n)) * (last - first)[:, None]).astype(np.int64)
        found = self._of_type[place.clip(max=len(self._of_type) - 1)] if len(self._of_type) else np.zeros_like(place)
        return np.where((last > first)[:, None], found, 0)

    def past(self, rng: np.random.Generator, at: Ints, n: int) -> Ints:
        """Rows [t, n] of what the users of targets `at` [t] (places in the records) browsed before; 0 where that fails.

        Each earlier item is as likely, however often it was browsed: the place of a first browse is drawn. Drawn by
        browses, what a user browses often would be its most frequent negative, and a model would learn to avoid it.
        """
        owner = np.searchsorted(self._dataset.histories.offsets, at, "right") - 1
        begin = self._dataset.histories.offsets[owner]
        first, last = np.searchsorted(self._firsts, begin), np.searchsorted(self._firsts, self._session[at])
        place = first[:, None] + (rng.random((len(at), n)) * (last - first)[:, None]).astype(np.int64)
        some = (last > first)[:, None]
        return (
            np.where(some, self._dataset.item_rows[self._firsts[np.where(some, place, 0)]], 0)
            if len(self._firsts)
            else place * 0
        )

    def met(self, at: Ints, rows: Ints) -> NDArray[np.bool_]:
        """Which of rows [t, n] belong to the sessions of targets `at` [t]."""
        keys = self._session[at][:, None] * self._width + rows
        place = np.searchsorted(self._met, keys).clip(max=len(self._met) - 1)
        found: NDArray[np.bool_] = self._met[place] == keys
        return found

    def mixed(self, rng: np.random.Generator, at: Ints, n: int, searching: NDArray[np.bool_]) -> Ints:
        """Rows [t, n] for targets `at` [t], none of their sessions; 0 where a type has too few.

        Where it was searched for, all are of the target's type, each as likely: what a search shows. Else an eighth is of
        its type, a quarter from the user's own past, and the rest is drawn by popularity.
        """
        kin, own = self.kin(rng, self._dataset.item_rows[at], 2 * n), self.past(rng, at, n // 4)
        kin[:, n // 8 :] *= searching[:, None]
        own *= ~searching[:, None]
        special = np.sort(np.concatenate([kin, own], 1), 1)
        special[:, 1:] *= special[:, 1:] != special[:, :-1]  # each once
        special = rng.permuted(special, axis=1)
        drawn = np.concatenate([special, self.popular(rng, len(at), n) * ~searching[:, None]], 1)
        bad = (drawn == 0) | self.met(at, drawn)
        order = np.argsort(bad, 1, kind="stable")[:, :n]
        return np.where(np.take_along_axis(bad, order, 1), 0, np.take_along_axis(drawn, order, 1))
