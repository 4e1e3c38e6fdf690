"""Where an event is: in Kafka, in history, online, among the dead letters; and plainly, what was not found and why.

Kafka is read from its earliest message on (one partition of each topic when the key is named). Of history only the columns
are read that can tell. Memory is bounded: a read's buffers, one batch of rows of history, the dead letters.
"""

from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from kafka import TopicPartition
from kafka.partitioner.default import murmur2

from features.fences import fences
from features.online import Online
from features.record import CAP, RECORD, entity_id, event_digest
from streaming import clients
from streaming.deadletters import Letter, letters_in_file, letters_in_kafka
from streaming.events import BROWSE, END_MS, IMPRESSION, ITEM, SEARCH, Event, Invalid, Message, parse
from streaming.positions import Position
from streaming.reading import ranges, read
from streaming.row_search import Row, rows_of, rows_of_digest
from streaming.topics import EVENT_TOPICS


@dataclass(frozen=True)
class Sighting:
    """A message in Kafka that carries the id: its place, when Kafka got it (ms), and its event or why it is none."""

    topic: str
    partition: int
    offset: int
    stamp: int
    event: Event | None
    problem: str = ""


@dataclass
class Trace:
    """What was found, and in words what was not."""

    kafka: list[Sighting] = field(default_factory=list)
    messages_read: int = 0
    history: list[Row] = field(default_factory=list)
    online: list[str] = field(default_factory=list)
    dead_letters: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def anywhere(self) -> bool:
        """Whether it was found at all."""
        return bool(self.kafka or self.history or self.online or self.dead_letters)

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "anywhere": self.anywhere}


def trace(
    event_id: str,
    home: Path,
    bootstrap: str | None,
    *,
    source: str | None = None,
    user: str | None = None,
    group: str = "seminar",
) -> Trace:
    """Look for an event everywhere. `user`: its key (of an item event, its item). No `bootstrap`: Kafka is left out."""
    found = Trace()
    letters: list[tuple[str, Letter]] = [("file", letter) for letter in letters_in_file(home)]
    if bootstrap:
        _kafka(found, bootstrap, event_id, source, user)
        letters += [("Kafka", letter) for letter in letters_in_kafka(bootstrap)]
    else:
        found.notes.append("Kafka was not read: no broker is named (KAFKA_BOOTSTRAP_SERVERS)")
    for where, letter in letters:
        if _carries(letter.message, event_id, source):
            facts = {name: value for name, value in letter.as_dict().items() if name != "body"}
            found.dead_letters.append({"where": where, **facts})
    if not (home / "registry.db").exists():
        found.notes.append(f"neither history nor an online store is in {home}")
        return found
    events = _distinct(found.kafka)
    _history(found, home, event_id, events, source, user)
    online = Online()
    for event in events:
        _online(found, home, online, event, bootstrap, group)
    if not events:
        _by_digest(found, online, event_id, source, user)
    return found


def _carries(message: Message, event_id: str, source: str | None) -> bool:
    headers = message.headers
    return headers.get("ce_id") == event_id.encode() and (source is None or headers.get("ce_source") == source.encode())


def _kafka(found: Trace, bootstrap: str, event_id: str, source: str | None, user: str | None) -> None:
    consumer, oldest = clients.reader(bootstrap), END_MS
    try:
        wanted = []
        for topic in EVENT_TOPICS:
            numbers = sorted(consumer.partitions_for_topic(topic) or ())
            if user is not None and numbers:
                numbers = [numbers[(murmur2(user.encode()) & 0x7FFFFFFF) % len(numbers)]]
            wanted += [TopicPartition(topic, number) for number in numbers]
        for message, stamp in read(consumer, ranges(consumer, wanted, Position())):
            found.messages_read += 1
            oldest = min(oldest, stamp)
            if _carries(message, event_id, source):
                found.kafka.append(_sighting(message, stamp))
    finally:
        consumer.close()
    if not found.kafka:
        kept = (
            f"the oldest of {_time(oldest)}: what was there before, retention has removed" if found.messages_read else "none"
        )
        where = "one partition of each topic, that of the key" if user is not None else "every partition"
        found.notes.append(f"not in Kafka: {found.messages_read} messages were read ({where}), {kept}")
        if user is not None:
            found.notes.append("a key's partition is another where partitions were added since: without --user all are read")


def _sighting(message: Message, stamp: int) -> Sighting:
    try:
        return Sighting(message.topic, message.partition, message.offset, stamp, parse(message, END_MS))
    except Invalid as invalid:
        return Sighting(message.topic, message.partition, message.offset, stamp, None, str(invalid))


def _distinct(sightings: list[Sighting]) -> list[Event]:
    found: dict[tuple[str, str, str, int], Event] = {}
    for sighting in sightings:
        if (event := sighting.event) is not None:
            found.setdefault((event.type, event.source, event.key, event.time_ms), event)
    return list(found.values())


def _history(found: Trace, home: Path, event_id: str, events: list[Event], source: str | None, user: str | None) -> None:
    for event in events:
        rows = rows_of(home, event)
        found.history += rows
        if not rows and event.type in (SEARCH, BROWSE, ITEM, IMPRESSION):
            found.notes.append(f"not in history: no {event.type} of {event.key} at {_time(event.time_ms)}")
    if events:
        return
    if source is None:
        found.notes.append("history was not searched: it keeps a digest of source and id, so name the source (--source)")
        return
    found.history += rows_of_digest(home, event_digest(source, event_id), user)
    if not found.history:
        found.notes.append(
            "not in history as a search or browse; items and impressions are found there only by their event in Kafka"
        )


def _online(found: Trace, home: Path, online: Online, event: Event, bootstrap: str | None, group: str) -> None:
    when = _time(event.time_ms)
    if event.type == IMPRESSION:
        found.notes.append("not online: an impression never enters a sequence")
    elif event.type == ITEM:
        (row,) = online.items([entity_id(event.key)])
        if row is None:
            found.notes.append(f"not online: the store knows no item {event.key}{_waiting(found, bootstrap, group)}")
        elif row["title"] == event.data["title"]:
            found.online.append(f"item {event.key} is described, with this title")
        else:
            found.notes.append(
                f"not online: item {event.key} has another title there, of a newer event or of none applied yet"
            )
    elif event.type in (SEARCH, BROWSE):
        records, fence = online.sequence(event.key) or (np.empty(0, RECORD), 0)
        fence = max(fence, fences(home).of(event.key))
        if event_digest(event.source, event.id) in records["digest"][records["time"] == event.time_ms]:
            found.online.append(f"in the sequence of {event.key}, with {len(records)} records")
        elif event.time_ms < fence:
            found.notes.append(f"not online: {event.key} was forgotten up to {_time(fence)}, and this is of {when}")
        elif len(records) >= CAP and event.time_ms <= int(records["time"][0]):
            found.notes.append(f"not online: older than the newest {CAP} records of {event.key}")
        else:
            found.notes.append(
                f"not online: the store holds {len(records)} other records of {event.key}{_waiting(found, bootstrap, group)}"
            )


def _by_digest(found: Trace, online: Online, event_id: str, source: str | None, user: str | None) -> None:
    """Without the event itself: the user may be named, or known from history; of the source the digest is made."""
    users = {row.user for row in found.history if row.user} | ({user} if user is not None else set())
    if source is None or not users:
        found.notes.append("the online store was not searched: it needs the event from Kafka, or --source and --user")
        return
    for name in sorted(users):
        records, _ = online.sequence(name) or (np.empty(0, RECORD), 0)
        if event_digest(source, event_id) in records["digest"]:
            found.online.append(f"in the sequence of {name} by its digest, with {len(records)} records")
        else:
            found.notes.append(f"not online: no record of {name} has the digest of this source and id")


def _waiting(found: Trace, bootstrap: str | None, group: str) -> str:
    """Why an event that is in Kafka may not be applied: the group has not come to it."""
    if not bootstrap or not found.kafka:
        return ""
    consumer = clients.consumer(bootstrap, group_id=group)
    try:
        words = []
        for x in found.kafka:
            committed = consumer.committed(TopicPartition(x.topic, x.partition))
            if committed is None or committed <= x.offset:
                words.append(f"{x.topic}/{x.partition} is committed to {committed or 0}, the event is at {x.offset}")
    finally:
        consumer.close()
    return f": group {group} has not come to it ({'; '.join(words)})" if words else f": group {group} has passed it"


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
