"""STATE: whose online store this is, and how far the stream has been applied; rows of the view `stream_state`.

`identity`: a uuid that must equal `<home>/history/IDENTITY`. A store that was emptied or swapped has lost it: then whoever
writes stops and whoever reads says so, instead of going on with truncated sequences in silence.
`<topic>/<partition>`: a watermark. `partitions`: the names of all watermarks.
"""

import json
import os
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from features.errors import SeminarError
from features.online import Online
from features.publish import sync

IDENTITY, PARTITIONS = "identity", "partitions"


class Watermark(NamedTuple):
    """How far a partition is applied.

    offset: the next one, all before it are applied. time_ms: all that arrived before it is applied. lag: messages behind it
    when it was written. rate: messages a second since the watermark before. instance: the member that wrote it.
    """

    offset: int
    time_ms: int
    lag: int = 0
    rate: float = 0.0
    instance: str = ""


class IdentityLost(SeminarError):
    """The online store is not the one that this home's history belongs to, or was emptied."""


def expected_identity(home: Path) -> str | None:
    """The identity that history names, or None before the first event."""
    try:
        return (home / "history" / "IDENTITY").read_text().strip()
    except FileNotFoundError:
        return None


def ensure_identity(online: Online, home: Path) -> str:
    """Pair a new store with a new history; IdentityLost where one of them is not new and they do not match."""
    if expected_identity(home) is None and found_identity(online) is None:
        _create(home)
    if found_identity(online) is None and not any((home / "history").glob("*/date=*/*.parquet")):
        restore_identity(online, home)
    return check_identity(online, home)


def check_identity(online: Online, home: Path) -> str:
    """The identity that store and history share; IdentityLost where they do not."""
    expected, found = expected_identity(home), found_identity(online)
    if found is None:
        raise IdentityLost(
            "online store",
            "identity",
            "is missing: the store was emptied or is another one",
            "rebuild it with `seminar replay --from history`, then go on",
        )
    if found != expected:
        raise IdentityLost(
            "online store",
            found,
            f"belongs to another history than {home / 'history'} ({expected})",
            "set SEMINAR_HOME or the store's address right",
        )
    return found


def found_identity(online: Online) -> str | None:
    """The identity that the online store carries."""
    row = online.states([IDENTITY])[0]
    return row[0] if row else None


def restore_identity(online: Online, home: Path) -> None:
    """Write history's identity into the store: the last step of a rebuild."""
    online.write_states({IDENTITY: (expected_identity(home) or _create(home), 0, _now())})


class Pairing:
    """Whether a reader's store is still the one that history belongs to; looked up once a `period` (s)."""

    def __init__(self, online: Online, home: Path, period: float = 1.0) -> None:
        self._online, self._home, self._period = online, home, period
        self._due, self._trouble = 0.0, ""

    def trouble(self) -> str:
        """Why sequences cannot be trusted; "" when they can, or where nothing was ever applied."""
        if time.monotonic() >= self._due:
            expected, found = expected_identity(self._home), found_identity(self._online)
            if found is None and expected is not None:
                self._trouble = "online store was emptied or is another one: sequences may be truncated"
            elif None not in (found, expected) and found != expected:
                self._trouble = "online store belongs to another history: sequences may be other users'"
            else:
                self._trouble = ""
            self._due = time.monotonic() + self._period
        return self._trouble


def _create(home: Path) -> str:
    folder = home / "history"
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder / f".{uuid.uuid4().hex}.tmp"
    aside.write_text(f"{uuid.uuid4()}\n")
    sync(aside)
    try:
        os.link(aside, folder / "IDENTITY")  # fails where another process was first: its identity holds
    except FileExistsError:
        pass
    finally:
        aside.unlink()
    sync(folder)
    return expected_identity(home) or ""


def write_watermarks(online: Online, marks: Mapping[str, Watermark], partitions: Mapping[str, int] | None = None) -> None:
    """Overwrite watermarks by `topic/partition`; those of partitions that a topic no longer has are dropped.

    partitions: how many each known topic has, where it was made again with fewer; of other topics nothing is dropped.
    """
    if not marks:
        return
    online.write_states({name: (json.dumps(mark[2:]), mark.offset, mark.time_ms) for name, mark in marks.items()})
    known = _partitions(online)
    there = {name for name in known | marks.keys() if _exists(name, partitions or {})}
    if there != known:
        # Two members may do so at once; the one that is overwritten does it again with its next watermark.
        online.write_states({PARTITIONS: (json.dumps(sorted(there)), 0, _now())})


def _exists(name: str, partitions: Mapping[str, int]) -> bool:
    topic, _, partition = name.rpartition("/")
    return topic not in partitions or int(partition) < partitions[topic]


def watermarks(online: Online) -> dict[str, Watermark]:
    """All watermarks by `topic/partition`."""
    names = sorted(_partitions(online))
    rows = zip(names, online.states(names), strict=True)
    return {name: Watermark(row[1], row[2], *json.loads(row[0])) for name, row in rows if row}


def _partitions(online: Online) -> set[str]:
    row = online.states([PARTITIONS])[0]
    return set(json.loads(row[0])) if row else set()


def _now() -> int:
    return int(time.time() * 1000)
