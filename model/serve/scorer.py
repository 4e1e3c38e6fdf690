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
from model.nn.backbone import last
from model.nn.click import evidence
from model.nn.content import contents, text_encoder, tokens, type_of
from model.nn.features import context, counters
from model.nn.inputs import History, Parts, Seen
from model.nn.modalities import ItemInputs
from model.search.choose import search
from model.search.keys import Coded, Keys, Rows
from model.search.keys import Parts as Searched
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
    """Distinct entities [n], coded, with biases [n], popularity [n, 5] and types [n]; row 0 stands for "none"."""

    ids: NDArray[np.uint64]
    coded: Coded
    bias: Floats
    popularity: Floats
    types: NDArray[np.uint64]
    known: NDArray[np.bool_]

    @property
    def parts(self) -> Floats:
        """Parts [n, d]."""
        return self.coded.parts

    def rows(self, ids: NDArray[np.uint64]) -> Ints:
        """Rows of ids, all of which are here."""
        return np.searchsorted(self.ids, ids)


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
        items = self._items(np.unique(np.concatenate([[np.uint64(0)], records["item"], ids])))
        queries = self._queries(np.unique(np.concatenate([[np.uint64(0)], records["query"], asked])), query)
        clock.lap("encode")
        rows = items.rows(ids)
        parts = Parts(torch.from_numpy(items.parts), torch.from_numpy(queries.parts))
        item_part = parts.item[rows].unsqueeze(0)
        query_part = parts.query[queries.rows(asked)].expand_as(item_part)
        target = item_part + query_part
        history = History(
            torch.from_numpy(items.rows(records["item"])),
            torch.from_numpy(queries.rows(records["query"])),
            torch.from_numpy(records["time"].astype(np.int64)),
            torch.from_numpy(records["kind"].astype(np.int64)),
        )
        seen = Seen.of_one(torch.tensor([len(records)]), torch.tensor([time_ms]))
        model, attention = self._model, self._model.backbone.attention
        with torch.inference_mode():
            folded = attention.fold(target[0]).numpy()
            bias = attention.bias((seen.now - history.time).clamp(min=0), history.kind).numpy()
            item_rows, query_rows = (side.numpy().astype(np.int32) for side in (history.item, history.query))
            keys = Keys(Searched(items.coded), item_rows, Searched(queries.coded), query_rows, bias)
            found = np.array(search(folded, keys, self._retrieved(len(records)), self._bundle.codebooks, self._method))
            clock.lap("search")
            long = attention(target, parts, history, seen, torch.from_numpy(found.astype(np.int32)))
            recent = model.recent(target, parts, history, seen, last(seen, model.backbone.recent))
            types = torch.from_numpy(np.unique(items.types, return_inverse=True)[1])  # row 0 has the least: 0
            wanted, queried = torch.from_numpy(rows).unsqueeze(0), torch.from_numpy(queries.rows(asked)).expand(1, len(rows))
            counted = counters(history, seen, wanted, queried, types)
            plain = torch.from_numpy(items.popularity[rows]).unsqueeze(0), torch.from_numpy(items.bias[rows]).unsqueeze(0)
            about = context(history, seen)
            searched = torch.full(item_part.shape[:2], float(asked[0] != 0))
            popular, own = plain
            found_all = evidence(long, recent, item_part, query_part, searched, counted, popular, about)
            odds = model.combine(found_all, own)[0].numpy().astype(np.float64)
        rates = 1 / (1 + np.exp(-(self._scale * odds + self._shift)))
        known = items.known[rows]
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
        rows = table.rows(ids)
        found = _take(table, ids, rows)
        cold = np.flatnonzero(rows < 0)
        if not len(cold):
            return found
        content = self._content(ids[cold])
        with torch.inference_mode():
            parts = self._model.backbone.items(content[1]).numpy()
        found.parts[cold] = parts
        found.coded.codes[cold] = self._bundle.codebooks.item.encode(parts)
        found.coded.cells[cold] = self._bundle.codebooks.coarse.assign(parts)
        found.bias[cold] = float(self._model.item_bias.weight.detach()[0, 0])
        found.known[cold] = content[0]
        found.types[cold] = content[2]
        for at in cold:  # how popular its type is, those who share it know
            kin = np.flatnonzero(table.types == found.types[at])[:1] if found.types[at] else cold[:0]
            found.popularity[at, 3] = table.popularity[kin, 3].sum()
        return found

    def _content(self, ids: NDArray[np.uint64]) -> tuple[NDArray[np.bool_], ItemInputs, NDArray[np.uint64]]:
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
        types = [type_of(row) if row else None for row in rows]
        hashes = np.array([entity_id(name) if name else 0 for name in types], np.uint64)
        return np.array([row is not None for row in rows], bool), inputs, hashes

    def _queries(self, ids: NDArray[np.uint64], asked: str | None) -> Encoded:
        """Parts of queries: from the table, or from their words for those that no model has seen."""
        table = self._bundle.queries
        rows = table.rows(ids)
        found = _take(table, ids, rows)
        cold = np.flatnonzero(rows < 0)
        if not len(cold):
            return found
        own = {entity_id(query_text(asked)): query_text(asked)} if asked and asked.strip() else {}
        elsewhere = [int(i) for i in ids[cold] if int(i) not in own]
        try:
            texts = dict(zip(elsewhere, self._online.queries(elsewhere), strict=True))
        except Exception:  # the store is away: behaviours of unknown queries count as without one
            texts = {}
        words = [own.get(int(i)) or texts.get(int(i)) or "" for i in ids[cold]]
        with torch.inference_mode():
            hashed = np.stack([tokens(text, self._bundle.spec.token_rows) for text in words])
            parts = self._model.backbone.queries(torch.from_numpy(hashed)).numpy()
        found.parts[cold] = parts
        found.coded.codes[cold] = self._bundle.codebooks.query.encode(parts)
        return found

    def _retrieved(self, length: int) -> int:
        spec = self._bundle.spec
        return spec.retrieved if spec.search == "topk" else length

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


def _take(table: Table, ids: NDArray[np.uint64], rows: Rows) -> Encoded:
    """Rows of a table, copied; those of unknown ids (row -1) are to be filled in. Id 0 is known only as "none"."""
    here = np.maximum(rows, 0)
    coded = Coded(table.parts[here], table.cells[here], table.codes[here])
    return Encoded(ids, coded, table.bias[here], table.popularity[here], table.types[here], rows > 0)
