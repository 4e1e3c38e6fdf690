"""Dead letters: messages that are no valid events, kept with their origin and the reason.

In Kafka: topic `seminar.deadletter`, keyed by origin (so that a batch that is repeated adds nothing after compaction),
the value and the key as they came, headers `dl_*` for origin, field, value and reason, and the original headers.
In a bulk import without a broker: one JSON line each in `<home>/deadletters/`, synced.
"""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from kafka import TopicPartition

from streaming import clients
from streaming.events import Invalid, Message
from streaming.topics import DEADLETTER

BODY = 800_000
"""Bytes kept of a body: with its headers a letter must fit where the message fitted, or it would block its partition."""
_HEADER, _HEADERS = 1_000, 50


class KafkaSink:
    """Sends dead letters and waits until the broker has acknowledged them."""

    def __init__(self, bootstrap: str) -> None:
        self._producer = clients.producer(bootstrap)

    def send(self, rejected: Sequence[tuple[Message, Invalid]]) -> None:
        """Send; raises what the broker answers when one is not acknowledged."""
        sent = [
            self._producer.send(
                DEADLETTER,
                key=origin(message).encode(),
                value=(message.value or b"")[:BODY],
                headers=_headers(message, invalid),
            )
            for message, invalid in rejected
        ]
        self._producer.flush(60)
        for future in sent:
            future.get(60)

    def close(self) -> None:
        """Close the producer."""
        self._producer.close()


class FileSink:
    """Appends dead letters to a file of the home; for imports, where no broker need be."""

    def __init__(self, home: Path) -> None:
        self.path = home / "deadletters" / "import.jsonl"

    def send(self, rejected: Sequence[tuple[Message, Invalid]]) -> None:
        """Append one line each and sync."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            for message, invalid in rejected:
                body = (message.value or b"").decode(errors="replace")
                file.write(json.dumps({**_facts(message, invalid), "value": body}) + "\n")
            file.flush()
            os.fsync(file.fileno())


def origin(message: Message) -> str:
    """`topic/partition/offset`: the key of a dead letter."""
    return f"{message.topic}/{message.partition}/{message.offset}"


def _facts(message: Message, invalid: Invalid) -> dict[str, str]:
    return {
        "dl_origin": origin(message),
        "dl_field": invalid.field[:_HEADER],
        "dl_value": invalid.value,
        "dl_reason": invalid.reason[:_HEADER],
    }


def _headers(message: Message, invalid: Invalid) -> list[tuple[str, bytes]]:
    # What is wrong with a message may be that its text has no encoding.
    facts = [(name, text.encode(errors="backslashreplace")) for name, text in _facts(message, invalid).items()]
    if len(message.value or b"") > BODY:
        facts.append(("dl_truncated_from", str(len(message.value or b"")).encode()))
    given = [(name[:_HEADER], (value or b"")[:_HEADER]) for name, value in message.headers.items()]
    return [*facts, ("dl_key", (message.key or b"")[:_HEADER]), *given[:_HEADERS]]


def read_all(bootstrap: str) -> Iterator[dict[str, Any]]:
    """Every dead letter in the topic now: origin, field, value, reason, body."""
    consumer = clients.consumer(bootstrap, auto_offset_reset="earliest")
    try:
        partitions = [TopicPartition(DEADLETTER, p) for p in consumer.partitions_for_topic(DEADLETTER) or ()]
        if not partitions:
            return
        consumer.assign(partitions)
        ends = {p: end for p, end in consumer.end_offsets(partitions).items() if end}
        consumer.seek_to_beginning(*partitions)
        while any(consumer.position(p) < end for p, end in ends.items()):
            for messages in consumer.poll(timeout_ms=500).values():
                for message in messages:
                    headers = {name: (raw or b"").decode(errors="replace") for name, raw in message.headers}
                    facts = {name[3:]: text for name, text in headers.items() if name.startswith("dl_")}
                    yield {**facts, "body": (message.value or b"").decode(errors="replace")}
    finally:
        consumer.close()
