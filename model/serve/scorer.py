"""Scores candidates for a user from online features: the user side once a request, the item side from mapped tables.

Letters: l behaviours of the user, c candidates, k retrieved, h heads, d width, s bytes of a code.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from features.online import Online
from features.record import RECORD, Records, entity_id, query_text
from features.settings import settings
from features.state import Pairing
from model.bundle import Bundle, Table
from model.compute import tune
from model.nn.attention import gap_buckets
from model.nn.backbone import History, Interest
from model.nn.click import context, repeats
from model.nn.content import contents, text_encoder, tokens
from model.nn.modalities import ItemInputs
from model.search.choose import search
from model.search.keys import Keys, Parts, Rows
from model.serve.explain import explain

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass
class Answer:
    """Rates in the order of the candidates: None with a reason for what cannot be scored."""

    version: str
    user: str
    candidates: Sequence[str]
    rates: list[float | None]
    reasons: list[str | None]
    length: int
    last_ms: int | None
    now_ms: int
    degraded: list[str]
    seconds: dict[str, float] = field(default_factory=dict)
    explanation: dict[str, Any] | None = None

    def as_dict(self) -> dict[str, Any]:
        """The body of the HTTP answer."""
        age = None if self.last_ms is None else round((self.now_ms - self.last_ms) / 1000, 3)
        scores = [
            {"item": item, "rate": rate, **({"reason": reason} if reason else {})}
            for item, rate, reason in zip(self.candidates, self.rates, self.reasons, strict=True)
        ]
        body: dict[str, Any] = {
            "model_version": self.version,
            "user": self.user,
            "sequence": {"length": self.length, "last_event_age_s": age},
            "degraded": self.degraded,
            "scores": scores,
            "milliseconds": {name: round(1000 * took, 3) for name, took in self.seconds.items()},
        }
        return body | ({"explain": self.explanation} if self.explanation is not None else {})


@dataclass(frozen=True)
class Encoded:
    """Parts of the table and of m entities that it does not know; rows [n] of the ids that were asked for.

    known [m] and bias [m] are those of the m.
    """

    table: Table
    parts: Parts
    rows: Rows
    known: NDArray[np.bool_]
    bias: Floats

    def of(self, rows: Rows) -> tuple[NDArray[np.bool_], Floats]:
        """Whether entities of rows [c] are known, by the table or from Feast, and their biases [c]."""
        size = len(self.table.bias)
        known, bias = rows > 0, self.table.bias[np.minimum(rows, size - 1)]
        late = rows >= size
        known[late], bias[late] = self.known[rows[late] - size], self.bias[rows[late] - size]
        return known, bias


class Scorer:
    """One bundle's scorer; safe for threads. `method`: how to search (model.search.choose)."""

    def __init__(self, bundle: Bundle, online: Online, method: str = "auto") -> None:
        tune()
        self.version = bundle.version
        self._bundle = bundle
        self._online = online
        self._pairing = Pairing(online, settings().home)
        self._method = method
        self._model = bundle.model
        self._scale, self._shift = bundle.manifest["logistic"]
        self._encoder = text_encoder(bundle.manifest["encoder"])

    def warm(self) -> None:
        """Answer one request with nothing known, so that the first real one finds everything compiled and mapped."""
        self._encoder.encode(["warm"])
        self.score("", ["", *map(str, self._bundle.items.ids[:8])], query="warm", time_ms=0, warming=True)

    def score(
        self,
        user: str,
        candidates: Sequence[str],
        *,
        query: str | None = None,
        time_ms: int,
        explain: bool = False,
        warming: bool = False,
    ) -> Answer:
        """Calibrated click rates of candidates (their own keys) shown to a user at a time, with or without a query."""
        clock = _Clock()
        degraded: list[str] = []
        records = self._sequence(user, time_ms, degraded, warming)
        clock.lap("sequence")
        ids = np.array([entity_id(key) for key in candidates], np.uint64)
        asked = np.array([entity_id(query_text(query)) if query and query.strip() else 0], np.uint64)
        items = self._items(np.concatenate([records["item"], ids]))
        queries = self._queries(np.concatenate([records["query"], asked]), query)
        clock.lap("encode")
        rows = items.rows[len(records) :]
        known, item_bias = items.of(rows)
        item_part = torch.from_numpy(items.parts.take(rows)).unsqueeze(0)
        query_part = torch.from_numpy(queries.parts.take(queries.rows[len(records) :])).expand_as(item_part)
        target = item_part + query_part
        keys, gaps = self._keys(records, items, queries, time_ms)
        with torch.inference_mode():
            folded = self._model.backbone.attention.fold(target[0]).numpy()
            books, k = self._bundle.codebooks, self._retrieved(len(records))
            found = search(folded, keys, k, books, self._method).astype(np.int64)
            clock.lap("search")
            long = self._attend(target, keys, found, gaps, records)
            recent = self._recent(target, keys, gaps, records)
            seen, asked_rows = _compact(keys.item_rows, rows)
            history = History(
                torch.from_numpy(seen),
                torch.from_numpy(keys.query_rows.astype(np.int64)),
                torch.from_numpy(records["time"].astype(np.int64)),
                torch.from_numpy(records["kind"].astype(np.int64)),
            )
            prefix, now = torch.tensor([len(records)]), torch.tensor([time_ms])
            about = context(now, history.time[-1:] if len(records) else now, prefix)
            bias = torch.from_numpy(item_bias).unsqueeze(0)
            again = repeats(history, prefix, now, torch.from_numpy(asked_rows).unsqueeze(0), 1 + len(rows))
            odds = self._model.combine(long, recent, item_part, query_part, again, bias, about)[0].numpy().astype(np.float64)
        rates = 1 / (1 + np.exp(-(self._scale * odds + self._shift)))
        answer = Answer(
            self.version,
            user,
            candidates,
            [float(rate) if ok else None for rate, ok in zip(rates, known, strict=True)],
            [None if ok else "unknown item: no `item` event has come for it" for ok in known],
            len(records),
            int(records["time"][-1]) if len(records) else None,
            time_ms,
            degraded,
        )
        clock.lap("attention")
        if explain:
            answer.explanation = self._explain(records, found[0], long.weights[0, 0].numpy(), candidates[0], time_ms)
            clock.lap("explain")
        answer.seconds = clock.laps | {"total": clock.total}
        return answer

    def _sequence(self, user: str, time_ms: int, degraded: list[str], warming: bool) -> Records:
        """The user's records up to the request's time."""
        empty = np.empty(0, RECORD)
        if warming:
            return empty
        try:
            if trouble := self._pairing.trouble():
                degraded.append(trouble)
            found = self._online.sequence(user)
        except Exception as error:
            # A store that is away costs the sequence, never the answer.
            degraded.append(f"store: {type(error).__name__}: {error}")
            return empty
        if found is None:
            degraded.append("unknown user: no sequence")
            return empty
        records = found[0]
        return records[: np.searchsorted(records["time"], time_ms, "right")]

    def _items(self, ids: NDArray[np.uint64]) -> Encoded:
        """Parts of items: from the table, or from Feast content with the bundle's encoders for those it does not know."""
        table = self._bundle.items
        rows, cold = _cold(table, ids)
        if not len(cold):
            return Encoded(table, Parts(table.coded), rows, np.empty(0, bool), np.empty(0, np.float32))
        known, inputs = self._content(cold)
        with torch.inference_mode():
            coded = self._bundle.codebooks.code_items(self._model.backbone.items(inputs).numpy())
        bias = np.full(len(cold), float(self._model.item_bias.weight.detach()[0, 0]), np.float32)
        return Encoded(table, Parts(table.coded, coded), rows, known, bias)

    def _content(self, ids: NDArray[np.uint64]) -> tuple[NDArray[np.bool_], ItemInputs]:
        try:
            rows = self._online.items(ids.tolist())
        except Exception:  # the store is away: these items are unknown for now, the others are scored
            rows = [None] * len(ids)
        spec = self._bundle.spec
        blank: dict[str, Any] = {"title": "", "category": None, "brand": None, "attributes": "{}"}
        content = contents([row or blank for row in rows], self._encoder, spec.attribute_rows, spec.image_width)
        inputs = ItemInputs(
            torch.zeros(len(ids), dtype=torch.long),
            torch.from_numpy(content.attributes),
            torch.from_numpy(content.text),
            torch.from_numpy(content.text_ok),
            torch.from_numpy(content.image),
            torch.from_numpy(content.image_ok),
        )
        return np.array([row is not None for row in rows], bool), inputs

    def _queries(self, ids: NDArray[np.uint64], asked: str | None) -> Encoded:
        """Parts of queries: from the table, or from their words for those that no model has seen."""
        table = self._bundle.queries
        rows, cold = _cold(table, ids)
        if not len(cold):
            return Encoded(table, Parts(table.coded), rows, np.empty(0, bool), np.empty(0, np.float32))
        own = {entity_id(query_text(asked)): query_text(asked)} if asked and asked.strip() else {}
        elsewhere = [int(i) for i in cold if int(i) not in own]
        try:
            texts = dict(zip(elsewhere, self._online.queries(elsewhere), strict=True))
        except Exception:  # the store is away: behaviours of unknown queries count as without one
            texts = {}
        words = [own.get(int(i)) or texts.get(int(i)) or "" for i in cold]
        with torch.inference_mode():
            hashed = np.stack([tokens(text, self._bundle.spec.token_rows) for text in words])
            coded = self._bundle.codebooks.code_queries(self._model.backbone.queries(torch.from_numpy(hashed)).numpy())
        return Encoded(table, Parts(table.coded, coded), rows, np.ones(len(cold), bool), np.zeros(len(cold), np.float32))

    def _keys(self, records: Records, items: Encoded, queries: Encoded, now: int) -> tuple[Keys, torch.Tensor]:
        """The history to search, with the GSU's bias as of now, and the gap bucket [l] of each behaviour."""
        gaps = gap_buckets(torch.from_numpy(now - records["time"].astype(np.int64)).clamp(min=0))
        kinds = torch.from_numpy(records["kind"].astype(np.int64))
        with torch.inference_mode():
            bias = self._model.backbone.attention.bias(gaps.unsqueeze(0), kinds).mean(0)[0].numpy()
        length = len(records)
        return Keys(items.parts, items.rows[:length], queries.parts, queries.rows[:length], bias), gaps

    def _retrieved(self, length: int) -> int:
        spec = self._bundle.spec
        return spec.retrieved if spec.search == "topk" else length

    def _attend(self, target: torch.Tensor, keys: Keys, found: Ints, gaps: torch.Tensor, records: Records) -> Interest:
        """The ESU over what each candidate retrieved [c, k]: targets [1, c, d]."""
        attention = self._model.backbone.attention
        gathered = torch.from_numpy(keys.gather(found)).unsqueeze(0)
        kinds = torch.from_numpy(records["kind"].astype(np.int64))
        place = torch.from_numpy(found)
        bias = (attention.gap_bias[:, gaps] + attention.kind_bias[:, kinds])[:, place].permute(1, 0, 2).unsqueeze(0)
        return Interest(*attention(target, gathered, bias, torch.ones(1, *found.shape, dtype=torch.bool)))

    def _recent(self, target: torch.Tensor, keys: Keys, gaps: torch.Tensor, records: Records) -> Interest:
        """The most recent behaviours, the same for all candidates."""
        attention = self._model.recent
        last = np.arange(max(0, len(records) - self._bundle.spec.recent), len(records))
        shared = torch.from_numpy(keys.gather(last))
        kinds = torch.from_numpy(records["kind"].astype(np.int64))[last]
        bias = attention.bias(gaps[last].unsqueeze(0), kinds).permute(1, 0, 2).unsqueeze(1)
        return Interest(*attention(target, shared, bias, torch.ones(1, 1, len(last), dtype=torch.bool)))

    def _explain(self, records: Records, found: Ints, weights: Floats, candidate: str, now: int) -> dict[str, Any]:
        try:
            return explain(self._online, records[found], weights, candidate, now)
        except Exception as error:  # an explanation is no reason to lose the rates
            return {"candidate": candidate, "error": f"{type(error).__name__}: {error}"}


class _Clock:
    def __init__(self) -> None:
        self._begin = self._last = time.perf_counter()
        self.laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name], self._last = now - self._last, now

    @property
    def total(self) -> float:
        return time.perf_counter() - self._begin


def _cold(table: Table, ids: NDArray[np.uint64]) -> tuple[Rows, NDArray[np.uint64]]:
    """Rows [n] of ids, and the distinct ids [m] that the table does not know: theirs are the rows after its own."""
    rows = table.rows(ids)
    late = np.flatnonzero(rows < 0)
    cold, place = np.unique(ids[late], return_inverse=True)
    rows[late] = len(table.parts) + place
    return rows, cold


def _compact(history: Rows, candidates: Rows) -> tuple[Ints, Ints]:
    """Both renumbered [l] and [c]: candidates from 1 on, and 0 for what is none of them."""
    distinct, place = np.unique(candidates, return_inverse=True)
    if not len(distinct):
        return np.zeros(len(history), np.int64), place
    found = np.searchsorted(distinct, history).clip(max=len(distinct) - 1)
    return np.where(distinct[found] == history, 1 + found, 0).astype(np.int64), (1 + place).astype(np.int64)
