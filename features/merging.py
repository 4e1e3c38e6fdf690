"""Merging files of one date into sorted ones without repeats, so that reading before and after gives the same.

Of rows that repeat, the one stays that the readers in `features.history` would take: of events the one that arrived
first, of items and impressions the one of the last origin, of clicks of the first, of labels the one written last, of
queries the first of the date.
"""

import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from numpy.typing import NDArray

from features.fences import Fences
from features.history import CLICKS, CONTENT, EVENTS, IMPRESSIONS, ITEMS, LABELS, ORIGIN, QUERIES, SCHEMAS, milliseconds
from features.publish import sync
from features.record import canonical_order
from features.sequences import packed
from features.snapshot import COMPACT


class _Rule(NamedTuple):
    """unique: columns in which repeats are equal; files are sorted by them.

    order: columns by which repeats differ; last: whether the last or the first of them stays.
    rows: of a file at most; a file's rows are in memory a few times while it is made.
    """

    unique: tuple[str, ...]
    order: tuple[str, ...]
    last: bool
    rows: int


_RULES = {
    EVENTS: _Rule(("user_id", "sequence"), ("arrived", *ORIGIN), False, 2_000_000),
    ITEMS: _Rule(("item", "event_timestamp", *CONTENT), ORIGIN, True, 100_000),
    QUERIES: _Rule(("query",), ("event_timestamp", *ORIGIN), False, 1_000_000),
    IMPRESSIONS: _Rule(("user_id", "event_timestamp", "impression_id"), ORIGIN, True, 500_000),
    CLICKS: _Rule(("user_id", "event_timestamp", "impression_id", "item"), ORIGIN, False, 1_000_000),
    LABELS: _Rule(("user_id", "event_timestamp", "impression_id"), ("arrived", *ORIGIN), True, 1_000_000),
}
_NAMES = ("user_id", "topic", "partition", "place", "category", "brand")
_NUMBERS = ("event_timestamp", "arrived", "offset")


def merge(
    table: str, inputs: list[Path], folder: Path, fences: Fences, rows_per_file: int | None, written: list[Path]
) -> tuple[int, list[tuple[Path, int]]]:
    """Write the rows of the inputs into new files of `folder`, durably: how many came in, and (file, rows) of each.

    Files are noted in `written` as soon as they exist. Nothing is written where no row is left.
    """
    rule, made, came = _RULES[table], list[tuple[Path, int]](), 0

    def dataset() -> ds.Dataset:
        # Made anew for each pass: one remembers footers, and a loose file may be written again meanwhile.
        return ds.dataset([str(file) for file in inputs], schema=SCHEMAS[table], format="parquet")

    for wanted in _ranges(dataset, rule.unique[0], rows_per_file or rule.rows):
        rows = dataset().to_table(filter=wanted)
        came += len(rows)
        rows = _distinct(rule, _unfenced(rows, fences))
        if len(rows):
            file = folder / f"{COMPACT}{uuid.uuid4().hex}.parquet"
            _write(rows, file)
            written.append(file)
            made.append((file, len(rows)))
    if made:
        sync(folder)
    return came, made


def _ranges(dataset: Callable[[], ds.Dataset], key: str, limit: int) -> list[ds.Expression | None]:
    """Filters that cut the rows into ranges of the key with about `limit` rows each; one key is never cut."""
    if dataset().count_rows() <= limit:
        return [None]
    counts: dict[Any, int] = {}
    for batch in dataset().to_batches(columns=[key]):
        for found in batch[key].value_counts().to_pylist():
            counts[found["values"]] = counts.get(found["values"], 0) + found["counts"]
    keys = sorted(counts)
    total = np.cumsum([counts[key] for key in keys])
    edges = sorted({int(np.searchsorted(total, x)) for x in range(limit, int(total[-1]), limit)} | {len(keys) - 1})
    column, ranges = ds.field(key), []
    for before, edge in zip([-1, *edges], edges, strict=False):
        wanted = column <= keys[edge]
        ranges.append(wanted if before < 0 else wanted & (column > keys[before]))
    return ranges


def _unfenced(rows: pa.Table, fences: Fences) -> pa.Table:
    if not fences or "user_id" not in rows.column_names:
        return rows
    users = rows["user_id"].combine_chunks().dictionary_encode()
    least = fences.of_all(users.dictionary.to_pylist())[users.indices.to_numpy()]
    return rows.filter(pa.array(milliseconds(rows["event_timestamp"]) >= least))


def _distinct(rule: _Rule, rows: pa.Table) -> pa.Table:
    """Rows without repeats, sorted by the columns in which repeats are equal."""
    if not len(rows):
        return rows
    unique = [_codes(rows[name]) for name in rule.unique]
    order = np.lexsort((*(_codes(rows[name]) for name in reversed(rule.order)), *reversed(unique)))
    edge = np.zeros(len(rows) - 1, bool)
    for code in unique:
        edge |= code[order[1:]] != code[order[:-1]]
    keep = np.append(edge, True) if rule.last else np.insert(edge, 0, True)
    return rows.take(pa.array(order[keep]))


def _codes(column: pa.ChunkedArray) -> NDArray[np.int64]:
    """Integers [n] in the order of the column's values, equal where they are equal; none is a value of its own."""
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    if pa.types.is_integer(column.type):
        integers: NDArray[np.int64] = column.to_numpy().astype(np.int64)
        return integers
    if pa.types.is_fixed_size_binary(column.type):
        records = packed(column.combine_chunks())
        order = canonical_order(records)
        raw, rank = records[order].view("V32"), np.zeros(len(records), np.int64)
        rank[order[1:]] = np.cumsum(raw[1:] != raw[:-1])
        return rank
    encoded = column.combine_chunks().dictionary_encode("encode")
    values = encoded.dictionary.to_pylist()
    rank = np.empty(len(values), np.int64)
    rank[sorted(range(len(values)), key=lambda i: (values[i] is not None, values[i]))] = np.arange(len(values))
    codes: NDArray[np.int64] = rank[encoded.indices.to_numpy()]
    return codes


def _write(rows: pa.Table, file: Path) -> None:
    aside = file.with_name(f".{file.stem}.tmp")
    try:
        # Row groups are small enough that one user's rows are read without many others'. What is nearly always another
        # value is kept as it is or as differences, not in a dictionary.
        pq.write_table(
            rows,
            aside,
            compression="zstd",
            row_group_size=32_768,
            use_dictionary=[name for name in _NAMES if name in rows.column_names],
            column_encoding=dict.fromkeys(_NUMBERS, "DELTA_BINARY_PACKED"),
        )
        sync(aside)
        os.rename(aside, file)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
