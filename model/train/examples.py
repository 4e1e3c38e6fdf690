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
from features.labels import CLICK_MS, clicked
from features.record import KIND_BROWSE
from model.nn.click import IMPRESSED, SAMPLED
from model.train.dataset import SESSION_GAP_MS, Dataset, lookup
from model.train.moments import Moments, Row, pad, session_time
from model.train.negatives import Negatives

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]


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
    rows: pa.Table = read_impressions(home, since_ms, until_ms - CLICK_MS, dataset.version)
    clicks = clicked(home, since_ms, until_ms - CLICK_MS, dataset.version) if len(rows) else {}
    users = {name: i for i, name in enumerate(dataset.histories.user_ids)}
    found: dict[int, list[Shown]] = {}
    times = milliseconds(rows["event_timestamp"]) if len(rows) else np.zeros(0, np.int64)
    for row, shown_ms in zip(
        rows.select(["user_id", "impression_id", "query", "items", "positions"]).to_pylist(), times.tolist(), strict=True
    ):
        user = users.get(row["user_id"])
        if user is None:
            continue
        here = slice(dataset.histories.offsets[user], dataset.histories.offsets[user + 1])
        history = dataset.histories.records[here]["time"]
        prefix = int(np.searchsorted(history, shown_ms))
        # Of what came before alone: were it to depend on what came next, a click would show in what precedes it.
        if prefix and shown_ms - history[prefix - 1] <= SESSION_GAP_MS:
            prefix = int(dataset.basket_starts[here][prefix - 1])
        items = lookup(dataset.item_ids, np.array(row["items"], np.int64).view(np.uint64))
        known = items > 0
        query = lookup(dataset.query_ids, np.array([row["query"]], np.int64).view(np.uint64))[0] if row["query"] else 0
        shown = Shown(
            prefix,
            shown_ms,
            int(query),
            items[known],
            np.array(row["positions"], np.int64)[known],
            np.isin(np.array(row["items"], np.int64)[known], clicks[row["user_id"], row["impression_id"]]),
        )
        if len(shown.items):
            found.setdefault(user, []).append(shown)
    return found


class ClickExamples:
    """Moments of the fine-tuning window: impressions where there are any, sampled negatives for what was not shown."""

    def __init__(self, home: Path, dataset: Dataset, since_ms: int, until_ms: int, negatives: int) -> None:
        self._dataset = dataset
        self._n = negatives
        self.shown = impressions(home, dataset, since_ms, until_ms)
        self.bought = {
            user: places
            for user in range(len(dataset.histories.user_ids))
            if len(places := browses(dataset, user, since_ms, until_ms))
        }
        self.users = np.array(sorted(self.shown.keys() | self.bought.keys()), np.int64)
        offsets = dataset.histories.offsets
        targets = np.concatenate([offsets[:0], *(offsets[user] + places for user, places in self.bought.items())])
        self._negatives = Negatives(dataset, since_ms, dataset.cold_share(targets, since_ms))

    def labels(self) -> dict[str, int]:
        """How many examples of each source there are, for the model card."""
        lists = [shown for found in self.shown.values() for shown in found]
        return {
            "impressions": len(lists),
            "shown_items": sum(len(shown.items) for shown in lists),
            "clicks": int(sum(shown.clicks.sum() for shown in lists)),
            "targets_with_sampled_negatives": sum(len(places) for places in self.bought.values()),
        }

    def draw(self, rng: np.random.Generator, users: Ints, most: int) -> list[Moments]:
        """Up to `most` moments of each user, half of them impressions where there are as many."""
        lists, places = [], []
        for user in users.tolist():
            shown, bought = self.shown.get(user, []), self.bought.get(user, np.zeros(0, np.int64))
            n = min(len(shown), most // 2 if len(bought) else most)
            lists.append([self._impression(shown[i]) for i in rng.choice(len(shown), n, replace=False)] if n else [])
            chosen = rng.choice(bought, min(len(bought), most - n), replace=False) if len(bought) else bought
            places.append(self._dataset.histories.offsets[user] + np.sort(chosen))
        at = np.concatenate(places)
        queries = self._dataset.query_rows[at] * (rng.random(len(at)) < 0.5)
        items = np.concatenate(
            [self._dataset.item_rows[at][:, None], self._negatives.mixed(rng, at, self._n, queries > 0)], 1
        )
        cuts = np.cumsum([len(p) for p in places])[:-1]
        return [
            pad(user, [*rows, *self._sampled(user, *columns)])
            for user, rows, *columns in zip(
                users.tolist(), lists, *(np.split(x, cuts) for x in (at, queries, items)), strict=True
            )
        ]

    def _impression(self, shown: Shown) -> Row:
        labels = shown.clicks.astype(np.float32)
        return Row(shown.prefix, shown.now, shown.query, shown.items, labels, IMPRESSED, shown.positions)

    def _sampled(self, user: int, at: Ints, queries: Ints, items: Ints) -> list[Row]:
        found = []
        for place, query, drawn in zip(at.tolist(), queries.tolist(), items, strict=True):
            prefix = int(self._dataset.basket_starts[place])
            drawn = drawn[drawn > 0]
            labels = np.zeros(len(drawn), np.float32)
            labels[0] = 1
            found.append(Row(prefix, session_time(self._dataset, user, prefix), query, drawn, labels, SAMPLED, None))
        return found
