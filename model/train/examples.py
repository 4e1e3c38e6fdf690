"""Training examples: (user, prefix length, target) into one sorted history; no sequence is copied.

Letters: u users of a step, t moments of a user, c candidates of a moment. A moment's prefix ends where its session begins
(baskets with their searches): a target never sees its basket-mates or its own search.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.history import milliseconds, read_impressions
from features.record import KIND_BROWSE
from model.nn.click import IMPRESSED, SAMPLED
from model.train.dataset import SESSION_GAP_MS, Dataset, lookup

CLICK_MS = 86_400_000
"""A browse of a shown item within this time of the impression is a click."""

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


@dataclass(frozen=True)
class Shown:
    """An impression with its clicks, resolved to item rows."""

    prefix: int
    now: int
    query: int
    items: Ints
    positions: Ints
    clicks: NDArray[np.bool_]


def browses(dataset: Dataset, user: int, since_ms: int, until_ms: int, least: int = 1) -> Ints:
    """Places in a user's history of known items browsed in [since, until), with `least` behaviours before the session."""
    here = slice(dataset.histories.offsets[user], dataset.histories.offsets[user + 1])
    records = dataset.histories.records[here]
    wanted = (records["kind"] == KIND_BROWSE) & (dataset.item_rows[here] > 0) & (dataset.basket_starts[here] >= least)
    return np.flatnonzero(wanted & (records["time"] >= since_ms) & (records["time"] < until_ms))


def impressions(home: Path, dataset: Dataset, since_ms: int, until_ms: int) -> dict[int, list[Shown]]:
    """Impressions in [since, until) by user, those only whose clicks are all known by `until` (the watermark)."""
    rows: pa.Table = read_impressions(home, since_ms, until_ms - CLICK_MS)
    users = {name: i for i, name in enumerate(dataset.histories.user_ids)}
    found: dict[int, list[Shown]] = {}
    times = milliseconds(rows["event_timestamp"]) if len(rows) else np.zeros(0, np.int64)
    for row, shown_ms in zip(
        rows.select(["user_id", "query", "items", "positions"]).to_pylist(), times.tolist(), strict=True
    ):
        user = users.get(row["user_id"])
        if user is None:
            continue
        here = slice(dataset.histories.offsets[user], dataset.histories.offsets[user + 1])
        history = dataset.histories.records[here]["time"]
        prefix = int(np.searchsorted(history, shown_ms))
        last = int(np.searchsorted(history, shown_ms + CLICK_MS, "right"))
        clicked = dataset.item_rows[here][prefix:last]
        if prefix < len(history) and history[prefix] - shown_ms <= SESSION_GAP_MS:
            prefix = int(dataset.basket_starts[here][prefix])
        items = lookup(dataset.item_ids, np.array(row["items"], np.int64).view(np.uint64))
        known = items > 0
        query = lookup(dataset.query_ids, np.array([row["query"]], np.int64).view(np.uint64))[0] if row["query"] else 0
        shown = Shown(
            prefix,
            shown_ms,
            int(query),
            items[known],
            np.array(row["positions"], np.int64)[known],
            np.isin(items[known], clicked[clicked > 0]),
        )
        if len(shown.items):
            found.setdefault(user, []).append(shown)
    return found


class Negatives:
    """Draws item rows that a moment did not lead to: popular ones, ones of the same type, ones of the user's own past."""

    def __init__(self, dataset: Dataset, until_ms: int, power: float = 0.75) -> None:
        self._dataset = dataset
        weight = dataset.counts(until_ms)
        weight[0] = 0
        weight = weight**power
        self._cumulative = np.cumsum(weight / weight.sum())
        self.rows_of_type: dict[int, Ints] = {}
        onsale = np.flatnonzero(weight > 0)
        order = onsale[np.argsort(dataset.types[onsale], kind="stable")]
        codes, starts = np.unique(dataset.types[order], return_index=True)
        for code, rows in zip(codes.tolist(), np.split(order, starts[1:]), strict=True):
            self.rows_of_type[code] = rows

    def popular(self, rng: np.random.Generator, n: int) -> Ints:
        """Rows [n] by popularity."""
        return np.searchsorted(self._cumulative, rng.random(n)).clip(max=len(self._cumulative) - 1)

    def alike(self, rng: np.random.Generator, row: int, n: int) -> Ints:
        """Rows [<= n] of the same type."""
        rows = self.rows_of_type.get(int(self._dataset.types[row]), np.zeros(0, np.int64))
        return rng.choice(rows, min(n, len(rows)), replace=False) if len(rows) else rows

    def own(self, rng: np.random.Generator, user: int, prefix: int, n: int) -> Ints:
        """Rows [<= n], distinct, of what the user browsed before."""
        start = self._dataset.histories.offsets[user]
        past = self._dataset.item_rows[start : start + prefix]
        return np.unique(rng.choice(past, min(4 * n, len(past))))[:n] if len(past) and n else np.zeros(0, np.int64)

    def mixed(self, rng: np.random.Generator, user: int, place: int, n: int, *, searching: bool) -> Ints:
        """Rows [n] for a target at `place` in a user's history: none of its session; same type when it was searched."""
        start = self._dataset.histories.offsets[user]
        row, prefix = int(self._dataset.item_rows[start + place]), int(self._dataset.basket_starts[start + place])
        alike = self.alike(rng, row, n // 2 if searching else n // 8)
        own = rng.permutation(self.own(rng, user, prefix, n // 4))
        drawn = np.concatenate([alike, own, self.popular(rng, 2 * n)])
        mine = self._session(user, place)
        return drawn[~np.isin(drawn, mine) & (drawn > 0)][:n]

    def _session(self, user: int, place: int) -> Ints:
        here = slice(self._dataset.histories.offsets[user], self._dataset.histories.offsets[user + 1])
        starts = self._dataset.basket_starts[here]
        mine: Ints = self._dataset.item_rows[here][starts == starts[place]]
        return mine


class ClickExamples:
    """Moments of the fine-tuning window: impressions where there are any, sampled negatives for what was not shown."""

    def __init__(self, home: Path, dataset: Dataset, since_ms: int, until_ms: int, negatives: int) -> None:
        self._dataset = dataset
        self._n = negatives
        self._negatives = Negatives(dataset, until_ms)
        self.shown = impressions(home, dataset, since_ms, until_ms)
        self.bought = {
            user: places
            for user in range(len(dataset.histories.user_ids))
            if len(places := browses(dataset, user, since_ms, until_ms))
        }
        self.users = np.array(sorted(self.shown.keys() | self.bought.keys()), np.int64)

    def labels(self) -> dict[str, int]:
        """How many examples of each source there are, for the model card."""
        lists = [shown for found in self.shown.values() for shown in found]
        return {
            "impressions": len(lists),
            "shown_items": sum(len(shown.items) for shown in lists),
            "clicks": int(sum(shown.clicks.sum() for shown in lists)),
            "targets_with_sampled_negatives": sum(len(places) for places in self.bought.values()),
        }

    def draw(self, rng: np.random.Generator, user: int, moments: int) -> Moments:
        """Up to `moments` moments of a user, half of them impressions where there are as many."""
        lists, places = self.shown.get(user, []), self.bought.get(user, np.zeros(0, np.int64))
        from_lists = min(len(lists), moments // 2 if len(places) else moments)
        rows = [self._impression(lists[i]) for i in rng.choice(len(lists), from_lists, replace=False)] if from_lists else []
        chosen = rng.choice(places, min(len(places), moments - from_lists), replace=False) if len(places) else places
        rows += [self._sampled(rng, user, int(place)) for place in chosen]
        return pad(user, rows)

    def _impression(self, shown: Shown) -> "Row":
        labels = shown.clicks.astype(np.float32)
        return Row(shown.prefix, shown.now, shown.query, shown.items, labels, IMPRESSED, shown.positions)

    def _sampled(self, rng: np.random.Generator, user: int, place: int) -> "Row":
        at = self._dataset.histories.offsets[user] + place
        prefix = int(self._dataset.basket_starts[at])
        query = int(self._dataset.query_rows[at]) if rng.random() < 0.5 else 0
        drawn = self._negatives.mixed(rng, user, place, self._n, searching=query > 0)
        items = np.concatenate([self._dataset.item_rows[at : at + 1], drawn])
        labels = np.zeros(len(items), np.float32)
        labels[0] = 1
        return Row(prefix, session_time(self._dataset, user, prefix), query, items, labels, SAMPLED, None)


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
