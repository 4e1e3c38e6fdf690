"""Rows of history that tests write: events of one user, and a small world of all four tables."""

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from features import history
from features.record import RECORD, Records, entity_id, signed

DAY = 86_400_000
T0 = 1_750_000_000_000 // DAY * DAY


def events(user: str, records: Records, topic: str = "t", offset: int = 0, arrived: datetime | None = None) -> pa.Table:
    """Rows of the events table; offsets count up from `offset`."""
    n = len(records)
    return pa.table(
        {
            "user_id": [user] * n,
            "event_timestamp": pa.array(records["time"].astype("int64") * 1000, pa.timestamp("us", "UTC")),
            "sequence": pa.array([r.tobytes() for r in records], pa.binary(32)),
            "topic": [topic] * n,
            "partition": pa.array([0] * n, pa.int32()),
            "offset": range(offset, offset + n),
            "arrived": [arrived or datetime.now(UTC)] * n,
        },
        schema=history.SCHEMAS["events"],
    )


def records(times: list[int], item: int = 7) -> Records:
    """Records at these times (ms after T0), all of one item."""
    made = np.zeros(len(times), RECORD)
    made["time"], made["item"] = np.array(times) + T0, item
    return made


def row(table: str, key: int, ms: int, offset: int, word: str = "") -> dict[str, Any]:
    """One row of a table: of a small number of keys, so that rows of one key meet."""
    moment = datetime.fromtimestamp((T0 + ms) / 1000, UTC)
    origin = {"event_timestamp": moment, "topic": f"t{offset % 2}", "partition": offset % 3, "offset": offset}
    origin["arrived"] = datetime.fromtimestamp(T0 / 1000, UTC) + timedelta(seconds=offset)
    if table == history.EVENTS:
        return {"user_id": f"user-{key % 3}", "sequence": records([ms], key)[0].tobytes(), **origin}
    if table == history.ITEMS:
        name = f"item-{key}"
        return {"item": signed(entity_id(name)), "item_id": name, "title": word, "brand": word or None, **origin}
    if table == history.QUERIES:
        return {"query": signed(entity_id(f"query {key}")), "text": f"query {key}", **origin}
    if table == history.CLICKS:
        return {"user_id": f"user-{key % 3}", "impression_id": f"i{key}", "item": key, **origin}
    if table == history.LABELS:
        clicked = {"impression_id": f"i{key}", "clicked": [key] if word else [], "complete": word != "a"}
        return {"user_id": f"user-{key % 3}", **clicked, **origin}
    shown = {"impression_id": f"i{key}", "query": 0, "items": [key], "positions": [offset], "place": word or None}
    return {"user_id": f"user-{key % 3}", **shown, **origin}


def table_of(table: str, rows: list[dict[str, Any]]) -> pa.Table:
    """Rows as an Arrow table of the table's schema."""
    return pa.Table.from_pylist(rows, schema=history.SCHEMAS[table])
