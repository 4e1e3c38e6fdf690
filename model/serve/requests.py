"""Scored requests, sampled into files, with what was read: a job recomputes them from history (model.serve.recompute).

    <home>/requests/date=YYYY-MM-DD/<uuid>.jsonl    one JSON object a line (`Logged`), by the UTC date of the request

A line holds the user's id, so it is personal data: files older than KEEP_DAYS are removed, and forgetting a user removes
the lines of that user (`erase`).
"""

import hashlib
import logging
import os
import queue
import shutil
import threading
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import IO

import msgspec

from features.record import Records
from model.serve.answers import ScoreRequest
from model.serve.counters import Counters
from model.serve.scorer import Answer

log = logging.getLogger(__name__)
KEEP_DAYS = 7
_WAITING = 256


class Logged(msgspec.Struct, kw_only=True):
    """A request as it was answered. scored_ms: when; digest: of the records that were read (`digest`)."""

    scored_ms: int
    version: str
    user: str
    query: str | None
    candidates: list[str]
    time_ms: int
    method: str
    length: int
    digest: str
    degraded: list[str]
    rates: list[float | None]
    total_ms: float


class RequestLog:
    """Writes a share of the requests from a thread of its own; what it cannot keep up with is left out."""

    def __init__(self, folder: Path, share: float, counters: Counters) -> None:
        self._folder, self._share, self._counters = folder, share, counters
        self._owed = 0.0
        self._queue: queue.Queue[tuple[ScoreRequest, Answer, int] | None] = queue.Queue(_WAITING)
        self._thread = threading.Thread(target=self._run, name="request-log", daemon=True)
        if share > 0:
            self._thread.start()

    def offer(self, request: ScoreRequest, answer: Answer) -> None:
        """Log this request if its turn has come: evenly, `share` of all."""
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
        day, file = None, None
        while (found := self._queue.get()) is not None:
            try:
                today = datetime.fromtimestamp(found[2] / 1000, UTC).date()
                if file is None or day != today:
                    day, file = today, self._open(today)
                file.write(msgspec.json.encode(logged(*found)) + b"\n")
                self._counters.count("seminar_requests_logged")
            except OSError as error:  # a full disk costs the log, never the service
                file = None
                log.error("a request is not logged: %s", error)

    def _open(self, today: date) -> IO[bytes]:
        drop_old(self._folder, today)
        folder = self._folder / f"date={today.isoformat()}"
        folder.mkdir(parents=True, exist_ok=True)
        return (folder / f"{uuid.uuid4().hex}.jsonl").open("ab", buffering=0)  # a line is one write: whole or not there


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


def digest(records: Records) -> str:
    """64 bits of records [l], in hex."""
    return hashlib.blake2b(records.tobytes(), digest_size=8).hexdigest()


def read(folder: Path, since_ms: int = 0) -> Iterator[Logged]:
    """The logged requests since a moment, file by file; a last line that a crash cut off is skipped."""
    for file in sorted(folder.glob("date=*/*.jsonl")):
        for line in file.read_bytes().splitlines():
            try:
                found = msgspec.json.decode(line, type=Logged)
            except msgspec.DecodeError:
                continue
            if found.scored_ms >= since_ms:
                yield found


def erase(folder: Path, user: str) -> int:
    """Remove a user's lines; how many."""
    removed = 0
    for file in sorted(folder.glob("date=*/*.jsonl")):
        lines = file.read_bytes().splitlines(keepends=True)
        kept = [line for line in lines if msgspec.json.decode(line, type=Logged).user != user]
        if len(kept) < len(lines):
            removed += len(lines) - len(kept)
            aside = file.with_suffix(".tmp")
            aside.write_bytes(b"".join(kept))
            os.replace(aside, file)
    return removed


def drop_old(folder: Path, today: date, keep_days: int = KEEP_DAYS) -> None:
    """Remove days before the last `keep_days`."""
    oldest = (today - timedelta(days=keep_days)).isoformat()
    for day in folder.glob("date=*"):
        if day.name.removeprefix("date=") < oldest:
            shutil.rmtree(day, ignore_errors=True)
