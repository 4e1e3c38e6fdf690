"""A share of the scored requests goes to the log (features.requests), from a thread of its own."""

import logging
import queue
import threading
import time
from pathlib import Path

from features.requests import Logged, Writer, digest
from model.serve.answers import ScoreRequest
from model.serve.counters import Counters
from model.serve.scorer import Answer

log = logging.getLogger(__name__)
_WAITING = 256


class RequestLog:
    """Logs evenly `share` of what it is offered; what it cannot keep up with is left out."""

    def __init__(self, home: Path, share: float, counters: Counters) -> None:
        self._writer, self._share, self._counters = Writer(home), share, counters
        self._owed = 0.0
        self._queue: queue.Queue[tuple[ScoreRequest, Answer, int] | None] = queue.Queue(_WAITING)
        self._thread = threading.Thread(target=self._run, name="request-log", daemon=True)
        if share > 0:
            self._thread.start()

    def offer(self, request: ScoreRequest, answer: Answer) -> None:
        """Log this request if its turn has come."""
        self._owed += self._share
        if self._owed < 1:
            return
        self._owed -= 1
        try:
            self._queue.put_nowait((request, answer, int(time.time() * 1000)))
        except queue.Full:
            log.warning("a request is not logged: the log does not keep up")

    def close(self) -> None:
        """Write what waits."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join(5)

    def _run(self) -> None:
        while (found := self._queue.get()) is not None:
            try:
                self._writer.write(logged(*found))
                self._counters.count("seminar_requests_logged")
            except OSError as error:  # a full disk costs the log, never the service
                log.error("a request is not logged: %s", error)


def logged(request: ScoreRequest, answer: Answer, scored_ms: int) -> Logged:
    """What is written of an answer."""
    return Logged(
        scored_ms=scored_ms,
        version=answer.version,
        user=request.user,
        query=request.query,
        candidates=list(request.candidates),
        time_ms=answer.now_ms,
        method=request.method,
        length=answer.length,
        digest=digest(answer.read.records),
        degraded=answer.degraded,
        rates=answer.rates,
        total_ms=round(1000 * answer.seconds["total"], 3),
    )
