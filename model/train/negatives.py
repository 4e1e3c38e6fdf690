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
        self._met = np.unique(self._session * self._width + dataset.item_rows)

    def popular(self, rng: np.random.Generator, *shape: int) -> Ints:
        """Rows (any shape) by popularity."""
        return np.searchsorted(self._cumulative, rng.random(shape)).clip(max=len(self._cumulative) - 1)

    def alike(self, rng: np.random.Generator, row: int, n: int) -> Ints:
        """Rows [<= n], distinct, of the same type."""
        code = int(self._dataset.types[row]) + 1
        rows = self._of_type[self._first[code] : self._last[code]]
        return rng.choice(rows, min(n, len(rows)), replace=False) if len(rows) else rows

    def own(self, rng: np.random.Generator, user: int, prefix: int, n: int) -> Ints:
        """Rows [<= n], distinct, of what the user browsed before."""
        start = self._dataset.histories.offsets[user]
        past = self._dataset.item_rows[start : start + prefix]
        return np.unique(rng.choice(past, min(4 * n, len(past))))[:n] if len(past) and n else np.zeros(0, np.int64)

    def kin(self, rng: np.random.Generator, rows: Ints, n: int) -> Ints:
        """Rows [t, n] of the same types as rows [t]; 0 where a type has none."""
        first, last = self._first[self._dataset.types[rows] + 1], self._last[self._dataset.types[rows] + 1]
        place = first[:, None] + (rng.random((len(rows), n)) * (last - first)[:, None]).astype(np.int64)
        found = self._of_type[place.clip(max=len(self._of_type) - 1)] if len(self._of_type) else np.zeros_like(place)
        return np.where((last > first)[:, None], found, 0)

    def past(self, rng: np.random.Generator, at: Ints, n: int) -> Ints:
        """Rows [t, n] of what the users of targets `at` [t] (places in the records) browsed before; 0 for a search."""
        begin = self._session[at] - self._dataset.basket_starts[at]
        length = self._dataset.basket_starts[at]
        place = begin[:, None] + (rng.random((len(at), n)) * length[:, None]).astype(np.int64)
        return np.where((length > 0)[:, None], self._dataset.item_rows[place], 0)

    def met(self, at: Ints, rows: Ints) -> NDArray[np.bool_]:
        """Which of rows [t, n] belong to the sessions of targets `at` [t]."""
        keys = self._session[at][:, None] * self._width + rows
        place = np.searchsorted(self._met, keys).clip(max=len(self._met) - 1)
        found: NDArray[np.bool_] = self._met[place] == keys
        return found

    def mixed(self, rng: np.random.Generator, at: Ints, n: int, searching: NDArray[np.bool_]) -> Ints:
        """Rows [t, n] for targets `at` [t]: none of their sessions; half of the same type where it was searched for.

        A quarter comes from the user's own past, the rest by popularity.
        """
        kin, own = self.kin(rng, self._dataset.item_rows[at], n // 2), self.past(rng, at, n // 4)
        kin[:, n // 8 :] *= searching[:, None]
        special = np.sort(np.concatenate([kin, own], 1), 1)
        special[:, 1:] *= special[:, 1:] != special[:, :-1]  # each once
        drawn = np.concatenate([special, self.popular(rng, len(at), n)], 1)
        bad = (drawn == 0) | self.met(at, drawn)
        chosen = np.take_along_axis(drawn, np.argsort(bad, 1, kind="stable")[:, :n], 1)
        chosen[np.take_along_axis(bad, np.argsort(bad, 1, kind="stable")[:, :n], 1)] = 0
        return chosen
