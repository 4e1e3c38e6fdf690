"""Counters of a candidate as of a moment: what gradient-boosted trees are given instead of a sequence.

Letters: t moments, c candidates, n items, l behaviours, f counters. Of the user everything before the session counts; of the
population what was browsed before the moment and before `until`, as for the models.
"""

import numpy as np
from numpy.typing import NDArray

from features.record import KIND_BROWSE
from model.nn.content import words
from model.train.dataset import Dataset
from model.train.moments import Moments

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
DAY_MS = 86_400_000
HALF_LIVES_DAYS = (7.0, 30.0, 180.0, np.inf)
RECENT_DAYS = 28
NAMES = (
    *(f"item_{life:g}d" for life in HALF_LIVES_DAYS),
    "item_days_since",
    "item_mean_gap_days",
    "item_due",
    "item_share",
    "item_after_query",
    *(f"type_{life:g}d" for life in HALF_LIVES_DAYS),
    "type_days_since",
    "type_share",
    "item_share_of_type",
    "popularity",
    "popularity_recent",
    "popularity_trend",
    "type_popularity",
    "share_of_type_popularity",
    "popularity_after_query",
    "log_length",
    "has_query",
    "query_words_in_title",
    "shown",
)


class _Times:
    """How often each key was browsed before a time: sorted (key, time) pairs, searched."""

    def __init__(self, keys: Ints, times: Ints) -> None:
        self._first = int(times.min(initial=np.iinfo(np.int64).max)) if len(times) else 0
        self._span = int(times.max(initial=0)) - self._first + 2
        self._known, place = np.unique(keys, return_inverse=True)
        self._pairs = np.sort(place * self._span + (times - self._first))

    def before(self, keys: Ints, time: int) -> Floats:
        """Counts [c] of keys [c] with time < `time`."""
        if not len(self._known):
            return np.zeros(len(keys))
        place = np.searchsorted(self._known, keys).clip(max=len(self._known) - 1)
        begin = place * self._span
        until = begin + min(max(time - self._first, 0), self._span - 1)
        found = np.searchsorted(self._pairs, until) - np.searchsorted(self._pairs, begin)
        return np.where(self._known[place] == keys, found, 0).astype(np.float64)


class Counters:
    """Counters of moments, the population being counted before `until` only."""

    def __init__(self, dataset: Dataset, titles: list[str | None], until: int) -> None:
        self._dataset, self._until = dataset, until
        records = dataset.histories.records
        browsed = (records["kind"] == KIND_BROWSE) & (dataset.item_rows > 0) & (records["time"] < until)
        rows, times = dataset.item_rows[browsed], records["time"][browsed].astype(np.int64)
        self._types = dataset.types + 1  # [n + 1]; 0: none
        self._by_item, self._by_type = _Times(rows, times), _Times(self._types[rows], times)
        self._queries = len(dataset.query_ids) + 1
        asked = dataset.query_rows[browsed]
        self._by_pair = _Times((rows * self._queries + asked)[asked > 0], times[asked > 0])
        self._title_words = [frozenset(), *(frozenset(words(title or "")) for title in titles)]
        self._query_words = [frozenset(), *(frozenset(words(text)) for text in dataset.query_texts)]

    def of(self, m: Moments) -> NDArray[np.float32]:
        """Counters [t, c, f] of a user's moments."""
        out = np.zeros((*m.items.shape, len(NAMES)), np.float32)
        for i in range(len(m.prefix)):
            out[i] = self._of(m.user, int(m.prefix[i]), int(m.now[i]), m.items[i], int(m.queries[i, 0]), int(m.source[i]))
        return out

    def _of(self, user: int, prefix: int, now: int, items: Ints, query: int, source: int) -> Floats:
        data = self._dataset
        start = int(data.histories.offsets[user])
        here = slice(start, start + prefix)
        kept = (data.histories.records["kind"][here] == KIND_BROWSE) & (data.item_rows[here] > 0)
        rows, asked = data.item_rows[here][kept], data.query_rows[here][kept]
        age = (now - data.histories.records["time"][here][kept].astype(np.int64)) / DAY_MS
        kinds = self._types[items]
        item, item_last, item_first = _decayed(rows, age, items)
        kind, kind_last, _ = _decayed(self._types[rows], age, kinds)
        count, total = item[:, -1], max(len(rows), 1)
        gap = np.where(count > 1, (item_first - item_last) / np.maximum(count - 1, 1), np.nan)
        seen = min(now, self._until)
        popularity, recent = self._by_item.before(items, seen), seen - RECENT_DAYS * DAY_MS
        lately = popularity - self._by_item.before(items, recent)
        type_popularity = self._by_type.before(kinds, seen)
        if query:
            after = np.isin(asked, query)
            mine = _decayed(rows[after], age[after], items)[0][:, -1]
            theirs = self._by_pair.before(items * self._queries + query, seen)
            wanted = self._query_words[query]
            overlap = np.array([len(wanted & self._title_words[row]) for row in items.tolist()]) / max(len(wanted), 1)
        else:
            mine = theirs = overlap = np.full(len(items), np.nan)
        columns = [
            *item.T,
            item_last,
            gap,
            item_last / np.maximum(gap, 0.5),
            count / total,
            mine,
            *kind.T,
            kind_last,
            kind[:, -1] / total,
            count / np.maximum(kind[:, -1], 1),
            np.log1p(popularity),
            np.log1p(lately),
            (lately + 1) / (popularity + 10),
            np.log1p(type_popularity),
            popularity / np.maximum(type_popularity, 1),
            np.log1p(theirs),
            np.full(len(items), np.log1p(prefix)),
            np.full(len(items), float(query > 0)),
            overlap,
            np.full(len(items), float(source)),
        ]
        return np.stack(columns, 1)


def _decayed(keys: Ints, age: Floats, wanted: Ints) -> tuple[Floats, Floats, Floats]:
    """Of each wanted key [c]: counts by half-life [c, h]; days since the last and since the first (NaN: never)."""
    known, place = np.unique(keys, return_inverse=True)
    sums = np.stack([np.bincount(place, 0.5 ** (age / life), len(known)) for life in HALF_LIVES_DAYS], 1)
    last, first = np.full(len(known), np.inf), np.full(len(known), -np.inf)
    np.minimum.at(last, place, age)
    np.maximum.at(first, place, age)
    if not len(known):
        nothing = np.full(len(wanted), np.nan)
        return np.zeros((len(wanted), len(HALF_LIVES_DAYS))), nothing, nothing
    at = np.searchsorted(known, wanted).clip(max=len(known) - 1)
    hit = known[at] == wanted
    return sums[at] * hit[:, None], np.where(hit, last[at], np.nan), np.where(hit, first[at], np.nan)
