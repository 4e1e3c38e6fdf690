"""SEQUENCE: a user's lifelong set of fixed-size records, and the only codec of it.

Letters: n records. A sequence is the newest `cap` distinct records in canonical order (time, then the remaining 24
bytes, compared as bytes). Equal bytes are one event, so union is idempotent, commutative and associative, and a replay,
a redrive or a producer's retry changes nothing.

A blob is a 16-byte header (version u8, 7 reserved, fence i64) and n records of 32 bytes, little-endian. A delta that is
appended is a blob too: a sequence like any other. Records hold identities, never codes of a model.
"""

import hashlib
import struct
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from features.errors import SeminarError

RECORD = np.dtype(
    [
        ("time", "<i8"),  # ms since the epoch, UTC
        ("item", "<u8"),  # entity_id of the item; 0: a search, no item
        ("query", "<u8"),  # entity_id of the query's text; 0: none
        ("digest", "<u4"),  # of the event's source and id: two events that look alike stay two
        ("dwell", "<u2"),  # s, saturated
        ("kind", "u1"),
        ("flags", "u1"),
    ]
)
Records = NDArray[np.void]

KIND_SEARCH = 1
KIND_BROWSE = 2
CAP = 100_000
VECTOR_MOST = 1e6
"""What a number of an item's vector is at most (either sign): no encoder gives more, and sums of squares stay finite."""
VERSION = 1
HEADER = 16
"""Bytes before the records."""
_HEADER = struct.Struct("<B7xq")
# The 24 bytes after the time as three big-endian words: comparing them is comparing the bytes.
_WORDS = np.dtype([("time", "<i8"), ("a", ">u8"), ("b", ">u8"), ("c", ">u8")])


@lru_cache(maxsize=1 << 18)
def entity_id(key: str) -> int:
    """The 64-bit id of an original key (unsigned, never 0: 0 means "none")."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little") or 1


@lru_cache(maxsize=1 << 17)
def query_id(text: str) -> int:
    """The 64-bit id of a query as it was typed (unsigned, never 0)."""
    return entity_id(query_text(text))


def query_text(text: str) -> str:
    """The form of a query under which it has one id: lower case, single spaces."""
    return " ".join(text.lower().split())


def event_digest(source: str, event_id: str) -> int:
    """32 bits of what makes an event unique (CloudEvents: source and id)."""
    return int.from_bytes(hashlib.blake2b(f"{source}\0{event_id}".encode(), digest_size=4).digest(), "little")


def signed(unsigned_id: int) -> int:
    """An id as Feast and parquet hold it: they have no unsigned 64-bit key."""
    return unsigned_id - (1 << 64) if unsigned_id >= 1 << 63 else unsigned_id


def unsigned(signed_id: int) -> int:
    """The inverse of `signed`."""
    return signed_id + (1 << 64) if signed_id < 0 else signed_id


def encode(records: Records, fence: int = 0) -> bytes:
    """Records [n] and a fence (ms; older records are forgotten) as one blob of 16 + 32n bytes."""
    # One copy: a body may be megabytes.
    return b"".join((_HEADER.pack(VERSION, fence), np.ascontiguousarray(records, RECORD).data))


def decode(blob: bytes | memoryview) -> tuple[Records, int]:
    """The records [n] (a read-only view, no copy) and the fence of a blob; b"" is an empty sequence."""
    if not blob:
        return np.empty(0, RECORD), 0
    body = len(blob) - HEADER
    if body < 0 or body % RECORD.itemsize:
        raise SeminarError(
            "sequence",
            f"{len(blob)} bytes",
            f"is not a {HEADER}-byte header and whole {RECORD.itemsize}-byte records",
            "write it with features.record.encode",
        )
    version, fence = _HEADER.unpack_from(blob)
    if version != VERSION:
        raise SeminarError("sequence.version", version, f"is not {VERSION}", "upgrade the reader or rebuild the row")
    return np.frombuffer(blob, RECORD, offset=HEADER), fence


def is_canonical(records: Records) -> bool:
    """Whether records [n] are strictly increasing in canonical order: sorted, with no repeats."""
    time = records["time"]
    if bool(np.all(time[1:] > time[:-1])):
        return True
    if not bool(np.all(time[1:] >= time[:-1])):
        return False
    ties = np.flatnonzero(time[1:] == time[:-1])
    words = np.ascontiguousarray(records).view(_WORDS)
    left, right = words[ties], words[ties + 1]
    rises = (left["a"] < right["a"]) | (
        (left["a"] == right["a"]) & ((left["b"] < right["b"]) | ((left["b"] == right["b"]) & (left["c"] < right["c"])))
    )
    return bool(np.all(rises))


def canonical_order(records: Records, *leading: NDArray[np.generic]) -> NDArray[np.intp]:
    """The permutation [n] that sorts records canonically, under any leading keys [n] (the first one leads)."""
    words = np.ascontiguousarray(records).view(_WORDS)
    return np.lexsort((words["c"], words["b"], words["a"], words["time"], *reversed(leading)))


def normalise(records: Records, fence: int = 0, cap: int = CAP) -> Records:
    """The set that records [m] stand for, as n <= cap records: sorted, without repeats, nothing older than the fence.

    This one function is used by both online stores, by history and by the scorer. Records that are canonical already
    are not copied.
    """
    if not is_canonical(records):
        records = records[canonical_order(records)]
        keep = np.ones(len(records), bool)
        raw = records.view("V32")
        keep[1:] = raw[1:] != raw[:-1]
        records = records[keep]
    if len(records) and records["time"][0] < fence:
        records = records[np.searchsorted(records["time"], fence) :]
    return records[len(records) - cap :] if len(records) > cap else records


def union(*parts: Records, fence: int = 0, cap: int = CAP) -> Records:
    """The union of several sequences, canonical."""
    return normalise(np.concatenate([np.empty(0, RECORD), *parts]), fence, cap)
