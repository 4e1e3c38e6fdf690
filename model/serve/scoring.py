"""From a user's records and candidates' ids to click rates, with one bundle's model: everything but the reading.

Letters: l behaviours, c candidates, k retrieved, h heads, d width.
"""

import time
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from features.record import Records, entity_id, query_text
from model.bundle import Bundle
from model.nn.click import SAMPLED, rated
from model.nn.features import moments
from model.nn.folded import Attended, Folded, Past, Tables, buckets
from model.nn.head import Head
from model.nn.met import Wanted, counters
from model.nn.tiers import tiers_of_moment
from model.search.choose import search
from model.search.keys import Floats, Keys, Rows
from model.serve.entities import Entities, Ids, Known


@dataclass
class Clock:
    """Seconds by stage."""

    begin: float = field(default_factory=time.perf_counter)
    laps: dict[str, float] = field(default_factory=dict)
    _last: float = 0.0

    def __post_init__(self) -> None:
        self._last = self.begin

    def lap(self, stage: str) -> None:
        """A stage ends here."""
        now = time.perf_counter()
        self.laps[stage], self._last = self.laps.get(stage, 0.0) + now - self._last, now


@dataclass(frozen=True)
class Scored:
    """rates, scores and known [c]; places [c, k] in the records that each candidate retrieved, their weights [c, k, h], and
    folded queries [c, d], of which an inner product with a key is a mean head logit."""

    rates: NDArray[np.float64]
    scores: NDArray[np.float64]
    known: NDArray[np.bool_]
    places: Rows
    weights: Floats
    folded: Floats
    items: Known
    queries: Known


class Scoring:
    """One bundle's model; safe for threads."""

    def __init__(self, bundle: Bundle, entities: Entities) -> None:
        self._bundle, self._entities = bundle, entities
        self._long = Folded(bundle.model.backbone.attention)
        self._recent = Folded(bundle.model.recent)
        self._head = Head(bundle.model)
        self._no_bias = float(bundle.model.item_bias.weight.detach()[0, 0])
        self._last = bundle.model.backbone.recent
        self._scale, self._shift = bundle.manifest["logistic"]
        self._rated = rated(bundle.manifest["labels"])

    def __call__(
        self, records: Records, ids: Ids, query: str | None, time_ms: int, method: str = "auto", clock: Clock | None = None
    ) -> Scored:
        """Of candidates' ids [c] at a time after records [l], with or without a query: calibrated click rates, were they
        shown, and scores to choose from a catalogue by."""
        clock = clock or Clock()
        first = max(0, len(records) - self._bundle.spec.history) if self._bundle.spec.history else 0
        records = records[first:]  # older ones do not exist for this model
        asked = np.array([entity_id(query_text(query)) if query and query.strip() else 0], np.uint64)
        items = self._entities.items(records["item"], ids)
        queries = self._entities.queries(query, records["query"], asked)
        clock.lap("encode")
        time, kind = np.ascontiguousarray(records["time"]), np.ascontiguousarray(records["kind"])
        past = Past(items.rows[0], queries.rows[0], buckets(time, time_ms), kind)
        item, words = items.parts.take(items.rows[1]), queries.parts.take(queries.rows[1])
        by_head, folded = self._long.fold(item + words)
        keys = Keys(items.parts, past.item, queries.parts, past.query, self._long.bias(past))
        k = self._bundle.spec.retrieved if self._bundle.spec.search == "topk" else len(records)
        places = search(folded, keys, k, self._bundle.codebooks, method)
        clock.lap("search")
        tables = _tables(items, queries)
        long = self._long.attend(by_head, tables, past, places)
        newest = np.arange(len(records) - 1, max(-1, len(records) - 1 - self._last), -1, dtype=np.int32)
        recent = self._recent.attend(self._recent.fold(item + words)[0], tables, past, newest[None])
        clock.lap("attention")
        alike = self._alike(items, past, time, time_ms)
        clock.lap("tiers")
        odds = self._odds(long, recent, item, words, alike, items, queries, past, time, time_ms, bool(asked[0]))
        rates = 1 / (1 + np.exp(-(self._scale * odds[self._rated] + self._shift)))
        clock.lap("head")
        known, places = items.known(items.rows[1]), places + np.int32(first)
        return Scored(rates, odds[SAMPLED], known, places, long.weights, folded, items, queries)

    def _odds(
        self,
        long: Attended,
        recent: Attended,
        item: Floats,
        words: Floats,
        alike: Floats,
        items: Known,
        queries: Known,
        past: Past,
        time: NDArray[np.int64],
        now: int,
        searched: bool,
    ) -> NDArray[np.float64]:
        """The click model's log-odds [2, c] of one moment, as `Head` has them."""
        rows, table = items.rows[1], self._bundle.items
        types, asked = items.of_table(table.types, rows), int(queries.rows[1][0])
        wanted = Wanted(rows, types, table.types, items.types, len(self._bundle.types.popularity), asked)
        last = time[-1:] if len(time) else np.array([now])
        return self._head(
            long,
            recent,
            item,
            words,
            alike,
            searched,
            counters(past, time, now, wanted),
            self._popularity(items, rows, types),
            moments(np.array([now]), last, np.array([len(time)])),
            self._bias(items, rows),
        ).astype(np.float64)

    def _alike(self, items: Known, past: Past, time: NDArray[np.int64], now: int) -> Floats:
        """Tiers [c, 33 s] of candidates; no column where the model does without."""
        return tiers_of_moment(items.rows[1], items.alike, past.item, time, now)

    def _popularity(self, items: Known, rows: Rows, types: Rows) -> Floats:
        """Popularity [c, 5] of candidates; of an item that the bundle does not know only its type's is known."""
        found, late = items.take(self._bundle.items.popularity, rows), rows >= len(self._bundle.items.popularity)
        if late.any():
            found[late, 3] = self._bundle.types.popularity[types[late]]
        return found

    def _bias(self, items: Known, rows: Rows) -> Floats:
        """Biases [c] of candidates; an item that the bundle does not know has the unknown item's."""
        bias, late = items.take(self._bundle.items.bias, rows), rows >= len(self._bundle.items.bias)
        if late.any():
            bias[late] = self._no_bias
        return bias


def _tables(items: Known, queries: Known) -> Tables:
    found = []
    for parts in (items.parts, queries.parts):
        table = parts.table.parts
        found += [table, table[:0] if parts.more is None else parts.more.parts]
    return Tables(*found)
