"""Reads of the online store that never hold a request up: what takes too long counts as away.

A sequence that cannot be read is replaced by the last one that was read of the user, if that is still held, and the answer
says so; else by none. Contents are read in pieces, since one read of thousands would seem to hang.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as Late
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

import numpy as np

from features.online import Online
from features.record import RECORD, Records

P = ParamSpec("P")
T = TypeVar("T")
PATIENCE_S = 0.15
PIECE, PIECES_S = 200, 1.0
"""Contents that one read asks for (20 ms of work), and how long a request goes on asking for more."""
LOOK_S, LOOKERS = 2.0, 2
"""Patience with reads that score nothing, and how many of them go on at once."""
RECENT_BYTES = 64 << 20
RECENT_EACH = 400
"""Bytes that a sequence takes beside its records, when it is held: most are short."""
_REST_S = 0.5
EMPTY = np.empty(0, RECORD)


@dataclass(frozen=True)
class Read:
    """A user's records [l] up to a moment, whether the store knows the user, and in words what was missing."""

    records: Records
    known: bool = True
    degraded: list[str] = field(default_factory=list)


class Store:
    """The online store behind `Online`, with patience (s); safe for threads."""

    online: Online

    def __init__(self, online: Online | None = None, patience: float = PATIENCE_S, recent_bytes: int = RECENT_BYTES) -> None:
        self._patience, self._recent_bytes = patience, recent_bytes
        self.open(online)

    def open(self, online: Online | None = None) -> None:
        """Begin anew, as a forked process must: it has neither the threads nor the connections of its parent."""
        self.online = online or Online()
        self._pool, self._lookers = ThreadPoolExecutor(4, "store"), ThreadPoolExecutor(LOOKERS, "look")
        self._resting_until = 0.0
        self._recent = Recent(self._recent_bytes)

    def ask(self, read: Callable[P, T], *given: P.args, **named: P.kwargs) -> T:
        """The result of a read; TimeoutError after `patience`, and at once for a while after one."""
        if time.monotonic() < self._resting_until:
            raise TimeoutError("did not answer a moment ago")
        future = self._pool.submit(read, *given, **named)
        try:
            return _result(future, self._patience)
        except TimeoutError:
            self._resting_until = time.monotonic() + _REST_S
            raise

    def look(self, read: Callable[P, T], *given: P.args, **named: P.kwargs) -> T:
        """The result of a read for who only looks: no score waits behind it, or takes the store for away because of it."""
        return _result(self._lookers.submit(read, *given, **named), max(LOOK_S, self._patience))

    def contents(self, read: Callable[[Sequence[int]], list[T]], ids: Sequence[int]) -> tuple[list[T], str]:
        """What a read says of ids, as far as it comes: of all, or of the first ones and in words why of no more."""
        found: list[T] = []
        most = max(PIECES_S, self._patience)
        end = time.monotonic() + most
        try:
            for start in range(0, len(ids), PIECE):
                if time.monotonic() > end:
                    raise TimeoutError(f"said {len(found)} of {len(ids)} within {most:g} s")
                found += self.ask(read, ids[start : start + PIECE])
        except Exception as error:  # a store that is away costs what is in it, never the answer
            return found, f"{type(error).__name__}: {error}"
        return found, ""

    def sequence(self, user: str, until_ms: int) -> Read:
        """A user's records up to a moment; never an exception."""
        try:
            found = self.ask(self.online.sequence, user)
        except Exception as error:  # a store that is away costs the sequence, never the answer
            words = f"store: {type(error).__name__}: {error}"
            held = self._recent.get(user)
            if held is None:
                return Read(EMPTY, True, [words])
            age = time.monotonic() - held[1]
            return Read(until(held[0], until_ms), True, [words, f"recent sequence: as it was read {age:.0f} s ago"])
        if found is None:
            return Read(EMPTY, False, ["unknown user: no sequence"])
        self._recent.put(user, found[0])
        return Read(until(found[0], until_ms))


class Recent:
    """The sequences that were read last, up to `most` bytes; they are used only while the store is away."""

    def __init__(self, most: int) -> None:
        self._most, self._bytes = most, 0
        self._held: OrderedDict[str, tuple[Records, float]] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, user: str, records: Records) -> None:
        """Hold what was read just now."""
        with self._lock:
            former = self._held.pop(user, None)
            self._bytes += _bytes(records) - (_bytes(former[0]) if former else 0)
            self._held[user] = records, time.monotonic()
            while self._bytes > self._most and self._held:
                _, (dropped, _) = self._held.popitem(last=False)
                self._bytes -= _bytes(dropped)

    def get(self, user: str) -> tuple[Records, float] | None:
        """Records and when they were read (s, monotonic)."""
        with self._lock:
            return self._held.get(user)


def _bytes(records: Records) -> int:
    return RECENT_EACH + records.nbytes


def _result(future: Future[T], patience: float) -> T:
    try:
        return future.result(patience)
    except Late:
        future.cancel()
        raise TimeoutError(f"did not answer within {patience:g} s") from None


def until(records: Records, time_ms: int) -> Records:
    """The records [l] that are not later than a moment."""
    if not len(records) or records["time"][-1] <= time_ms:
        return records
    return records[: np.searchsorted(records["time"], time_ms, "right")]
