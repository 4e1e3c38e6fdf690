"""LABELS: which of the items shown were clicked, joined from impressions and browses, kept as a table of history.

A browse of a shown item is a click of the impression that it names, within the window after it; one that names none counts
for every impression of that item whose window it lies in. A label is complete when its window was over at the watermark it
was joined at: only complete ones are trained on. A late click makes another row, and the row written last holds: joining
again writes what differs and nothing else.
"""

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from features import history, reports
from features.fences import fences
from features.record import KIND_BROWSE
from features.sequences import packed

CLICK_MS = 86_400_000
"""A browse of a shown item within this time of the impression is a click."""
TOPIC = "labels"

_JOIN = """
WITH shown AS (SELECT user_id, impression_id, time AS at, unnest(items) AS item FROM impressions),
named AS (SELECT user_id, impression_id, item, time FROM clicks),
unnamed AS (SELECT * FROM browses b ANTI JOIN named n ON b.user_id = n.user_id AND b.item = n.item AND b.time = n.time),
clicked AS (
  SELECT s.user_id, s.impression_id, s.item FROM shown s JOIN named n USING (user_id, impression_id, item)
  WHERE n.time BETWEEN s.at AND s.at + $window AND n.time < $watermark
  UNION
  SELECT s.user_id, s.impression_id, s.item FROM shown s JOIN unnamed b USING (user_id, item)
  WHERE b.time BETWEEN s.at AND s.at + $window AND b.time < $watermark
),
lists AS (SELECT user_id, impression_id, list(item ORDER BY item) AS clicked FROM clicked GROUP BY ALL)
SELECT i.user_id, i.time, i.impression_id, coalesce(l.clicked, []) AS clicked, i.time + $window <= $watermark AS complete
FROM impressions i LEFT JOIN lists l USING (user_id, impression_id) ORDER BY i.user_id, i.impression_id
"""


def join(
    home: Path, since_ms: int, until_ms: int, watermark_ms: int, version: str | None = None, window_ms: int = CLICK_MS
) -> pa.Table:
    """Labels of the impressions shown in [since, until), by what had happened before the watermark.

    Columns: user_id, event_timestamp, impression_id, clicked, complete; sorted by user and impression id.
    """
    impressions = history.read_impressions(home, since_ms, until_ms, version)
    last = until_ms + window_ms + 1
    with duckdb.connect() as con:
        con.register("impressions", _timed(impressions.select(["user_id", "event_timestamp", "impression_id", "items"])))
        con.register("clicks", _timed(history.read_clicks(home, since_ms, last, version)))
        con.register("browses", _browses(home, since_ms, last, version))
        found = con.sql(_JOIN, params={"window": window_ms, "watermark": watermark_ms}).to_arrow_table()
    schema = history.SCHEMAS[history.LABELS]
    times = pc.multiply(found["time"], 1000).cast(schema.field("event_timestamp").type)
    found = found.set_column(found.column_names.index("time"), "event_timestamp", times)
    return found.cast(pa.schema([schema.field(name) for name in found.column_names]))


def _timed(rows: pa.Table) -> pa.Table:
    """The rows with their time in ms: DuckDB needs an extension for times with a zone."""
    return rows.drop_columns(["event_timestamp"]).append_column(
        "time", pa.array(history.milliseconds(rows["event_timestamp"]))
    )


def _browses(home: Path, since_ms: int, until_ms: int, version: str | None) -> pa.Table:
    """Distinct browses: user_id, item, time (ms)."""
    rows = history.read(home, history.EVENTS, since_ms, until_ms, ["user_id", "sequence"], version=version)
    records = packed(rows["sequence"].combine_chunks())
    kept = records["kind"] == KIND_BROWSE
    fence = fences(home)
    if fence and len(rows):
        kept &= records["time"] >= fence.of_all(rows["user_id"].to_pylist())
    columns = {"item": records["item"].view(np.int64)[kept], "time": records["time"].astype(np.int64)[kept]}
    return pa.table({"user_id": rows["user_id"].filter(pa.array(kept)), **columns})


def publish(home: Path, since_ms: int, until_ms: int, watermark_ms: int) -> dict[str, Any]:
    """Write the labels of [since, until) that are new or have changed; what there is and what was written.

    Returns {"impressions", "shown", "clicks", "complete", "written", "corrected"}: items shown and clicked, impressions
    whose window is over, rows written, and those of them that replace another label.
    """
    rows = join(home, since_ms, until_ms, watermark_ms)
    stored = {_key(row): row for row in history.read_labels(home, since_ms, until_ms).to_pylist()}
    changed = [row for row in rows.to_pylist() if not _same(row, stored.get(_key(row)))]
    corrected = sum(_key(row) in stored and stored[_key(row)]["clicked"] != row["clicked"] for row in changed)
    if changed:
        arrived = max([datetime.now(UTC), *(row["arrived"] for row in stored.values())])
        origin = {"topic": TOPIC, "partition": 0, "arrived": arrived}
        table = pa.Table.from_pylist(
            [{**row, **origin, "offset": i} for i, row in enumerate(changed)], schema=history.SCHEMAS[history.LABELS]
        )
        name = hashlib.blake2b(repr(changed).encode(), digest_size=12).hexdigest()
        history.write(home, history.LABELS, table, f"labels-{name}")
    shown = history.read_impressions(home, since_ms, until_ms)["items"]
    return {
        "impressions": len(rows),
        "shown": sum(map(len, shown.to_pylist())),
        "clicks": sum(map(len, rows["clicked"].to_pylist())),
        "complete": sum(rows["complete"].to_pylist()),
        "written": len(changed),
        "corrected": corrected,
    }


def clicked(home: Path, since_ms: int, until_ms: int, version: str | None = None) -> dict[tuple[str, str], list[int]]:
    """The (signed) ids of clicked items by user and impression id, of all impressions shown in [since, until).

    Of a complete label what is stored; the others are joined now, as if everything had happened.
    """
    stored = history.read_labels(home, since_ms, until_ms, version)
    found = {_key(row): row["clicked"] for row in stored.to_pylist() if row["complete"]}
    if len(found) < len(history.read_impressions(home, since_ms, until_ms, version)):
        joined = join(home, since_ms, until_ms, np.iinfo(np.int64).max - CLICK_MS, version)
        found = {_key(row): row["clicked"] for row in joined.to_pylist()} | found
    return found


def close(home: Path, date: str, version: str, run: str, facts: dict[str, Any]) -> dict[str, Any] | None:
    """Note in `reports/labels.json` that a run closed a date at a version of history; what was noted.

    None, and nothing is noted, where another run closed the date and that version has been closed with: nothing came since.
    A run that was killed after this, and is tried again, closes its date again: nobody may have heard of it.
    """
    closed: dict[str, list[str]] = (reports.load(home, "labels") or {}).get("closed", {})
    if date in closed and closed[date][1] != run and version in {known for known, _ in closed.values()}:
        return None
    told = {"date": date, "history": version, **facts, "closed": closed | {date: [version, run]}}
    return reports.save(home, "labels", told)


def _key(row: dict[str, Any]) -> tuple[str, str]:
    return row["user_id"], row["impression_id"]


def _same(row: dict[str, Any], stored: dict[str, Any] | None) -> bool:
    names = ("event_timestamp", "clicked", "complete")
    return stored is not None and all(row[name] == stored[name] for name in names)
