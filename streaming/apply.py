"""The heart: how a batch of messages becomes features and history.

Consumer, bulk import, replay and redrive are four sources of this one function, so that they cannot disagree.
"""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from features import history
from features.online import Online
from features.record import (
    KIND_BROWSE,
    KIND_SEARCH,
    RECORD,
    Records,
    entity_id,
    event_digest,
    query_text,
    signed,
)
from streaming.events import BROWSE, IMPRESSION, ITEM, SEARCH, Event, Invalid, Message, parse

SEEN_QUERIES = 1_000_000
"""Queries remembered as written, so that one that repeats is not written again; forgetting them costs a write each."""


class DeadLetters(Protocol):
    """Where messages go that are no valid events."""

    def send(self, rejected: Sequence[tuple[Message, Invalid]]) -> None:
        """Returns when they are safe; raises when they are not."""


@dataclass
class Applied:
    """What a batch (or a sum of batches) came to; seconds by step."""

    counts: dict[str, int] = field(default_factory=dict)
    rejected: int = 0
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def accepted(self) -> int:
        """Valid events of all types."""
        return sum(self.counts.values())

    def __iadd__(self, other: "Applied") -> "Applied":
        for mine, theirs in ((self.counts, other.counts), (self.seconds, other.seconds)):
            for name, value in theirs.items():
                mine[name] = mine.get(name, 0) + value  # type: ignore[assignment]
        self.rejected += other.rejected
        return self


class Applier:
    """Applies batches; keeps nothing but a memory of the queries that it has written."""

    def __init__(
        self,
        online: Online,
        home: Path,
        deadletters: DeadLetters,
        step: Callable[[str], None] = lambda name: None,
    ) -> None:
        """`step` is told the name of each step after it is done: the tests of crashes die there."""
        self._online = online
        self._home = home
        self._deadletters = deadletters
        self._step = step
        self._queries: set[int] = set()

    def apply(self, messages: Sequence[Message]) -> Applied:
        """Apply a batch. The order is the guarantee:

        1. Validate. What is no valid event is set aside.
        2. Dead letters are sent and acknowledged: from here on nothing that came is lost.
        3. Entity rows (item contents, query texts) are written online, so that no sequence names what cannot be resolved.
        4. History files are written, synced and renamed.
        5. Deltas are appended to the users' sequences online.
        6. The caller commits. A crash before that repeats the batch, which changes nothing: 3 overwrites rows with the
           same, 4 writes the same files (their name is a hash of the batch's origins), 5 adds records to a set.
        """
        result, clock = Applied(), time.monotonic()

        def done(name: str) -> None:
            nonlocal clock
            result.seconds[name] = time.monotonic() - clock
            clock = time.monotonic()
            self._step(name)

        events, rejected = self._validate(messages)
        result.rejected = len(rejected)
        done("validate")
        if rejected:
            self._deadletters.send(rejected)
        done("dead_letters")
        batch = _Batch(events)
        items, queries = batch.items(), batch.queries(self._queries)
        self._online.write_items(_newest(items))
        self._online.write_queries(queries)
        done("entities")
        name = _name(messages)
        records, deltas = batch.records()
        for table, rows in (
            (history.ITEMS, items),
            (history.QUERIES, queries),
            (history.EVENTS, records),
            (history.IMPRESSIONS, batch.impressions()),
        ):
            if len(rows):
                history.write(self._home, table, rows, name)
        done("history")
        self._online.append(deltas)
        done("online")
        if len(self._queries) > SEEN_QUERIES:
            self._queries.clear()
        self._queries.update(batch.new_queries)
        result.counts = batch.counts
        return result

    def _validate(self, messages: Sequence[Message]) -> tuple[list[tuple[Event, Message]], list[tuple[Message, Invalid]]]:
        events: list[tuple[Event, Message]] = []
        rejected: list[tuple[Message, Invalid]] = []
        now = int(time.time() * 1000)
        for message in messages:
            try:
                events.append((parse(message, now), message))
            except Invalid as invalid:
                rejected.append((message, invalid))
        return events, rejected


def _name(messages: Sequence[Message]) -> str:
    # Of all messages, not of the valid ones: whether a time lies too far in the future changes with the clock.
    origins = sorted((m.topic, m.partition, m.offset) for m in messages)
    return hashlib.blake2b(repr(origins).encode(), digest_size=12).hexdigest()


class _Batch:
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
            "arrived": [self._arrived] * len(pairs),
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
            if "query" in event.data:
                text = query_text(event.data["query"])
                query = entity_id(text)
                if query not in known and query not in self.new_queries:
                    self.new_queries.add(query)
                    pairs.append((event, message))
                    ids.append(signed(query))
                    texts.append(text)
        return self._table(history.QUERIES, pairs, {"query": ids, "text": texts})

    def records(self) -> tuple[pa.Table, dict[str, Records]]:
        """Rows of the events table, and each user's delta."""
        pairs = self._of(SEARCH, BROWSE)
        records = np.zeros(len(pairs), RECORD)
        for i, (event, _) in enumerate(pairs):
            data, browse = event.data, event.type == BROWSE
            records[i] = (
                event.time_ms,
                entity_id(data["item_id"]) if browse else 0,
                entity_id(query_text(data["query"])) if "query" in data else 0,
                event_digest(event.source, event.id),
                min(int(data.get("dwell_s", 0)), 65535),
                KIND_BROWSE if browse else KIND_SEARCH,
                0,
            )
        packed = pa.Array.from_buffers(pa.binary(32), len(records), [None, pa.py_buffer(records.tobytes())])
        users = [event.key for event, _ in pairs]
        table = self._table(history.EVENTS, pairs, {"user_id": users, "sequence": packed})
        places: dict[str, list[int]] = {}
        for i, user in enumerate(users):
            places.setdefault(user, []).append(i)
        return table, {user: records[rows] for user, rows in places.items()}

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
                "query": [signed(entity_id(query_text(d["query"]))) if "query" in d else 0 for d in data],
                "items": [[signed(entity_id(x["item_id"])) for x in d["items"]] for d in data],
                "positions": [[x["position"] for x in d["items"]] for d in data],
                "place": [d.get("place") for d in data],
            },
        )


def _newest(items: pa.Table) -> pa.Table:
    """The last row of each item, so that none overwrites a newer one of its batch."""
    rows = {item: row for row, item in enumerate(items["item_id"].to_pylist())}
    return items.take(pa.array(list(rows.values()), pa.int64()))


def _vector(values: list[float] | None) -> bytes | None:
    return None if values is None else np.asarray(values, np.float32).tobytes()
