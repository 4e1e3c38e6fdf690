"""Dead letters: messages that are no valid events, kept with their origin and the reason until they are redriven.

In Kafka: topic `seminar.deadletter`, compacted, keyed by origin and a digest of the message (a batch that is repeated adds
nothing; in a topic that was made again the same offset is another message), the value and the key as they came, headers
`dl_*` for origin, field, value and reason, and the original headers. In a bulk import without a broker: one JSON line
each in `<home>/deadletters/import.jsonl`, synced. In both, a later entry replaces an earlier one of its key, and one
without an origin removes it.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from kafka import TopicPartition

from features.json_lines import append
from features.json_lines import read as read_lines
from features.publish import sync
from streaming import clients
from streaming.events import Invalid, Message
from streaming.positions import Position
from streaming.reading import ranges, read
from streaming.topics import DEADLETTER

BODY = 800_000
"""Bytes kept of a body: with its headers a letter must fit where the message fitted, or it would block its partition."""
_HEADER, _HEADERS = 1_000, 50
NEAR = timedelta(days=2)
"""A message that was refused this close to the time it claims belongs to the date that it claims."""


@dataclass(frozen=True)
class Letter:
    """A message that was refused, and why. `key`: under which it is kept."""

    key: str
    message: Message
    field: str
    value: str
    reason: str
    truncated_from: int = 0  # bytes of the body that came, where it was too large to be kept whole
    refused_ms: int = 0  # when the broker took the letter; 0: unknown

    @property
    def origin(self) -> str:
        """`topic/partition/offset`."""
        return origin(self.message)

    def as_dict(self) -> dict[str, Any]:
        """What people read. `letter`: under which it is kept; `key`: the message's."""
        facts = {"letter": self.key, "origin": self.origin, "field": self.field, "value": self.value, "reason": self.reason}
        texts = {"key": self.message.key or b"", "body": self.message.value or b""}
        return {
            **facts,
            **{name: raw.decode(errors="replace") for name, raw in texts.items()},
            "truncated_from": self.truncated_from,
        }


def origin(message: Message) -> str:
    """`topic/partition/offset`."""
    return f"{message.topic}/{message.partition}/{message.offset}"


def key_of(message: Message) -> str:
    """Under which key a message's letter is kept."""
    body = (message.value or b"")[:BODY] + (message.headers.get("ce_id") or b"")[:_HEADER]
    return f"{origin(message)}#{hashlib.blake2b(body, digest_size=4).hexdigest()}"


class KafkaSink:
    """Sends dead letters and waits until the broker has acknowledged them."""

    def __init__(self, bootstrap: str) -> None:
        self._producer = clients.producer(bootstrap)

    def send(self, rejected: Sequence[tuple[Message, Invalid]]) -> None:
        """Send; raises what the broker answers when one is not acknowledged."""
        self._send((key_of(m), (m.value or b"")[:BODY], _headers(m, invalid)) for m, invalid in rejected)

    def remove(self, keys: Iterable[str]) -> None:
        """Tombstones: the broker's compaction removes these letters, and readers skip them from now on."""
        self._send((key, None, []) for key in keys)

    def _send(self, letters: Iterable[tuple[str, bytes | None, list[tuple[str, bytes]]]]) -> None:
        sent = [
            self._producer.send(DEADLETTER, key=key.encode(), value=value, headers=headers)
            for key, value, headers in letters
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
        append(self.path, (_line(key_of(m), m, _facts(m, invalid)) for m, invalid in rejected))

    def remove(self, keys: Iterable[str]) -> None:
        """Lines that take letters back."""
        append(self.path, ({"key": key} for key in keys))

    def rewrite(self, letters: Iterable[Letter]) -> None:
        """Keep these letters and nothing else; the caller sees to it that nobody appends meanwhile."""
        aside = self.path.with_suffix(".tmp")
        with aside.open("w") as file:
            for x in letters:
                why = {"dl_origin": x.origin, "dl_field": x.field, "dl_value": x.value, "dl_reason": x.reason}
                file.write(json.dumps(_line(x.key, x.message, why)) + "\n")
        sync(aside)
        os.replace(aside, self.path)
        sync(self.path.parent)


def _line(key: str, message: Message, facts: dict[str, str]) -> dict[str, Any]:
    return {
        "key": key,
        **facts,
        "message_key": None if message.key is None else _text(message.key),
        "headers": {name: _text(value) for name, value in message.headers.items()},
        "body": _text(message.value or b""),
    }


def _text(raw: bytes) -> str:
    return raw.decode(errors="surrogateescape")  # bytes that are not UTF-8 survive JSON and come back by `_raw`


def _raw(text: str) -> bytes:
    return text.encode(errors="surrogateescape")


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
    if message.key is not None:
        facts.append(("dl_key", message.key[:_HEADER]))
    return [*facts, *[(name[:_HEADER], (value or b"")[:_HEADER]) for name, value in message.headers.items()][:_HEADERS]]


def letters_in_kafka(bootstrap: str) -> list[Letter]:
    """Every letter that is in the topic now, in the order of its keys."""
    consumer = clients.consumer(bootstrap, auto_offset_reset="none")
    found: dict[str, Letter] = {}
    try:
        partitions = [TopicPartition(DEADLETTER, p) for p in consumer.partitions_for_topic(DEADLETTER) or ()]
        for message, _ in read(consumer, ranges(consumer, partitions, Position())):
            key = (message.key or b"").decode(errors="replace")
            if "dl_origin" not in message.headers:  # not all brokers tell an empty value from none
                found.pop(key, None)
            else:
                found[key] = _letter(key, message)
    finally:
        consumer.close()
    return [found[key] for key in sorted(found)]


def _letter(key: str, sent: Message) -> Letter:
    facts = {name: raw.decode(errors="replace") for name, raw in sent.headers.items() if name.startswith("dl_")}
    headers = {name: raw for name, raw in sent.headers.items() if not name.startswith("dl_")}
    topic, partition, offset = facts["dl_origin"].rsplit("/", 2)
    message = Message(topic, int(partition), int(offset), sent.headers.get("dl_key"), sent.value, headers)
    truncated = int(facts.get("dl_truncated_from", 0))
    return Letter(key, message, facts["dl_field"], facts["dl_value"], facts["dl_reason"], truncated, sent.timestamp_ms)


def letters_in_file(home: Path) -> list[Letter]:
    """Every letter of bulk imports."""
    found: dict[str, Letter] = {}
    for facts in read_lines(FileSink(home).path):
        if "dl_origin" not in facts:
            found.pop(facts["key"], None)
            continue
        topic, partition, offset = facts["dl_origin"].rsplit("/", 2)
        key = None if facts["message_key"] is None else _raw(facts["message_key"])
        headers = {name: _raw(value) for name, value in facts["headers"].items()}
        message = Message(topic, int(partition), int(offset), key, _raw(facts["body"]), headers)
        why = (facts["dl_field"], facts["dl_value"], facts["dl_reason"])
        found[facts["key"]] = Letter(facts["key"], message, *why)
    return [found[key] for key in sorted(found)]


def read_all(bootstrap: str) -> Iterator[dict[str, Any]]:
    """Every letter in the topic as people read it: origin, field, value, reason, body."""
    return (letter.as_dict() for letter in letters_in_kafka(bootstrap))


def dates(home: Path, bootstrap: str | None) -> dict[str, int]:
    """How many letters there are by date (UTC): that of the event where its time is near, else that of the refusal."""
    found: dict[str, int] = {}
    for letter in [*letters_in_file(home), *(letters_in_kafka(bootstrap) if bootstrap else ())]:
        refused = datetime.fromtimestamp(letter.refused_ms / 1000, UTC) if letter.refused_ms else None
        try:
            moment = datetime.fromisoformat(letter.message.headers.get("ce_time", b"").decode())
            moment = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
        except (ValueError, OverflowError):  # year 1 of a zone ahead of UTC is before all that UTC has
            moment = None
        if refused and (moment is None or abs(moment - refused) > NEAR):
            moment = refused
        if moment:
            name = f"{moment:%Y-%m-%d}"
            found[name] = found.get(name, 0) + 1
    return found
