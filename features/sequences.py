"""Rows of history as the users' sequences: one array, grouped by user, in place as far as it goes.

Letters: m rows, n records kept, u users.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.fences import Fences
from features.record import RECORD, Records, canonical_order

CHUNK = 1 << 17
"""Rows that are sorted at once, or one user's if they are more: this bounds what sorting needs beside the array."""


@dataclass(frozen=True)
class Histories:
    """The sequences of u users over one array: user i owns records[offsets[i]:offsets[i + 1]], canonical.

    user_ids: sorted list [u]; offsets: i64 [u + 1]; records: RECORD [n].
    """

    user_ids: list[str]
    offsets: NDArray[np.int64]
    records: Records

    def of(self, user: int) -> Records:
        """The records of user i (a view)."""
        return self.records[self.offsets[user] : self.offsets[user + 1]]


@dataclass
class Rows:
    """Rows as they were read: pieces of (owner i32 [k] into users, records [k])."""

    users: list[str]
    pieces: list[tuple[NDArray[np.int32], Records]]


def collect(batches: Iterable[pa.RecordBatch]) -> Rows:
    """Batches with `user_id` and `sequence`, without the strings."""
    codes: dict[str, int] = {}
    pieces = []
    for batch in batches:
        if len(batch):
            names = batch["user_id"].dictionary_encode()
            code = np.array([codes.setdefault(name, len(codes)) for name in names.dictionary.to_pylist()], np.int32)
            pieces.append((code[names.indices.to_numpy()], packed(batch["sequence"]).copy()))
    pa.default_memory_pool().release_unused()
    return Rows(list(codes), pieces)


def packed(column: pa.FixedSizeBinaryArray) -> Records:
    """The records [k] of a `sequence` array (a view)."""
    if not len(column):
        return np.empty(0, RECORD)
    return np.frombuffer(column.buffers()[1], RECORD, len(column), column.offset * RECORD.itemsize)


def unite(rows: Rows, fences: Fences, cap: int) -> Histories:
    """Each user's set: sorted, without repeats and what is older than the fence, the newest `cap`. Consumes the rows."""
    names = sorted(rows.users)
    place = {name: i for i, name in enumerate(names)}
    rank = np.array([place[name] for name in rows.users], np.int64)
    records, counts = _grouped(rows, rank, len(names))
    ends = np.cumsum(counts)
    fence = fences.of_all(names) if fences else np.zeros(len(names), np.int64)
    sizes, done, first = np.zeros(len(names), np.int64), 0, 0
    while first < len(names):
        start = ends[first] - counts[first]
        last = max(int(np.searchsorted(ends, start + CHUNK, "right")), first + 1)
        part = records[start : ends[last - 1]]
        owner = np.repeat(np.arange(first, last), counts[first:last])
        part = part[canonical_order(part, owner)]  # a copy: what is kept goes over what was read
        keep = part["time"] >= fence[owner]
        raw = part.view("V32")
        keep[1:] &= (raw[1:] != raw[:-1]) | (owner[1:] != owner[:-1])
        part, owner = part[keep], owner[keep]
        newest = np.arange(len(owner)) >= np.searchsorted(owner, np.arange(first, last), "right")[owner - first] - cap
        sizes[first:last] = np.bincount(owner[newest] - first, minlength=last - first)
        kept = int(np.count_nonzero(newest))
        records[done : done + kept] = part[newest]
        done, first = done + kept, last
    left = np.flatnonzero(sizes)
    return Histories([names[i] for i in left], np.concatenate([[0], np.cumsum(sizes[left])]), records[:done])


def _grouped(rows: Rows, rank: NDArray[np.int64], users: int) -> tuple[Records, NDArray[np.int64]]:
    """All records in the order of their users, and how many each has [u]."""
    counts = np.zeros(users, np.int64)
    for owner, _ in rows.pieces:
        here, many = np.unique(rank[owner], return_counts=True)
        counts[here] += many
    free = np.cumsum(counts) - counts  # the next free place of each user
    records = np.empty(int(counts.sum()), RECORD)
    raw = records.view("V32")
    while rows.pieces:
        owner, piece = rows.pieces.pop()
        order = np.argsort(rank[owner], kind="stable")
        mine = rank[owner][order]
        runs = np.flatnonzero(np.append(True, mine[1:] != mine[:-1]))
        lengths = np.diff(np.append(runs, len(mine)))
        raw[np.repeat(free[mine[runs]] - runs, lengths) + np.arange(len(mine))] = piece.view("V32")[order]
        free[mine[runs]] += lengths
    return records, counts
