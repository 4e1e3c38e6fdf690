"""What history and the online store know besides the events that are validated: items, searches, impressions."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import pyarrow as pa

from features import history, snapshot
from features.record import KIND_SEARCH, event_digest, unsigned
from features.sequences import packed
from streaming.events import IMPRESSION, ITEM, SEARCH
from streaming.topics import topic_of

if TYPE_CHECKING:
    from features.online import Online  # Feast is slow to import, and a check of a file needs none

DAY_MS = 86_400_000
BEFORE_MS = 7 * DAY_MS
"""How long before a browse its search or impression is looked for in history."""
_PAIRS = 100_000
"""Searches and impressions looked up in history at most; more are counted as lost."""


def add_known(con: duckdb.DuckDBPyConnection, home: Path, online: "Online | None") -> dict[str, str]:
    """Fill the tables known_*; the checks that can say nothing, with the reason."""
    con.execute("CREATE TABLE known_items (item BIGINT)")
    con.execute("CREATE TABLE known_searches (key VARCHAR, id VARCHAR)")
    con.execute("CREATE TABLE known_impressions (key VARCHAR, id VARCHAR)")
    skip: dict[str, str] = {}
    for kind, known, checks in (
        (ITEM, _items(con, home, online), ["unknown_items"]),
        (SEARCH, _searches(con, home), ["lost_searches", "searched"]),
        (IMPRESSION, _impressions(con, home), ["lost_impressions"]),
    ):
        if not known and not con.execute(f"SELECT 1 FROM events WHERE kind = '{kind}' LIMIT 1").fetchone():
            reason = f"no {kind} was read, and history knows none of then: add them (topics: --topic {topic_of(kind)})"
            skip |= dict.fromkeys(checks, reason)
    return skip


def _items(con: duckdb.DuckDBPyConnection, home: Path, online: "Online | None") -> bool:
    """Whether any item is known."""
    found = history.read(home, history.ITEMS, columns=["item"])
    con.register("found", found)
    con.execute("INSERT INTO known_items SELECT DISTINCT item FROM found")
    con.unregister("found")
    if online is None:
        return len(found) > 0
    missing = con.cursor().execute(
        "SELECT DISTINCT item FROM events WHERE kind = 'browse' AND item NOT IN (SELECT item FROM known_items)"
        " AND item NOT IN (SELECT item FROM events WHERE kind = 'item')"
    )
    while rows := missing.fetchmany(5_000):
        ids = [item for (item,) in rows]
        there = online.items([unsigned(item) for item in ids])
        known = [item for item, row in zip(ids, there, strict=True) if row]
        if known:
            con.executemany("INSERT INTO known_items VALUES (?)", [[item] for item in known])
    return con.execute("SELECT 1 FROM known_items LIMIT 1").fetchone() is not None


def _open(con: duckdb.DuckDBPyConnection, column: str, kind: str) -> tuple[list[Any], list[tuple[int, int]]]:
    """Browses that the events do not resolve: rows, and the days to look at."""
    other = "s.id" if kind == "search" else "s.impression"
    rows = con.execute(
        f"SELECT DISTINCT b.key, b.source, b.{column}, b.time FROM events b"
        f" WHERE b.kind = 'browse' AND b.{column} IS NOT NULL"
        f" AND NOT EXISTS (SELECT 1 FROM events s WHERE s.kind = '{kind}' AND {other} = b.{column} AND s.key = b.key)"
        f" LIMIT {_PAIRS}"
    ).fetchall()
    days = sorted({day for row in rows for day in range((row[3] - BEFORE_MS) // DAY_MS, row[3] // DAY_MS + 1)})
    return rows, [(max(0, day) * DAY_MS, (day + 1) * DAY_MS) for day in days]


def _searches(con: duckdb.DuckDBPyConnection, home: Path) -> bool:
    """Whether history holds events of the days in question."""
    # History keeps of a search its user and a digest of source and id: that of the browse's own source is looked for.
    rows, days = _open(con, "search", "search")
    wanted = {(key, event_digest(source, search)): search for key, source, search, _ in rows}
    found, read = set(), False
    for table in _tables(home, history.EVENTS, days, ["user_id", "sequence"]):
        read = True
        records = packed(table["sequence"].combine_chunks())
        for i in np.flatnonzero((records["kind"] == KIND_SEARCH) & np.isin(records["digest"], [d for _, d in wanted])):
            pair = (table["user_id"][int(i)].as_py(), int(records["digest"][i]))
            if pair in wanted:
                found.add((pair[0], wanted[pair]))
    _insert(con, "known_searches", found)
    return read


def _impressions(con: duckdb.DuckDBPyConnection, home: Path) -> bool:
    """Whether history holds impressions of the days in question."""
    rows, days = _open(con, "impression", "impression")
    wanted = {(key, impression) for key, _, impression, _ in rows}
    found, read = set(), False
    for table in _tables(home, history.IMPRESSIONS, days, ["user_id", "impression_id"]):
        read = True
        found |= wanted & set(zip(table["user_id"].to_pylist(), table["impression_id"].to_pylist(), strict=True))
    _insert(con, "known_impressions", found)
    return read


def _tables(home: Path, name: str, days: list[tuple[int, int]], columns: list[str]) -> Iterator[pa.Table]:
    there = {file.parent.name for file in snapshot.files(home, name)}
    for since, until in days:
        if f"date={datetime.fromtimestamp(since / 1000, UTC):%Y-%m-%d}" in there:
            table = history.read(home, name, since, until, columns)
            if len(table):
                yield table


def _insert(con: duckdb.DuckDBPyConnection, table: str, pairs: set[tuple[str, str]]) -> None:
    if pairs:
        con.executemany(f"INSERT INTO {table} VALUES (?, ?)", [list(pair) for pair in sorted(pairs)])
