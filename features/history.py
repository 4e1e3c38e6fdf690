"""HISTORY: everything accepted, as parquet files in partitions by the event's UTC date.

    <home>/history/<table>/date=YYYY-MM-DD/<name>.parquet

A file is written under a hidden name, synced and renamed; the folder is synced after it. The name comes from the batch,
so that a batch that is read again lands in the same files, also across midnight. Files may overlap: readers take the
same union as the online stores do (`features.record.normalise`).
"""

import os
import uuid
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from numpy.typing import NDArray

from features.fences import fences
from features.publish import sync
from features.record import CAP, RECORD, Records, canonical_order

EVENTS, ITEMS, QUERIES, IMPRESSIONS = "events", "items", "queries", "impressions"

_TIME = pa.timestamp("us", "UTC")
_ORIGIN = [("topic", pa.string()), ("partition", pa.int32()), ("offset", pa.int64()), ("arrived", _TIME)]
SCHEMAS: dict[str, pa.Schema] = {
    # `sequence` is the bare 32-byte record: online and offline, Feast sees one feature of one name.
    EVENTS: pa.schema([("user_id", pa.string()), ("event_timestamp", _TIME), ("sequence", pa.binary(32)), *_ORIGIN]),
    ITEMS: pa.schema(
        [
            ("item", pa.int64()),  # signed(entity_id(item_id))
            ("event_timestamp", _TIME),
            ("item_id", pa.string()),
            ("title", pa.string()),
            ("category", pa.string()),
            ("brand", pa.string()),
            ("attributes", pa.string()),  # a JSON object of strings
            ("text_vector", pa.binary()),  # float32, any width; null: the title is encoded
            ("image_vector", pa.binary()),  # float32, any width; null: missing
            *_ORIGIN,
        ]
    ),
    QUERIES: pa.schema([("query", pa.int64()), ("event_timestamp", _TIME), ("text", pa.string()), *_ORIGIN]),
    IMPRESSIONS: pa.schema(
        [
            ("user_id", pa.string()),
            ("event_timestamp", _TIME),
            ("impression_id", pa.string()),
            ("query", pa.int64()),  # 0: shown without a search
            ("items", pa.list_(pa.int64())),
            ("positions", pa.list_(pa.int32())),
            ("place", pa.string()),
            *_ORIGIN,
        ]
    ),
}


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


def write(home: Path, table: str, rows: pa.Table, name: str) -> list[Path]:
    """Write rows (the table's schema) into the partitions of their dates, each as `<name>.parquet`, durably."""
    rows = rows.cast(SCHEMAS[table])
    days = pc.floor_temporal(rows["event_timestamp"], unit="day")
    written = []
    for day in pc.unique(days).sort():
        part = rows.filter(pc.equal(days, day))
        folder = home / "history" / table / f"date={day.as_py():%Y-%m-%d}"
        new = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        file, aside = folder / f"{name}.parquet", folder / f".{uuid.uuid4().hex}.tmp"
        try:
            pq.write_table(part, aside, compression="zstd")
            sync(aside)
            os.replace(aside, file)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
        sync(folder)
        if new:
            sync(folder.parent)
        written.append(file)
    return written


def read(
    home: Path, table: str, since_ms: int | None = None, until_ms: int | None = None, columns: list[str] | None = None
) -> pa.Table:
    """All rows with since <= event time < until, as written: repeats included, in no order."""
    folder = home / "history" / table
    first = _moment(since_ms) if since_ms is not None else None
    last = _moment(until_ms) if until_ms is not None else None
    files = [
        str(file)
        for file in sorted(folder.glob("date=*/*.parquet"))
        if not file.name.startswith(".")
        and (first is None or file.parent.name[5:] >= f"{first:%Y-%m-%d}")
        and (last is None or file.parent.name[5:] <= f"{last:%Y-%m-%d}")
    ]
    schema = SCHEMAS[table]
    wanted = ds.scalar(True)
    if first is not None:
        wanted = wanted & (ds.field("event_timestamp") >= pa.scalar(first, _TIME))
    if last is not None:
        wanted = wanted & (ds.field("event_timestamp") < pa.scalar(last, _TIME))
    return ds.dataset(files, schema=schema, format="parquet").to_table(columns=columns, filter=wanted)


def _moment(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


def milliseconds(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """A timestamp column [n] as ms since the epoch."""
    values: NDArray[np.int64] = column.cast(pa.int64()).to_numpy()
    return values // 1000


def read_sequences(
    home: Path, until_ms: int | None = None, users: Collection[str] | None = None, cap: int = CAP
) -> Histories:
    """Every user's sequence as it stood before `until_ms`: the union over all files, the newest `cap` of each."""
    rows = read(home, EVENTS, until_ms=until_ms, columns=["user_id", "sequence"])
    if users is not None:
        rows = rows.filter(pc.is_in(rows["user_id"], pa.array(sorted(users), pa.string())))
    if not len(rows):
        return Histories([], np.zeros(1, np.int64), np.empty(0, RECORD))
    encoded = rows["user_id"].combine_chunks().dictionary_encode()
    names = np.asarray(encoded.dictionary.to_pylist(), object)
    by_name = np.argsort(names)
    rank = np.empty(len(names), np.int64)
    rank[by_name] = np.arange(len(names))
    owner = rank[encoded.indices.to_numpy()]
    packed = rows["sequence"].combine_chunks()
    records = np.frombuffer(packed.buffers()[1], RECORD, len(packed), packed.offset * RECORD.itemsize)
    order = canonical_order(records, owner)
    records, owner = records[order], owner[order]
    raw = records.view("V32")
    keep = np.ones(len(records), bool)
    keep[1:] = (raw[1:] != raw[:-1]) | (owner[1:] != owner[:-1])
    fence = fences(home)
    if fence:
        keep &= records["time"] >= fence.of_all(str(name) for name in names[by_name])[owner]
    records, owner = records[keep], owner[keep]
    ends = np.searchsorted(owner, np.arange(len(names)), "right")
    newest = np.arange(len(owner)) >= ends[owner] - cap
    records, owner = records[newest], owner[newest]
    offsets = np.searchsorted(owner, np.arange(len(names) + 1)).astype(np.int64)
    return Histories([str(name) for name in names[by_name]], offsets, records)


def read_items(home: Path, until_ms: int | None = None) -> pa.Table:
    """The newest version of each item, sorted by `item`."""
    return _newest(read(home, ITEMS, until_ms=until_ms), ["item"])


def read_queries(home: Path, until_ms: int | None = None) -> pa.Table:
    """Each query's text, sorted by `query`."""
    return _newest(read(home, QUERIES, until_ms=until_ms), ["query"])


def read_impressions(home: Path, since_ms: int | None = None, until_ms: int | None = None) -> pa.Table:
    """Each impression once, sorted by user and impression id, without what users had forgotten."""
    rows = _newest(read(home, IMPRESSIONS, since_ms, until_ms), ["user_id", "impression_id"])
    fence = fences(home)
    if not fence:
        return rows
    return rows.filter(pa.array(milliseconds(rows["event_timestamp"]) >= fence.of_all(rows["user_id"].to_pylist())))


def _newest(rows: pa.Table, keys: list[str]) -> pa.Table:
    """The newest row of each key, in the order of the keys.

    Of equal event times the greater content wins, column by column in the order of their names (null before empty, then
    as bytes): online rows are replaced by the same rule (features.rows), so a replay in any order ends equal. Where the
    content is equal, or holds lists, the greater origin decides.
    """
    origin = ["topic", "partition", "offset"]
    plain = [field.name for field in rows.schema if not pa.types.is_list(field.type)]
    content = sorted({*plain} - {*keys, *origin, "event_timestamp", "arrived"})
    order = [(name, "ascending") for name in [*keys, "event_timestamp", *content, *origin]]
    rows = rows.take(pc.sort_indices(rows, sort_keys=order, null_placement="at_start"))
    if len(rows) < 2:
        return rows
    last = np.zeros(len(rows), bool)
    last[-1] = True
    for name in keys:
        column = rows[name].combine_chunks()
        last[:-1] |= pc.not_equal(column[1:], column[:-1]).to_numpy(zero_copy_only=False)
    return rows.filter(pa.array(last))
