"""ERASURE: what users had forgotten goes from every file of history, also from pinned versions and superseded files.

Files are replaced one by one, each atomically and under its own name, so that versions go on naming them; one whose rows are
all gone stays, empty. A fence is set before, so nothing that is older can come in behind the scan.
"""

import os
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from features.fences import user_hash
from features.history import CLICKS, EVENTS, IMPRESSIONS, LABELS, QUERIES, milliseconds
from features.publish import sync
from features.record import RECORD


@dataclass
class Erased:
    """Rows that went and files that were replaced."""

    rows: int = 0
    files: int = 0


def named(home: Path) -> set[int]:
    """The queries (unsigned ids) that erased rows named, since `forget_named`; kept through a crash."""
    journal = _journal(home)
    return set(map(int, journal.read_text().split())) if journal.exists() else set()


def forget_named(home: Path) -> None:
    """The texts of those queries are dealt with."""
    _journal(home).unlink(missing_ok=True)


def erase_lists(home: Path, fences: Mapping[str, int]) -> int:
    """Remove the files of `<home>/lists` that name one of these users (by hash); how many. Evaluations draw them again."""
    removed = 0
    for file in sorted((home / "lists").glob("*.npz")):
        with np.load(file) as stored:
            users = set(stored["user"].tolist())
        if any(user_hash(name) in fences for name in users):
            file.unlink()
            removed += 1
    return removed


def users_of(home: Path, fences: Mapping[str, int]) -> set[str]:
    """Names of the users (fences are by hash) of whom some file still has a row."""
    found: set[str] = set()
    for table in (EVENTS, IMPRESSIONS, CLICKS, LABELS) if fences else ():
        for file in _files(home, table):
            try:
                names = pc.unique(pq.read_table(file, columns=["user_id"], partitioning=None)["user_id"])
            except FileNotFoundError:
                continue
            found.update(name for name in names.to_pylist() if user_hash(name) in fences)
    return found


def erase_rows(home: Path, fences: Mapping[str, int]) -> Erased:
    """Remove what is older than its user's fence (ms by user hash) from every file: events, impressions, clicks, labels.

    The queries that they named are noted before they go (`named`).
    """
    done = Erased()
    for table in (EVENTS, IMPRESSIONS, CLICKS, LABELS):
        for file in _files(home, table):
            try:
                users = pq.read_table(file, columns=["user_id", "event_timestamp"], partitioning=None)
            except FileNotFoundError:
                continue  # a compaction's garbage
            limits = _limits(users["user_id"], fences)
            gone = milliseconds(users["event_timestamp"]) < limits
            if gone.any():
                rows = pq.read_table(file, partitioning=None)
                if table in (EVENTS, IMPRESSIONS):
                    _note(home, _queries(table, rows.filter(pa.array(gone))))
                replace(file, rows.filter(pa.array(~gone)))
                done.rows += int(gone.sum())
                done.files += 1
    return done


def unused(home: Path, queries: set[int]) -> set[int]:
    """Those of some queries (unsigned ids) that no event and no impression names any more."""
    left = set(queries)
    for table, column in ((EVENTS, "sequence"), (IMPRESSIONS, "query")):
        for file in _files(home, table) if left else ():
            try:
                left -= _queries(table, pq.read_table(file, columns=[column], partitioning=None))
            except FileNotFoundError:
                continue
    return left


def erase_queries(home: Path, queries: set[int]) -> Erased:
    """Remove the texts of queries (unsigned ids) from every file."""
    done, ids = Erased(), np.array(sorted(queries), np.uint64).view(np.int64)
    for file in _files(home, QUERIES) if queries else ():
        try:
            rows = pq.read_table(file, partitioning=None)
        except FileNotFoundError:
            continue
        gone = np.isin(rows["query"].to_numpy(), ids)
        if gone.any():
            replace(file, rows.filter(pa.array(~gone)))
            done.rows += int(gone.sum())
            done.files += 1
    return done


def _journal(home: Path) -> Path:
    return home / "history" / "erasing.ids"


def _note(home: Path, queries: set[int]) -> None:
    with _journal(home).open("a") as file:
        file.write("".join(f"{query}\n" for query in queries))
    sync(_journal(home))


def _files(home: Path, table: str) -> Iterator[Path]:
    return (file for file in (home / "history" / table).glob("date=*/*.parquet") if not file.name.startswith("."))


def _limits(users: pa.ChunkedArray, fences: Mapping[str, int]) -> NDArray[np.int64]:
    """The fence [n] of each row's user; 0: none."""
    encoded = pc.dictionary_encode(users).combine_chunks()
    by_user = np.array([fences.get(user_hash(name), 0) for name in encoded.dictionary.to_pylist()], np.int64)
    return by_user[encoded.indices.to_numpy()] if len(by_user) else np.zeros(len(users), np.int64)


def _queries(table: str, rows: pa.Table) -> set[int]:
    """The queries (unsigned ids) that rows name."""
    if table == EVENTS:
        packed = b"".join(rows["sequence"].to_pylist())
        ids = np.frombuffer(packed, RECORD)["query"]
    else:
        ids = rows["query"].to_numpy().view(np.uint64)
    return set(np.unique(ids).tolist()) - {0}


def replace(file: Path, rows: pa.Table) -> None:
    """Write rows under a file's name, atomically and durably."""
    aside = file.parent / f".{uuid.uuid4().hex}.tmp"
    try:
        pq.write_table(rows, aside, compression="zstd")
        sync(aside)
        os.replace(aside, file)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    sync(file.parent)
