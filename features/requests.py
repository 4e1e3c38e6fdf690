"""REQUESTS: scored requests, sampled into files, with what was read, so that a job can recompute them from history.

    <home>/requests/date=YYYY-MM-DD/<name>.jsonl    one JSON object a line (`Logged`), by the UTC date of the request

A line holds a user's id: files older than KEEP_DAYS are removed, and forgetting a user removes the user's lines.
"""

import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import msgspec

from features.fences import user_hash
from features.record import Records

KEEP_DAYS = 7


class Logged(msgspec.Struct, kw_only=True):
    """A request as it was answered. scored_ms: when; time_ms: as of when; digest: of the records that were read."""

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


def digest(records: Records) -> str:
    """64 bits of records [l], in hex."""
    return hashlib.blake2b(records.tobytes(), digest_size=8).hexdigest()


class Writer:
    """Appends lines to a file of its own a day; a line is one write: whole or not there."""

    def __init__(self, home: Path) -> None:
        self._folder, self._name = _folder(home), f"{uuid.uuid4().hex}.jsonl"
        self._day: date | None = None

    def write(self, found: Logged) -> None:
        """Append one; OSError where that is not possible."""
        day = datetime.fromtimestamp(found.scored_ms / 1000, UTC).date()
        folder = self._folder / f"date={day.isoformat()}"
        if day != self._day:
            folder.mkdir(parents=True, exist_ok=True)
            _drop_old(self._folder, day)
            self._day = day
        # Opened anew for each: erasing replaces files.
        with (folder / self._name).open("ab", buffering=0) as file:
            file.write(msgspec.json.encode(found) + b"\n")


def read(home: Path, since_ms: int = 0) -> Iterator[Logged]:
    """The logged requests since a moment, file by file; a line that a crash cut off is skipped."""
    for file in sorted(_folder(home).glob("date=*/*.jsonl")):
        for line in file.read_bytes().splitlines():
            found = _decoded(line)
            if found is not None and found.scored_ms >= since_ms:
                yield found


def erase(home: Path, fences: Mapping[str, int]) -> int:
    """Remove the lines older than their user's fence (ms by user hash); how many."""
    removed = 0
    for file in sorted(_folder(home).glob("date=*/*.jsonl")) if fences else ():
        kept, lines = [], file.read_bytes().splitlines(keepends=True)
        for line in lines:
            found = _decoded(line)
            if found is not None and found.scored_ms >= fences.get(user_hash(found.user), 0):
                kept.append(line)
        if len(kept) < len(lines):
            removed += len(lines) - len(kept)
            aside = file.with_suffix(".tmp")
            aside.write_bytes(b"".join(kept))
            os.replace(aside, file)
    return removed


def _folder(home: Path) -> Path:
    return home / "requests"


def _decoded(line: bytes) -> Logged | None:
    try:
        return msgspec.json.decode(line, type=Logged)
    except msgspec.DecodeError:
        return None


def _drop_old(folder: Path, today: date) -> None:
    oldest = (today - timedelta(days=KEEP_DAYS)).isoformat()
    for day in folder.glob("date=*"):
        if day.name.removeprefix("date=") < oldest:
            shutil.rmtree(day, ignore_errors=True)
