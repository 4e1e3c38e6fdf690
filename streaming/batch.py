"""The tables and deltas of a batch's events: what `apply` writes."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa

from features import history
from features.record import KIND_BROWSE, KIND_SEARCH, RECORD, Records, entity_id, event_digest, query_id, query_text, signed
from streaming.events import BROWSE, IMPRESSION, ITEM, SEARCH, Event, Message

NO_RECORDS = np.empty(0, RECORD)


class Batch:
    """The tables and deltas of a batch's events."""

    def __init__(self, events: Sequence[tuple[Event, Message]]) -> None:
        self._by_type: dict[str, list[tuple[Event, Message]]] = {}
        for event, message in events:
            self._by_type.setdefault(event.type, []).append((event, message))
        self.counts = {kind: len(found) for kind, found in self._by_type.items()}
        self._arrived = datetime.now(UTC)
        self.new_queries: set[int] = set()

    def _of(self, *kinds: str) -> list[tuple[Event, Message]]:
        return [pair for kind in kinds for pair in self._by_type.get(kind, [])]

    def _table(self, table: str, pairs: Sequence[tuple[Event, Message]], columns: dict[str, Any]) -> pa.Table:
        columns |= {
            "event_timestamp": pa.array([event.time_ms * 1000 for event, _ in pairs], pa.timestamp("us", "UTC")),
            "topic": [message.topic for _, message in pairs],
            "partition": [message.partition for _, message in pairs],
            "offset": [message.offset for _, message in pairs],
            "arrived": pa.repeat(pa.scalar(self._arrived, pa.timestamp("us", "UTC")), len(pairs)),
        }
        return pa.table(columns, schema=history.SCHEMAS[table])

    def items(self) -> pa.Table:
        """Item contents, every version, oldest first: history answers what an item was at any time."""
        pairs = sorted(self._of(ITEM), key=lambda x: (x[0].time_ms, x[1].topic, x[1].partition, x[1].offset))
        data = [event.data for event, _ in pairs]
        return self._table(
            history.ITEMS,
            pairs,
            {
                "item": [signed(entity_id(event.key)) for event, _ in pairs],
                "item_id": [event.key for event, _ in pairs],
                "title": [d["title"] for d in data],
                "category": [d.get("category") for d in data],
                "brand": [d.get("brand") for d in data],
                "attributes": [json.dumps(d.get("attributes", {}), ensure_ascii=False) for d in data],
                "text_vector": [_vector(d.get("text_vector")) for d in data],
                "image_vector": [_vector(d.get("image_vector")) for d in data],
            },
        )

    def queries(self, known: set[int]) -> pa.Table:
        """Texts of queries that are not known yet."""
        pairs, ids, texts = [], [], []
        for event, message in self._of(SEARCH, BROWSE, IMPRESSION):
            typed = event.data.get("query")
            if typed and (query := query_id(typed)) not in known and query not in self.new_queries:
                self.new_queries.add(query)
                pairs.append((event, message))
                ids.append(signed(query))
                texts.append(query_text(typed))
        return self._table(history.QUERIES, pairs, {"query": ids, "text": texts})

    def records(self) -> tuple[pa.Table, dict[str, Records]]:
        """Rows of the events table, and each user's delta."""
        pairs = self._of(SEARCH, BROWSE)
        data = [event.data for event, _ in pairs]
        searches = self.counts.get(SEARCH, 0)
        records = np.zeros(len(pairs), RECORD)
        records["time"] = [event.time_ms for event, _ in pairs]
        records["item"][searches:] = [entity_id(d["item_id"]) for d in data[searches:]]
        records["query"] = [query_id(d["query"]) if "query" in d else 0 for d in data]
        records["digest"] = [event_digest(event.source, event.id) for event, _ in pairs]
        records["dwell"] = np.minimum(np.array([d.get("dwell_s", 0) for d in data], float), 65535)  # rounds down
        records["kind"][:searches], records["kind"][searches:] = KIND_SEARCH, KIND_BROWSE
        packed = pa.Array.from_buffers(pa.binary(32), len(records), [None, pa.py_buffer(records.tobytes())])
        users = [event.key for event, _ in pairs]
        table = self._table(history.EVENTS, pairs, {"user_id": users, "sequence": packed})
        return table, _by_user(users, records)

    def clicks(self) -> pa.Table:
        """Browses that name the impression they came from."""
        pairs = [pair for pair in self._of(BROWSE) if "impression_id" in pair[0].data]
        return self._table(
            history.CLICKS,
            pairs,
            {
                "user_id": [event.key for event, _ in pairs],
                "impression_id": [event.data["impression_id"] for event, _ in pairs],
                "item": [signed(entity_id(event.data["item_id"])) for event, _ in pairs],
            },
        )

    def impressions(self) -> pa.Table:
        """Rows of the impressions table."""
        pairs = self._of(IMPRESSION)
        data = [event.data for event, _ in pairs]
        return self._table(
            history.IMPRESSIONS,
            pairs,
            {
                "user_id": [event.key for event, _ in pairs],
                "impression_id": [d["impression_id"] for d in data],
                "query": [signed(query_id(d["query"])) if "query" in d else 0 for d in data],
                "items": [[signed(entity_id(x["item_id"])) for x in d["items"]] for d in data],
                "positions": [[x["position"] for x in d["items"]] for d in data],
                "place": [d.get("place") for d in data],
            },
        )


def _by_user(users: Sequence[str], records: Records) -> dict[str, Records]:
    """Each user's share of records [n], in the order of the rows."""
    numbers: dict[str, int] = {}
    owner = np.array([numbers.setdefault(user, len(numbers)) for user in users], np.int64)
    order = np.argsort(owner, kind="stable")
    parts = np.split(records[order], np.cumsum(np.bincount(owner, minlength=len(numbers)))[:-1])
    return dict(zip(numbers, parts, strict=True)) if numbers else {}


def _vector(values: list[float] | None) -> bytes | None:
    return None if values is None else np.asarray(values, np.float32).tobytes()
