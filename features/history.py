"""HISTORY: everything accepted, as parquet files in partitions by the event's UTC date.

    <home>/history/<table>/date=YYYY-MM-DD/<name>.parquet

A file is written under a hidden name, synced and renamed; the folder is synced after it. The name comes from the batch,
so that a batch that is read again lands in the same files, also across midnight. Files may overlap: readers take the
same union as the online stores do (`features.record.normalise`). Compaction merges files into numbered versions: every
reader below reads what there is now, or with `version` exactly what one version holds.
"""

import os
import uuid
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from numpy.typing import NDArray

from features import sequences, snapshot, versions
from features.fences import fences
from features.publish import sync
from features.record import CAP
from features.sequences import Histories as Histories

EVENTS, ITEMS, QUERIES, IMPRESSIONS = "events", "items", "queries", "impressions"
CLICKS, LABELS = "clicks", "labels"

_TIME = pa.timestamp("us", "UTC")
ORIGIN = ("topic", "partition", "offset")
"""Where an event came from, as far as it orders rows of one event time."""
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
    # Browses that name the impression they came from: a record has no room for it.
    CLICKS: pa.schema(
        [
            ("user_id", pa.string()),
            ("event_timestamp", _TIME),  # of the browse
            ("impression_id", pa.string()),
            ("item", pa.int64()),
            *_ORIGIN,
        ]
    ),
    # What features.labels joined; of an impression the row that was written last holds.
    LABELS: pa.schema(
        [
            ("user_id", pa.string()),
            ("event_timestamp", _TIME),  # of the impression
            ("impression_id", pa.string()),
            ("clicked", pa.list_(pa.int64())),
            ("complete", pa.bool_()),  # its window was over when it was joined
            *_ORIGIN,
        ]
    ),
}


CONTENT = ("attributes", "brand", "category", "image_vector", "item_id", "text_vector", "title")
"""What tells versions of an item apart; of one event time the greater one wins, column by column, null first."""


def write(home: Path, table: str, rows: pa.Table, name: str) -> list[Path]:
    """Write rows (the table's schema) into the partitions of their dates, each as `<name>.parquet`, durably."""
    rows = rows.cast(SCHEMAS[table])
    days = pc.floor_temporal(rows["event_timestamp"], unit="day")
    written = []
    for day in pc.unique(days).sort():
        part = rows.filter(pc.equal(days, day))
        file = home / "history" / table / f"date={day.as_py():%Y-%m-%d}" / f"{name}.parquet"
        aside = file.parent / f".{uuid.uuid4().hex}.tmp"
        new = not file.parent.exists()
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            pq.write_table(part, aside, compression="zstd")
            sync(aside)
            with versions.guard(home):
                os.replace(aside, file)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
        sync(file.parent)
        if new:
            sync(file.parent.parent)
        written.append(file)
    return written


def version(home: Path) -> str | None:
    """The newest version, or None before the first compaction."""
    return versions.last(home)


def read(
    home: Path,
    table: str,
    since_ms: int | None = None,
    until_ms: int | None = None,
    columns: list[str] | None = None,
    *,
    users: Collection[str] | None = None,
    version: str | None = None,
) -> pa.Table:
    """All rows with since <= event time < until (of these users), as written: repeats included, in no order."""
    wanted = _wanted(since_ms, until_ms, users)

    def take(dataset: ds.Dataset) -> pa.Table:
        return dataset.to_table(columns=columns, filter=wanted)

    return snapshot.scan(home, table, SCHEMAS[table], take, version, since_ms, until_ms)


def _wanted(since_ms: int | None, until_ms: int | None, users: Collection[str] | None) -> ds.Expression:
    wanted = ds.scalar(True)
    if since_ms is not None:
        wanted = wanted & (ds.field("event_timestamp") >= _moment(since_ms))
    if until_ms is not None:
        wanted = wanted & (ds.field("event_timestamp") < _moment(until_ms))
    if users is not None:
        few = sorted(users)
        wanted = wanted & ds.field("user_id").isin(pa.array(few, pa.string()))
        if few:  # compacted files are sorted by user: a range of them skips whole row groups
            wanted = wanted & (ds.field("user_id") >= few[0]) & (ds.field("user_id") <= few[-1])
    return wanted


def _moment(ms: int) -> pa.Scalar:
    return pa.scalar(datetime.fromtimestamp(ms / 1000, UTC), _TIME)


def milliseconds(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """A timestamp column [n] as ms since the epoch."""
    values: NDArray[np.int64] = column.cast(pa.int64()).to_numpy()
    return values // 1000


def read_sequences(
    home: Path,
    until_ms: int | None = None,
    users: Collection[str] | None = None,
    cap: int = CAP,
    version: str | None = None,
) -> Histories:
    """Every user's sequence as it stood before `until_ms`: the union over all files, the newest `cap` of each.

    Users of whom nothing is left are not listed. Memory: about 2.5 times the records read.
    """
    wanted = _wanted(None, until_ms, users)

    def take(dataset: ds.Dataset) -> sequences.Rows:
        return sequences.collect(
            dataset.to_batches(columns=["user_id", "sequence"], filter=wanted, batch_readahead=2, fragment_readahead=1)
        )

    rows = snapshot.scan(home, EVENTS, SCHEMAS[EVENTS], take, version, until_ms=until_ms)
    return sequences.unite(rows, fences(home), cap)


def read_items(home: Path, until_ms: int | None = None, version: str | None = None) -> pa.Table:
    """The newest version of each item, sorted by `item`."""
    return newest_items(read(home, ITEMS, until_ms=until_ms, version=version))


def newest_items(rows: pa.Table) -> pa.Table:
    """The newest row of each item, sorted by `item`; of equal times the greater content, as in the online stores."""
    return one_of_each(rows, ["item"], CONTENT)


def read_entities(home: Path, table: str, ids: Collection[int]) -> pa.Table:
    """All rows of items or queries with these (signed) ids, repeats included."""
    key, few = ds.field("item" if table == ITEMS else "query"), sorted(ids)
    wanted = key.isin(pa.array(few, pa.int64()))
    if few:
        wanted = wanted & (key >= few[0]) & (key <= few[-1])
    return snapshot.scan(home, table, SCHEMAS[table], lambda dataset: dataset.to_table(filter=wanted))


def read_queries(home: Path, until_ms: int | None = None, version: str | None = None) -> pa.Table:
    """Each query's text as it first came, sorted by `query`."""
    return one_of_each(read(home, QUERIES, until_ms=until_ms, version=version), ["query"], last=False)


def read_impressions(
    home: Path, since_ms: int | None = None, until_ms: int | None = None, version: str | None = None
) -> pa.Table:
    """Each impression once, sorted by user and impression id, without what users had forgotten."""
    return _unfenced(
        home, one_of_each(read(home, IMPRESSIONS, since_ms, until_ms, version=version), ["user_id", "impression_id"])
    )


def read_labels(
    home: Path, since_ms: int | None = None, until_ms: int | None = None, version: str | None = None
) -> pa.Table:
    """The newest label of each impression shown in [since, until), sorted by user and impression id."""
    rows = read(home, LABELS, since_ms, until_ms, version=version)
    return _unfenced(home, one_of_each(rows, ["user_id", "impression_id"], ("arrived",)))


def read_clicks(
    home: Path, since_ms: int | None = None, until_ms: int | None = None, version: str | None = None
) -> pa.Table:
    """Each browse that named its impression once, without what users had forgotten; an item may be browsed repeatedly."""
    rows = read(home, CLICKS, since_ms, until_ms, version=version)
    return _unfenced(home, one_of_each(rows, ["user_id", "impression_id", "item", "event_timestamp"], last=False))


def _unfenced(home: Path, rows: pa.Table) -> pa.Table:
    fence = fences(home)
    if not fence:
        return rows
    return rows.filter(pa.array(milliseconds(rows["event_timestamp"]) >= fence.of_all(rows["user_id"].to_pylist())))


def one_of_each(rows: pa.Table, keys: list[str], content: Sequence[str] = (), last: bool = True) -> pa.Table:
    """Of each key the row with the greatest (or least) event time, content and origin, in the order of the keys."""
    order = [(name, "ascending") for name in dict.fromkeys((*keys, "event_timestamp", *content, *ORIGIN))]
    rows = rows.take(pc.sort_indices(rows, order, null_placement="at_start"))
    if len(rows) < 2:
        return rows
    edge = np.zeros(len(rows) - 1, bool)
    for name in keys:
        column = rows[name].combine_chunks()
        edge |= pc.not_equal(column[1:], column[:-1]).to_numpy(zero_copy_only=False)
    return rows.filter(pa.array(np.append(edge, True) if last else np.insert(edge, 0, True)))
