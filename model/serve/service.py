"""The service without HTTP: what answers a request, and what watches beside it."""

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from features.errors import SeminarError
from features.record import KIND_SEARCH
from features.settings import Settings
from model.bundle import Bundle
from model.serve.admission import DEADLINE_S, WAITING
from model.serve.answers import Event, Ready, ScoreAnswer, ScoreRequest, UserSequence
from model.serve.counters import Counters
from model.serve.freshness import LIMIT_S, Watch
from model.serve.requests import RequestLog
from model.serve.scorer import Answer
from model.serve.store import PATIENCE_S, RECENT_BYTES, Store
from model.serve.swap import Swap


@dataclass(frozen=True)
class Limits:
    """waiting: requests that may wait; deadline (s) where a request names none; store (s): patience with the online store;
    stale (s): age of a watermark; logged: share of requests; recent: bytes of sequences held for when the store is away."""

    waiting: int = WAITING
    deadline: float = DEADLINE_S
    store: float = PATIENCE_S
    stale: float = LIMIT_S
    logged: float = 0.01
    recent: int = RECENT_BYTES


class Service:
    """One process's service; `prepare` may run before processes are forked, `start` in each of them."""

    def __init__(self, settings: Settings, limits: Limits | None = None, counters: Counters | None = None) -> None:
        self.limits = limits or Limits()
        self.counters = counters or Counters()
        self._settings = settings
        self.store = Store(patience=self.limits.store, recent_bytes=self.limits.recent)
        self.swap = Swap(settings.bundles, self.store, self.counters)
        self.watch = Watch(self.store, settings.home, self.limits.stale, self.counters)
        self._log: RequestLog | None = None

    def prepare(self) -> None:
        """Load the promoted bundle, if there is one; processes forked after it share its memory."""
        self.swap.look()

    @property
    def home(self) -> Path:
        """The SEMINAR_HOME that it serves."""
        return self._settings.home

    def bundle(self) -> Bundle | None:
        """The bundle in force, if there is one."""
        try:
            return self.swap.scorer().bundle
        except SeminarError:
            return None

    def start(self, period: float = 1.0) -> None:
        """Watch pointer and watermarks every `period` seconds, log requests."""
        self.swap.warm()
        self.swap.look()
        self.swap.watch(period)
        self.watch.start(period)
        self._log = RequestLog(self._settings.home, self.limits.logged, self.counters)

    def close(self) -> None:
        """Stop what `start` started."""
        self.swap.close()
        self.watch.close()
        if self._log:
            self._log.close()

    def score(self, request: ScoreRequest) -> ScoreAnswer:
        """Answer a request; SeminarError before the first bundle. Its outcome is counted, whatever it is."""
        try:
            answer = self._answer(request)
        except SeminarError:
            self.counters.count("seminar_score_requests", "unavailable")
            raise
        except Exception:
            self.counters.count("seminar_score_requests", "failed")
            raise
        self._count(answer)
        self.swap.sample(request)
        if self._log:
            self._log.offer(request, answer)
        return answer.as_dict(self.watch.now())

    def _answer(self, request: ScoreRequest) -> Answer:
        moment = request.time.timestamp() if request.time else time.time()
        return self.swap.scorer().score(
            request.user,
            request.candidates,
            query=request.query,
            time_ms=int(moment * 1000),
            explain=request.explained,
            method=request.method,
            watch=self.watch,
        )

    def sequence(self, user: str, most: int) -> UserSequence:
        """The newest `most` behaviours of a user, the newest first. LookupError: unknown; SeminarError: store away."""
        try:
            found = self.store.look(self.store.online.sequence, user)
            if found is None:
                raise LookupError(user)
            records = found[0]
            chosen = records[::-1][:most]
            items = self.store.look(self.store.online.items, chosen["item"].tolist())
            queries = self.store.look(self.store.online.queries, chosen["query"].tolist())
        except LookupError:
            raise
        except Exception as error:
            raise SeminarError("online store", type(error).__name__, f"does not answer: {error}", "repeat later") from error
        times = records["time"]
        behaviours: list[Event] = [
            {
                "kind": "search" if record["kind"] == KIND_SEARCH else "browse",
                "time": _moment(int(record["time"])),
                "item": item["item_id"] if item else None,
                "title": item["title"] if item else None,
                "query": query,
                "dwell_s": int(record["dwell"]),
            }
            for record, item, query in zip(chosen, items, queries, strict=True)
        ]
        return {
            "user": user,
            "length": len(records),
            "first_event": _moment(int(times[0])) if len(records) else None,
            "last_event": _moment(int(times[-1])) if len(records) else None,
            "freshness": self.watch.now(),
            "behaviours": behaviours,
        }

    def ready(self) -> Ready:
        """Which bundle answers, here and in the other workers; SeminarError where none does here."""
        return {
            "ready": True,
            "model_version": self.swap.scorer().version,
            "swaps": self.swap.swaps,
            "refused": self.swap.refused,
            "freshness": self.watch.now(),
            "worker": self.counters.worker,
            "workers": self.counters.board.read(),
        }

    def exposition(self) -> bytes:
        """The metrics of all workers."""
        return self.counters.exposition()

    def _count(self, answer: Answer) -> None:
        for stage, took in answer.seconds.items():
            self.counters.observe(stage, took)
        for reason in {words.split(":")[0] for words in answer.degraded}:
            self.counters.count("seminar_score_degraded", reason)
        self.counters.count("seminar_score_requests", "degraded" if answer.degraded else "ok")
        unknown = answer.rates.count(None)
        self.counters.count("seminar_score_candidates", "no", unknown)
        self.counters.count("seminar_score_candidates", "yes", len(answer.rates) - unknown)


def _moment(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat()
