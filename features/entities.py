"""Parity of items and query texts: whether online holds the newest version that history knows, and history all of online.

An entity's row is written online before it is in history: what seems lost from history is looked for again when the batches
in hand are done.
"""

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
from numpy.typing import NDArray

from features import history, snapshot
from features.barrier import alone
from features.history import CONTENT, ITEMS, QUERIES
from features.online import ITEM, QUERY, Online
from features.record import Records, unsigned
from features.state import Watermark

IDS = 10_000
"""Entities that are compared at once."""
REPAIR = "repair"
"""Topic of history rows that were made from online ones."""
_NAMES = {ITEMS: ("item", ITEM), QUERIES: ("query", QUERY)}


class Seen:
    """Items and queries (signed ids) that records name."""

    def __init__(self) -> None:
        self.ids: dict[str, NDArray[np.int64]] = {table: np.empty(0, np.int64) for table in _NAMES}

    def add(self, parts: Iterable[Records]) -> None:
        """Note what records [n] of each part name."""
        for table, (key, _) in _NAMES.items():
            found = [np.unique(part[key]).view(np.int64) for part in parts]
            ids = np.unique(np.concatenate([self.ids[table], *found]))
            self.ids[table] = ids[ids != 0]


@dataclass
class Found:
    """How many were compared, and the signed ids at fault by table."""

    compared: dict[str, int] = field(default_factory=dict)
    missing: dict[str, list[int]] = field(default_factory=dict)  # in history, not online
    outdated: dict[str, list[int]] = field(default_factory=dict)  # online is older than history
    lost: dict[str, list[int]] = field(default_factory=dict)  # online, not in history

    def report(self) -> dict[str, int]:
        """Numbers of items, queries, missing, outdated, lost."""
        kinds = {"missing": self.missing, "outdated": self.outdated, "lost": self.lost}
        return self.compared | {kind: sum(map(len, ids.values())) for kind, ids in kinds.items()}


def look(online: Online, home: Path, marks: Mapping[str, Watermark], seen: Seen, sample: int | None) -> Found:
    """Compare all entities of history (or so many by chance) and those that records name."""
    found = Found()
    for table in _NAMES:
        ids = _ids(home, table)
        if sample is not None and sample < len(ids):
            ids = np.array(random.sample(ids.tolist(), sample), np.int64)
        ids = np.unique(np.concatenate([ids, seen.ids[table]]))
        found.compared[table] = len(ids)
        faults: dict[str, list[int]] = {"missing": [], "outdated": [], "lost": []}
        for start in range(0, len(ids), IDS):
            for kind, (row_ids, _) in _faults(online, home, marks, table, ids[start : start + IDS].tolist()).items():
                faults[kind] += row_ids
        if faults["lost"]:
            with alone(home):
                pass  # rows of batches in hand are in history then
            faults["lost"] = _faults(online, home, marks, table, faults["lost"])["lost"][0]
        found.missing[table], found.outdated[table], found.lost[table] = faults.values()
    return found


def repair(online: Online, home: Path, marks: Mapping[str, Watermark], found: Found, name: str) -> None:
    """Write online what is missing or outdated there, and into history what was lost. The caller holds `writing`."""
    for table in _NAMES:
        ids = sorted({*found.missing[table], *found.outdated[table], *found.lost[table]})
        for start in range(0, len(ids), IDS):  # looked at again: an erasure may have passed
            faults = _faults(online, home, marks, table, ids[start : start + IDS])
            newest = _table(table, [*faults["missing"][1], *faults["outdated"][1]])
            (online.write_items if table == ITEMS else online.write_queries)(newest)
            if lost := faults["lost"][1]:
                history.write(home, table, _table(table, lost), f"{name}-{start}")


def _table(table: str, rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=history.SCHEMAS[table])


def _ids(home: Path, table: str) -> NDArray[np.int64]:
    key = _NAMES[table][0]

    def take(dataset: ds.Dataset) -> NDArray[np.int64]:
        found = [np.unique(batch[key].to_numpy()) for batch in dataset.to_batches(columns=[key])]
        return np.unique(np.concatenate([np.empty(0, np.int64), *found]))

    return snapshot.scan(home, table, history.SCHEMAS[table], take)


def _faults(
    online: Online, home: Path, marks: Mapping[str, Watermark], table: str, ids: list[int]
) -> dict[str, tuple[list[int], list[dict[str, Any]]]]:
    """missing, outdated, lost: ids of each, and the rows that put them right."""
    key, view = _NAMES[table]
    faults: dict[str, tuple[list[int], list[dict[str, Any]]]] = {kind: ([], []) for kind in ("missing", "outdated", "lost")}
    served = online.dated(view, [unsigned(i) for i in ids])  # before history: what is online by now is there then
    versions: dict[int, list[tuple[bool, dict[str, Any]]]] = {}
    rows = history.read_entities(home, table, ids)
    for applied, row in zip(settled(rows, marks), rows.to_pylist(), strict=True):
        versions.setdefault(row[key], []).append((bool(applied), row))
    for entity, row in zip(ids, served, strict=True):
        known = versions.get(entity, [])
        newest = max((row for applied, row in known if applied), key=lambda row: _rank(table, row), default=None)
        if row is None:
            kind, right = "missing", newest
        else:
            time, content = row
            mine = {key: entity, "event_timestamp": time, **content}
            if newest is not None and _rank(table, mine) < _rank(table, newest):
                kind, right = "outdated", newest
            else:
                there = {_rank(table, row) for _, row in known}
                kind, right = "lost", None if _rank(table, mine) in there else mine | _origin()
        if right is not None:
            faults[kind][0].append(entity)
            faults[kind][1].append(right)
    return faults


def _rank(table: str, row: Mapping[str, Any]) -> tuple[Any, ...]:
    """The order of an entity's versions, as stores and history have it; a query has one, whenever it was issued."""
    if table == QUERIES:
        return (row["text"],)
    return (row["event_timestamp"], *((row[x] is not None, _bytes(row[x])) for x in CONTENT))


def _bytes(value: str | bytes | None) -> bytes:
    return value.encode() if isinstance(value, str) else value or b""


def _origin() -> dict[str, Any]:
    return {"topic": REPAIR, "partition": 0, "offset": 0, "arrived": datetime.now(UTC)}


def settled(rows: pa.Table, marks: Mapping[str, Watermark]) -> NDArray[np.bool_]:
    """Which rows [n] (with their origin) must be online, going by the watermarks.

    A partition without one, of a topic that has some, has applied nothing yet. A topic without any is no stream.
    """
    applied = np.ones(len(rows), bool)
    if not len(rows):
        return applied
    topics = {name.rpartition("/")[0] for name in marks}
    offsets, partitions = rows["offset"].to_numpy(), rows["partition"].to_numpy()
    encoded = rows["topic"].combine_chunks().dictionary_encode()
    of_topic = encoded.indices.to_numpy()
    for i, topic in enumerate(encoded.dictionary.to_pylist()):
        if topic in topics:
            for partition in np.unique(partitions[of_topic == i]):
                mark = marks.get(f"{topic}/{partition}")
                mine = (of_topic == i) & (partitions == partition)
                applied[mine] = offsets[mine] < (mark.offset if mark else 0)
    return applied
