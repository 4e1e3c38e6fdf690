"""PARITY: whether online and history hold the same, history cut where the stream has been applied, and making it so.

A batch is written to history before it is appended online, and the watermark of a partition moves after that. So with the
watermarks read first, then online, then history, while the stream runs on:

missing   in history below the watermark (or from imports and replays, which have none), not online
extra     online, in no row of history: a history file was lost or torn
lag       in history at or beyond the watermark, not online yet: no fault
"""

import random
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
from numpy.typing import NDArray

from features import entities, history, snapshot
from features.barrier import writing
from features.entities import REPAIR, Seen, settled
from features.fences import fences
from features.lost import stand_in
from features.online import Online
from features.record import CAP, RECORD, Records, canonical_order
from features.sequences import packed
from features.state import Watermark, check_identity, watermarks

_NONE = np.empty(0, RECORD)
USERS = 20
"""Users whose sequences are read at once: who else asks the store waits meanwhile."""
ROWS = 1_000_000
"""Rows of history that are compared at once; users are taken together until they have as many."""


@dataclass
class Found:
    """What a comparison found: the report, and the rows that `repair` puts right."""

    marks: dict[str, Watermark]
    users: int = 0
    equal: int = 0
    lag: int = 0
    differing: list[str] = field(default_factory=list)
    missing: dict[str, Records] = field(default_factory=dict)
    extra: dict[str, Records] = field(default_factory=dict)
    contents: entities.Found = field(default_factory=entities.Found)

    def report(self) -> dict[str, Any]:
        """users, equal (users without a fault), missing, extra, lag (records), edit_distance (missing + extra: both are
        sorted sets, so insertions and deletions are all that can differ), differing (the first ten users), entities (items
        and queries: compared, missing, outdated, lost from history), faults (all that is no lag).
        """
        missing = sum(map(len, self.missing.values()))
        extra = sum(map(len, self.extra.values()))
        rows = self.contents.report()
        return {
            "users": self.users,
            "equal": self.equal,
            "missing": missing,
            "extra": extra,
            "lag": self.lag,
            "edit_distance": missing + extra,
            "differing": self.differing,
            "entities": rows,
            "faults": missing + extra + rows["missing"] + rows["outdated"] + rows["lost"],
        }


def compare(online: Online, home: Path, sample: int | None = None, cap: int = CAP) -> dict[str, Any]:
    """Compare the users of history and store (or so many of them, by chance), items and queries: see `Found.report`.

    cap: how many records online keeps of a user; older ones are compared no more.
    """
    return _look(online, home, _chosen(online, home, sample), sample, cap).report()


def repair(online: Online, home: Path, sample: int | None = None, cap: int = CAP) -> dict[str, Any]:
    """Compare, append online what is missing there, write into history what was lost there, and compare again.

    Nothing is ever removed; where a version has lost a file an empty one takes its place first. Returns the second
    comparison's report, under `repaired` the first one's, under `stand_ins` the files that were lost. IdentityLost: the
    store belongs to another history, or was emptied.
    """
    check_identity(online, home)
    stand_ins = [str(file.relative_to(home)) for file in stand_in(home)]
    users = _chosen(online, home, sample)
    first = _look(online, home, users, sample, cap)
    name = f"{REPAIR}-{uuid.uuid4().hex}"
    with writing(home):
        fence = fences(home)
        online.append(first.missing, {user: fence.of(user) for user in first.missing})  # the store drops what is older
        rows = [_rows(user, records[records["time"] >= fence.of(user)]) for user, records in first.extra.items()]
        if rows:
            history.write(home, history.EVENTS, pa.concat_tables(rows), name)
        entities.repair(online, home, first.marks, first.contents, name)
    return _look(online, home, users, sample, cap).report() | {"repaired": first.report(), "stand_ins": stand_ins}


def _rows(user: str, records: Records) -> pa.Table:
    n, schema = len(records), history.SCHEMAS[history.EVENTS]
    packed_records = pa.Array.from_buffers(pa.binary(RECORD.itemsize), n, [None, pa.py_buffer(records.tobytes())])
    times = pa.array(records["time"].astype(np.int64) * 1000, schema.field("event_timestamp").type)
    rows = {"user_id": [user] * n, "event_timestamp": times, "sequence": packed_records}
    origin = {"topic": [REPAIR] * n, "partition": [0] * n, "offset": range(n), "arrived": [datetime.now(UTC)] * n}
    return pa.table(rows | origin, schema=schema)


def _chosen(online: Online, home: Path, sample: int | None) -> dict[str, int]:
    """Rows of each user to compare, of history and of the store; about so many where only the store has the user."""
    counts: dict[str, int] = {}

    def take(dataset: ds.Dataset) -> None:
        counts.clear()
        for batch in dataset.to_batches(columns=["user_id"]):
            for user in batch["user_id"].value_counts().to_pylist():
                counts[user["values"]] = counts.get(user["values"], 0) + user["counts"]

    snapshot.scan(home, history.EVENTS, history.SCHEMAS[history.EVENTS], take)
    counts |= dict.fromkeys(online.users() - counts.keys(), ROWS // 100)
    users = sorted(counts)
    if sample is not None and sample < len(users):
        users = sorted(random.sample(users, sample))
    return {user: counts[user] for user in users}


def _together(users: dict[str, int]) -> Iterator[list[str]]:
    part, rows = list[str](), 0
    for user, count in users.items():
        if part and rows + count > ROWS:
            yield part
            part, rows = [], 0
        part.append(user)
        rows += count
    if part:
        yield part


def _look(online: Online, home: Path, users: dict[str, int], sample: int | None, cap: int) -> Found:
    found, seen = Found(marks=watermarks(online)), Seen()  # before all else: what is below a watermark is online by now
    for part in _together(users):
        reads = (online.sequences(part[i : i + USERS]) for i in range(0, len(part), USERS))
        served = [found[0] if found else _NONE for read in reads for found in read]
        stored = _stored(home, part, found.marks)
        fence = fences(home).of_all(part)
        served = [records[records["time"] >= least] for records, least in zip(served, fence, strict=True)]
        for user, records, (expected, applied) in zip(part, served, stored, strict=True):
            _compare(found, user, records, expected, applied, cap)
        seen.add([*served, *(expected for expected, _ in stored)])
    found.contents = entities.look(online, home, found.marks, seen, sample)
    return found


def _stored(home: Path, users: Sequence[str], marks: dict[str, Watermark]) -> list[tuple[Records, NDArray[np.bool_]]]:
    """Of each user all records of history, canonical, and which of them must be online."""
    columns = ["user_id", "sequence", "topic", "partition", "offset"]
    rows = history.read(home, history.EVENTS, columns=columns, users=users)
    if not len(rows):
        return [(_NONE, np.empty(0, bool))] * len(users)
    records, applied = packed(rows["sequence"].combine_chunks()), settled(rows, marks)
    encoded, place = rows["user_id"].combine_chunks().dictionary_encode(), {user: i for i, user in enumerate(users)}
    owner = np.array([place[user] for user in encoded.dictionary.to_pylist()])[encoded.indices.to_numpy()]
    fence = fences(home).of_all(users)
    kept = records["time"] >= fence[owner]
    records, applied, owner = records[kept], applied[kept], owner[kept]
    order = canonical_order(records, owner)
    records, applied, owner = records[order], applied[order], owner[order]
    raw = records.view("V32")
    new = np.ones(len(records), bool)
    new[1:] = (raw[1:] != raw[:-1]) | (owner[1:] != owner[:-1])
    first = np.flatnonzero(new)
    # A record came perhaps several times: it must be online if one of its rows says so.
    applied = np.logical_or.reduceat(applied, first) if len(first) else applied
    records, owner = records[first], owner[first]
    ends = np.searchsorted(owner, np.arange(len(users) + 1))
    return [(records[a:b], applied[a:b]) for a, b in pairwise(ends)]


def _compare(found: Found, user: str, served: Records, stored: Records, applied: NDArray[np.bool_], cap: int) -> None:
    found.users += 1
    if served.tobytes() == stored[-cap:].tobytes():
        found.equal += 1
        return
    # Both keep the newest `cap`: what is older than the oldest of a full one, the other need not have.
    floors = [full[-cap] for full in (served, stored) if len(full) >= cap]
    _, where_served, where_stored = np.intersect1d(served.view("V32"), stored.view("V32"), return_indices=True)
    alone_online, alone_stored = np.ones(len(served), bool), np.ones(len(stored), bool)
    alone_online[where_served] = alone_stored[where_stored] = False
    missing, extra = stored[alone_stored & applied], served[alone_online]
    lag = stored[alone_stored & ~applied]
    for floor in floors:
        missing, extra, lag = (_from(x, floor) for x in (missing, extra, lag))
    found.lag += len(lag)
    if len(missing):
        found.missing[user] = missing
    if len(extra):
        found.extra[user] = extra
    if not len(missing) + len(extra):
        found.equal += 1
    elif len(found.differing) < 10:
        found.differing.append(user)


def _from(records: Records, floor: np.void) -> Records:
    """Those that do not come before `floor` in canonical order."""
    rank = np.empty(len(records) + 1, np.int64)
    rank[canonical_order(np.concatenate([np.array([floor], RECORD), records]))] = np.arange(len(rank))
    kept: Records = records[rank[1:] > rank[0]]  # the sort is stable: an equal one comes after the floor
    return kept
