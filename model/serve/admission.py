"""Who may wait for the thread that computes: a bounded queue, and a deadline for each request.

A request that would wait behind too many is refused at once, with the time after which to come again, rather than being
answered when nobody waits for it any more; one whose deadline passes in the queue is never begun.
"""

import asyncio
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from features.errors import SeminarError
from model.serve.counters import Counters
from model.serve.refusals import Refused

T = TypeVar("T")
WAITING = 32
DEADLINE_S = 2.0


class Admission:
    """At most `waiting` requests beside the one that is computed; call it from one event loop."""

    def __init__(self, counters: Counters, waiting: int = WAITING) -> None:
        self._counters = counters
        self._most = waiting + 1
        self._inside = 0
        self._mean = 0.01
        self._pool = ThreadPoolExecutor(1, "compute")

    async def run(self, work: Callable[[], T], deadline: float) -> T:
        """The work's result; Refused (503 when the queue is full, 504 when the deadline, a `time.monotonic`, passes)."""
        if self._inside >= self._most:
            self._counters.count("seminar_score_requests", "shed")
            wait = max(1, math.ceil(self._inside * self._mean))
            problem = SeminarError("queue", f"{self._inside} requests", "is full", f"come again after {wait} s")
            raise Refused(503, problem, {"Retry-After": str(wait)})
        self._enter(1)
        came = time.monotonic()
        loop = asyncio.get_running_loop()
        begun = self._pool.submit(self._begin, work, came, deadline)
        begun.add_done_callback(lambda _: loop.call_soon_threadsafe(self._enter, -1))
        try:
            async with asyncio.timeout(max(0.0, deadline - came)):
                return await asyncio.wrap_future(begun)
        except TimeoutError:
            begun.cancel()
            self._counters.count("seminar_score_requests", "late")
            spent = f"{time.monotonic() - came:.3f} s"
            raise Refused(504, SeminarError("deadline", spent, "passed before the answer", "allow more time")) from None

    def close(self) -> None:
        """Begin nothing more; what is computed ends."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _enter(self, by: int) -> None:
        self._inside += by
        self._counters.set("seminar_score_waiting", self._inside)

    def _begin(self, work: Callable[[], T], came: float, deadline: float) -> T:
        begin = time.monotonic()
        if begin >= deadline:
            raise TimeoutError
        self._counters.observe("queue", begin - came)
        result = work()
        self._mean += 0.05 * (time.monotonic() - begin - self._mean)
        return result
