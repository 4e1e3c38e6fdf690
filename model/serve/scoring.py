"""From a user's records and candidates' ids to click rates, with one bundle's model: everything but the reading.

Letters: l behaviours, c candidates, k retrieved, h heads, d width.
"""

import time
from dataclasses import dataclass, field

import numba
import numpy as np
import torch
from numpy.typing import NDArray

from features.record import Records, entity_id, query_text
from model.bundle import Bundle
from model.nn.click import evidence
from model.nn.features import Keyed, context, counters
from model.nn.folded import Attended, Folded, Past, Tables, buckets
from model.nn.inputs import History, Interest, Seen
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
    """rates and known [c]; places [c, k] in the records that each candidate retrieved, their weights [c, k, h], and
    folded queries [c, d], of which an inner product with a key is a mean head logit."""

    rates: NDArray[np.float64]
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
        self._model = bundle.model
        self._long = Folded(bundle.model.backbone.attention)
        self._recent = Folded(bundle.model.recent)
        self._scale, self._shift = bundle.manifest["logistic"]

    def __call__(
        self, records: Records, ids: Ids, query: str | None, time_ms: int, method: str = "auto", clock: Clock | None = None
    ) -> Scored:
        """Calibrated click rates of candidates' ids [c] shown at a time after records [l], with or without a query."""
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
        newest = np.arange(len(records) - 1, max(-1, len(records) - 1 - self._model.backbone.recent), -1, dtype=np.int32)
        recent = self._recent.attend(self._recent.fold(item + words)[0], tables, past, newest[None])
        clock.lap("attention")
        odds = self._odds(long, recent, item, words, items, queries, past, time, time_ms, bool(asked[0]))
        rates = 1 / (1 + np.exp(-(self._scale * odds + self._shift)))
        clock.lap("head")
        return Scored(rates, items.known(items.rows[1]), places + np.int32(first), long.weights, folded, items, queries)

    def _odds(
        self,
        long: Attended,
        recent: Attended,
        item: Floats,
        words: Floats,
        items: Known,
        queries: Known,
        past: Past,
        time: NDArray[np.int64],
        now: int,
        searched: bool,
    ) -> NDArray[np.float64]:
        """The click model's log-odds [c] of one moment."""
        rows, table = items.rows[1], self._bundle.items
        types = [items.of_table(table.types, some) for some in (past.item, rows)]
        asked = torch.full((1, len(rows)), int(queries.rows[1][0]))
        item_rows, query_rows, times = (torch.from_numpy(x.astype(np.int64)) for x in (past.item, past.query, time))
        history = History(item_rows, query_rows, times, torch.empty(0, dtype=torch.int64))
        seen = Seen.of_one(torch.tensor([len(time)]), torch.tensor([now]))
        with torch.inference_mode():
            found = evidence(
                _interest(long),
                _interest(recent),
                torch.from_numpy(item)[None],
                torch.from_numpy(np.broadcast_to(words, item.shape).copy())[None],
                torch.full((1, len(rows)), float(searched)),
                counters(history, seen, _keyed(past.item, rows), _keyed(*types), asked),
                torch.from_numpy(self._popularity(items, rows, types[1]))[None],
                context(history, seen),
            )
            odds = self._model.combine(found, torch.from_numpy(self._bias(items, rows))[None])
        out: NDArray[np.float64] = odds[0].numpy().astype(np.float64)
        return out

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
            bias[late] = float(self._model.item_bias.weight.detach()[0, 0])
        return bias


def _interest(found: Attended) -> Interest:
    return Interest(*(torch.from_numpy(x)[None] for x in (found.vector, found.mass, found.weights)))


def _tables(items: Known, queries: Known) -> Tables:
    found = []
    for parts in (items.parts, queries.parts):
        table = parts.table.parts
        found += [table, table[:0] if parts.more is None else parts.more.parts]
    return Tables(*found)


def _keyed(behaviours: Rows, wanted: Rows) -> Keyed:
    """Keys [l] and [c] as small numbers: 1 to c of the candidates' distinct ones, 0 for all others."""
    number, local = number_rows(behaviours, wanted)
    return Keyed(torch.from_numpy(local), torch.from_numpy(number)[None], len(wanted) + 1)


@numba.njit(nogil=True, cache=True)
def number_rows(history: Rows, rows: Rows):  # type: ignore[no-untyped-def]
    """Numbers 1 to c of candidates' rows [c] (equal rows have one), and of a history's [l]: 0 where it is no candidate."""
    size = 16
    while size < 4 * len(rows):
        size *= 2
    marks, mask = np.full(size, -1, np.int32), size - 1
    number, local = np.zeros(len(rows), np.int64), np.zeros(len(history), np.int64)
    for c in range(len(rows)):
        if rows[c] == 0:
            continue
        at = (rows[c] * 2654435761 >> 7) & mask
        while marks[at] >= 0 and rows[marks[at]] != rows[c]:
            at = (at + 1) & mask
        if marks[at] < 0:
            marks[at] = c
        number[c] = marks[at] + 1
    for e in range(len(history)):
        row = history[e]
        if row == 0:
            continue
        at = (row * 2654435761 >> 7) & mask
        while marks[at] >= 0:
            if rows[marks[at]] == row:
                local[e] = marks[at] + 1
                break
            at = (at + 1) & mask
    return number, local
