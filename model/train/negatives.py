"""What a moment did not lead to: popular items, new ones, items of the same type, items of the user's own past.

Letters: t targets, n negatives of each. Nothing is drawn that was not on sale when the target's session began.
"""

import numpy as np
from numpy.typing import NDArray

from model.train.dataset import Dataset

Ints = NDArray[np.int64]


class Negatives:
    """Draws item rows; popularity is that before `until_ms`, raised to a power below 1.

    cold_share: how many of the popular ones give way to items that nobody browsed before `until_ms`, each as likely. At
    the share that such items have among the targets, that an item is new says nothing by itself; drawn by popularity
    alone it would say that the item is the target, or, learned by content, that it never is.
    """

    def __init__(self, dataset: Dataset, until_ms: int, cold_share: float = 0.0, power: float = 0.75) -> None:
        self._dataset, self._cold_share = dataset, cold_share
        weight = dataset.counts(until_ms)
        weight[0] = 0
        weight = weight**power
        self._cumulative = np.cumsum(weight / max(weight.sum(), 1e-9))
        listed = np.argsort(dataset.listed[1:], kind="stable") + 1  # rows in the order in which they came up
        self._listed = dataset.listed[listed]
        self._cold = dataset.cold(until_ms)
        kinds = dataset.types[listed] + 1
        self._keys = kinds * (len(listed) + 1) + np.arange(len(listed))
        order = np.argsort(self._keys)
        self._keys, self._of_type = self._keys[order], listed[order]
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

    def cold(self, rng: np.random.Generator, at: Ints, n: int) -> Ints:
        """Rows [t, n] of what was on sale at targets `at` [t] and nobody browsed before `until_ms`; 0 where nothing was."""
        last = np.searchsorted(self._dataset.listed[self._cold], self._now(at), "right")
        place = (rng.random((len(at), n)) * last[:, None]).astype(np.int64)
        return np.where((last > 0)[:, None], self._cold[place], 0) if len(self._cold) else place * 0

    def kin(self, rng: np.random.Generator, at: Ints, n: int) -> Ints:
        """Rows [t, n] on sale of the types of targets `at` [t], each as likely; 0 where a type has none."""
        key = (self._dataset.types[self._dataset.item_rows[at]] + 1) * (len(self._listed) + 1)
        listed = np.searchsorted(self._listed, self._now(at), "right")
        first, last = np.searchsorted(self._keys, key), np.searchsorted(self._keys, key + listed)
        place = first[:, None] + (rng.random((len(at), n)) * (last - first)[:, None]).astype(np.int64)
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

    def _now(self, at: Ints) -> Ints:
        """When the sessions of targets `at` [t] began (ms)."""
        found: Ints = self._dataset.histories.records["time"][self._session[at]].astype(np.int64)
        return found

    def met(self, at: Ints, rows: Ints) -> NDArray[np.bool_]:
        """Which of rows [t, n] belong to the sessions of targets `at` [t]."""
        keys = self._session[at][:, None] * self._width + rows
        place = np.searchsorted(self._met, keys).clip(max=len(self._met) - 1)
        found: NDArray[np.bool_] = self._met[place] == keys
        return found

    def mixed(self, rng: np.random.Generator, at: Ints, n: int, searching: NDArray[np.bool_]) -> Ints:
        """Rows [t, n] for targets `at` [t], none of their sessions; 0 where a type has too few.

        Where it was searched for, all are of the target's type, each as likely: what a search shows. Else an eighth is of
        its type, a quarter from the user's own past, and the rest is drawn by popularity, or is new.
        """
        kin, own = self.kin(rng, at, 2 * n), self.past(rng, at, n // 4)
        kin[:, n // 8 :] *= searching[:, None]
        own *= ~searching[:, None]
        special = np.sort(np.concatenate([kin, own], 1), 1)
        special[:, 1:] *= special[:, 1:] != special[:, :-1]  # each once
        special = rng.permuted(special, axis=1)
        fresh = rng.random((len(at), n)) < self._cold_share
        popular = np.where(fresh, self.cold(rng, at, n), self.popular(rng, len(at), n))
        drawn = np.concatenate([special, popular * ~searching[:, None]], 1)
        bad = (drawn == 0) | self.met(at, drawn)
        order = np.argsort(bad, 1, kind="stable")[:, :n]
        return np.where(np.take_along_axis(bad, order, 1), 0, np.take_along_axis(drawn, order, 1))
