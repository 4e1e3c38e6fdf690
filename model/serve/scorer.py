"""Answers requests with one bundle: the user side is read once a request, the item side lies in mapped tables."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from features.online import Online
from features.record import entity_id
from model.bundle import Bundle
from model.compute import tune
from model.serve.answers import Explanation, Freshness, Score, ScoreAnswer
from model.serve.entities import Entities
from model.serve.explain import Explainer
from model.serve.freshness import Watch
from model.serve.scoring import Clock, Scoring
from model.serve.store import Read, Store

UNKNOWN = "unknown item: no `item` event has come for it"
AWAY = "unknown for now: the store did not say what it is"


@dataclass
class Answer:
    """Rates and scores in the order of the candidates: None with a reason for what cannot be scored.

    read: what they were made of.
    """

    version: str
    user: str
    candidates: Sequence[str]
    rates: list[float | None]
    scores: list[float | None]
    reasons: list[str | None]
    read: Read
    now_ms: int
    degraded: list[str]
    seconds: dict[str, float] = field(default_factory=dict)
    explanations: list[Explanation] = field(default_factory=list)

    @property
    def length(self) -> int:
        """Behaviours that were read."""
        return len(self.read.records)

    @property
    def last_ms(self) -> int | None:
        """When the last of them was."""
        return int(self.read.records["time"][-1]) if self.length else None

    def as_dict(self, freshness: Freshness) -> ScoreAnswer:
        """The body of the HTTP answer."""
        age = None if self.last_ms is None else round((self.now_ms - self.last_ms) / 1000, 3)
        scores: list[Score] = []
        for item, rate, score, reason in zip(self.candidates, self.rates, self.scores, self.reasons, strict=True):
            scores.append({"item": item, "rate": rate, "score": score})
            if reason:
                scores[-1]["reason"] = reason
        body: ScoreAnswer = {
            "model_version": self.version,
            "user": self.user,
            "sequence": {"length": self.length, "last_event_age_s": age},
            "freshness": freshness,
            "degraded": self.degraded,
            "scores": scores,
            "milliseconds": {name: round(1000 * took, 3) for name, took in self.seconds.items()},
        }
        if self.explanations:
            body["explanations"] = self.explanations
        return body


class Scorer:
    """One bundle's scorer; safe for threads. `method`: how to search where a request does not say (model.search.choose)."""

    def __init__(self, bundle: Bundle, store: Store, method: str = "auto") -> None:
        tune()
        self.version, self.bundle = bundle.version, bundle
        self._store, self._method = store, method
        self._entities = Entities(bundle, store)
        self.scoring = Scoring(bundle, self._entities)
        self._explainer = Explainer(bundle, store, self._entities, self.scoring)

    @classmethod
    def of(cls, bundle: Bundle, online: Online, method: str = "auto") -> "Scorer":
        """A scorer with a store of its own."""
        return cls(bundle, Store(online), method)

    def warm(self) -> None:
        """Compute something without the store, so that the first request finds everything compiled and mapped."""
        from features.record import RECORD

        self._entities.warm()
        ids = self.bundle.items.ids[:8]
        records = np.zeros(4096, RECORD)
        records["time"], records["kind"] = np.arange(len(records)), 2
        records["item"][:] = np.resize(ids, len(records)) if len(ids) else 0
        for length in (0, 3, len(records)):
            self.scoring(records[:length], np.append(ids, np.uint64(0)), "warm", len(records))

    def score(
        self,
        user: str,
        candidates: Sequence[str],
        *,
        query: str | None = None,
        time_ms: int,
        explain: Sequence[str] = (),
        method: str | None = None,
        watch: Watch | None = None,
    ) -> Answer:
        """Calibrated click rates of candidates (their own keys) shown to a user at a time, with or without a query."""
        clock, method = Clock(), method or self._method
        read = self._store.sequence(user, time_ms)
        clock.lap("sequence")
        ids = np.array([entity_id(key) for key in candidates], np.uint64)
        scored = self.scoring(read.records, ids, query, time_ms, method, clock)
        known, unread = scored.known.tolist(), scored.items.unread(scored.items.rows[1]).tolist()
        missed = {"items": scored.items.away, "queries": scored.queries.away}
        answer = Answer(
            self.version,
            user,
            candidates,
            [rate if ok else None for rate, ok in zip(scored.rates.tolist(), known, strict=True)],
            [score if ok else None for score, ok in zip(scored.scores.tolist(), known, strict=True)],
            [None if ok else AWAY if away else UNKNOWN for ok, away in zip(known, unread, strict=True)],
            read,
            time_ms,
            [
                *read.degraded,
                *(f"store: {what} new to the bundle: {why}" for what, why in missed.items() if why),
                *(watch.degraded() if watch else ()),
            ],
        )
        for key in explain:
            place = candidates.index(key)
            answer.explanations.append(
                self._explainer(key, place, read.records, scored, query=query, time_ms=time_ms, method=method)
            )
        if explain:
            clock.lap("explain")
        answer.seconds = clock.laps | {"total": sum(clock.laps.values())}
        return answer
