"""Examples of pretraining: the pairs (item, query) that users went on to, beside pairs that they did not.

Letters: u users, t targets of all of them, n negatives of a target.
"""

import numpy as np
from numpy.typing import NDArray

from model.nn.click import SAMPLED
from model.train.dataset import Dataset
from model.train.examples import browses
from model.train.moments import Moments
from model.train.negatives import Negatives

Ints = NDArray[np.int64]
LEAST = 5  # behaviours before a pretraining target
HARD = 4
"""Negatives that keep half of the pair: the candidates after the true one."""


class Pairs:
    """Draws targets before `until_ms` with negatives: pairs of the population, and hard ones that keep half of the pair."""

    def __init__(self, dataset: Dataset, until_ms: int, negatives: int) -> None:
        records = dataset.histories.records
        pool = np.flatnonzero((dataset.item_rows > 0) & (records["time"] < until_ms))
        self._dataset = dataset
        self._n = negatives
        self._items, self._queries = dataset.item_rows[pool], dataset.query_rows[pool]
        self._asked = np.unique(self._queries[self._queries > 0])
        self._negatives = Negatives(dataset, until_ms)
        counts = dataset.counts(until_ms)
        self.log_q = np.log((counts + 1) / (counts.sum() + len(counts)))
        found = {u: browses(dataset, u, 0, until_ms, LEAST) for u in range(len(dataset.histories.user_ids))}
        self._places = {user: places for user, places in found.items() if len(places)}
        self.users = np.array(sorted(self._places), np.int64)

    def draw(self, rng: np.random.Generator, users: Ints, most: int) -> list[Moments]:
        """Up to `most` targets of each user; candidate 0 is the true pair, `real` says which of the others count.

        Two keep the query and change the item, two keep the item and change the query (where there is one), a third comes
        from the step's other positives, the rest from the population by popularity.
        """
        starts = self._dataset.histories.offsets
        chosen = [np.sort(rng.choice(p := self._places[u], min(most, len(p)), replace=False)) for u in users.tolist()]
        at = np.concatenate([starts[user] + places for user, places in zip(users.tolist(), chosen, strict=True)])
        item, query = self._dataset.item_rows[at], self._dataset.query_rows[at]
        batch = rng.integers(0, len(at), (len(at), self._n // 3))
        pool = rng.integers(0, len(self._items), (len(at), self._n - HARD - self._n // 3))
        kin = self._negatives.kin(rng, at, 2)
        other = rng.choice(self._asked, (len(at), 2)) if len(self._asked) else np.zeros((len(at), 2), np.int64)
        same = np.stack([item, item], 1) * (query > 0)[:, None]
        items = np.concatenate([item[:, None], kin, same, item[batch], self._items[pool]], 1)
        queries = np.concatenate(
            [query[:, None], np.repeat(query[:, None], 2, 1), other, query[batch], self._queries[pool]], 1
        )
        # A pair of the target's own session is a right answer too, unless it differs from the target by its query alone.
        real = (items > 0) & ~(self._negatives.met(at, items) & ((items != item[:, None]) | (queries == query[:, None])))
        real[:, 0] = True
        prefix = self._dataset.basket_starts[at]
        owner = np.repeat(starts[users], [len(places) for places in chosen])
        now = self._dataset.histories.records["time"][owner + prefix].astype(np.int64)
        labels = np.zeros(items.shape, np.float32)
        labels[:, 0] = 1
        cuts = np.cumsum([len(places) for places in chosen])[:-1]
        columns = (prefix, now, items, queries, labels, np.full(len(at), SAMPLED), np.full(items.shape, -1), real)
        return [
            Moments(user, *parts)
            for user, *parts in zip(users.tolist(), *(np.split(column, cuts) for column in columns), strict=True)
        ]
