"""A small history that can be learned: users who search and browse in the two categories that they like."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from features import history
from features.record import KIND_BROWSE, KIND_SEARCH, RECORD, entity_id, event_digest, signed

START = int(datetime(2025, 1, 1, tzinfo=UTC).timestamp() * 1000)
DAY = 86_400_000
KINDS = ("milk", "bread", "apples", "coffee", "cheese", "rice")
WINDOWS = {"t1": "2025-01-29", "t2": "2025-02-10", "t3": "2025-02-15", "end": "2025-02-20"}


def write(home: Path, users: int = 24, days: int = 50, items_each: int = 10, seed: int = 0) -> None:
    """Write all four tables: an impression, a search and two browses a user and day."""
    rng = np.random.default_rng(seed)
    catalogue = [f"{kind}-{i}" for kind in KINDS for i in range(items_each)]
    tables: dict[str, list[dict[str, Any]]] = {name: [] for name in history.SCHEMAS}
    for key in catalogue:
        kind, number = key.split("-")
        content = {"item": signed(entity_id(key)), "item_id": key, "title": f"{kind} number {number}", "category": kind}
        tables[history.ITEMS].append(
            {**content, "brand": f"brand {number}", "attributes": json.dumps({"product_type": kind}), **origin(START)}
        )
    for kind in KINDS:
        tables[history.QUERIES].append({"query": signed(entity_id(kind)), "text": kind, **origin(START)})
    for user in range(users):
        liked = rng.choice(len(KINDS), 2, replace=False)
        for day in range(days):
            now = START + day * DAY + int(rng.integers(8, 20)) * 3_600_000
            kind = KINDS[rng.choice(liked)] if rng.random() < 0.9 else KINDS[rng.integers(len(KINDS))]
            chosen = [f"{kind}-{int(items_each * rng.random() ** 2)}" for _ in range(2)]
            shown = [chosen[0], *rng.choice(catalogue, 5, replace=False).tolist()]
            rng.shuffle(shown)
            tables[history.IMPRESSIONS].append(
                {
                    "user_id": f"user-{user}",
                    "impression_id": f"{user}-{day}",
                    "query": 0,
                    "items": [signed(entity_id(key)) for key in shown],
                    "positions": list(range(len(shown))),
                    "place": "front",
                    **origin(now - 60_000),
                }
            )
            for step, item in enumerate(["", *chosen]):
                record = np.zeros(1, RECORD)
                record["time"], record["query"] = now + step * 30_000, entity_id(kind)
                record["item"] = entity_id(item) if item else 0
                record["kind"] = KIND_BROWSE if item else KIND_SEARCH
                record["digest"] = event_digest("test", f"{user}-{day}-{step}")
                sequence = record.tobytes()
                tables[history.EVENTS].append(
                    {"user_id": f"user-{user}", "sequence": sequence, **origin(now + step * 30_000)}
                )
    for name, rows in tables.items():
        history.write(home, name, pa.Table.from_pylist(rows, schema=history.SCHEMAS[name]), "test")


def origin(ms: int) -> dict[str, Any]:
    """The columns that say when and where an event was read."""
    moment = datetime.fromtimestamp(ms / 1000, UTC)
    return {"event_timestamp": moment, "topic": "test", "partition": 0, "offset": 0, "arrived": moment}
