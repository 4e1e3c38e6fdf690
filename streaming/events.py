"""EVENT: the five types, their validation, and CloudEvents 1.0 in Kafka's binary mode.

A message is keyed by user (an item event by item), carries the headers ce_id, ce_source, ce_specversion,
ce_time and ce_type, and a JSON object as its value. Fields that a schema does not name are allowed: producers evolve.
"""

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any

import fastjsonschema
import msgspec

from features.record import VECTOR_MOST
from streaming.decoders import decode, schema

SEARCH, BROWSE, IMPRESSION, ITEM, FORGET = "search", "browse", "impression", "item", "forget"
TYPES = (SEARCH, BROWSE, IMPRESSION, ITEM, FORGET)
SKEW_MS = 86_400_000
"""How far in the future an event's time may lie: a producer's clock, not its imagination."""
END_MS = 253_402_300_800_000
"""The year 10000, which no RFC 3339 time can name."""
_CE_TYPES = {f"seminar.{name}.v1": name for name in TYPES}
_KINDS = {name.encode(): kind for name, kind in _CE_TYPES.items()}


class Invalid(ValueError):
    """What is wrong with a message: the field, its value, and the reason."""

    def __init__(self, field: str, value: object, reason: str) -> None:
        super().__init__(f"{field}: {str(value)[:200]!r} {reason}")
        self.field = field
        self.value = str(value)[:1000]
        self.reason = reason


class Message(msgspec.Struct, frozen=True, gc=False):
    """A message as it came: from Kafka, or from a file that is imported (topic `import:<name>`)."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Mapping[str, bytes]
    timestamp_ms: int = 0
    """When the broker took it; 0: unknown."""
    problem: Invalid | None = None
    """What its reader found wrong already: a row of a file that makes no event."""


class Event(msgspec.Struct, frozen=True, gc=False):
    """A valid event. `key`: its user (item events: its item). `time_ms`: since the epoch, UTC."""

    type: str
    id: str
    source: str
    time_ms: int
    key: str
    data: dict[str, Any]

    def headers(self) -> list[tuple[str, bytes]]:
        """CloudEvents headers of a Kafka message."""
        moment = datetime.fromtimestamp(self.time_ms / 1000, UTC).isoformat(timespec="milliseconds")
        return [
            ("ce_specversion", b"1.0"),
            ("ce_type", f"seminar.{self.type}.v1".encode()),
            ("ce_source", self.source.encode()),
            ("ce_id", self.id.encode()),
            ("ce_time", moment.replace("+00:00", "Z").encode()),
            ("content-type", b"application/json"),
        ]

    def value(self) -> bytes:
        """The message's body."""
        return json.dumps(self.data, separators=(",", ":"), ensure_ascii=False).encode()

    def message(self, topic: str = "", partition: int = 0, offset: int = 0) -> Message:
        """The message that carries this event."""
        return Message(topic, partition, offset, self.key.encode(), self.value(), dict(self.headers()))


@cache
def _validator(kind: str) -> Callable[[Any], Any]:
    compiled: Callable[[Any], Any] = fastjsonschema.compile(schema(kind))
    return compiled


def check(kind: str, data: dict[str, Any]) -> None:
    """Validate an event's data against its schema; Invalid names field, value and reason."""
    try:
        _validator(kind)(data)
    except fastjsonschema.JsonSchemaValueException as error:
        field = error.name.removeprefix("data.") if error.name != "data" else "data"
        raise Invalid(field, error.value, error.message.removeprefix(error.name).strip()) from None
    if kind == BROWSE:
        if math.isnan(data.get("dwell_s", 0)):  # no comparison of the schema holds NaN back
            raise Invalid("dwell_s", "nan", "must be a number of seconds")
    elif kind == ITEM:
        _check_vectors(data)


def _check_vectors(data: dict[str, Any]) -> None:
    for name in ("text_vector", "image_vector"):
        for x in data.get(name, ()):
            if not abs(x) <= VECTOR_MOST:
                raise Invalid(name, x, f"must hold numbers from -{VECTOR_MOST:,.0f} to {VECTOR_MOST:,.0f}")


def key_field(kind: str) -> str:
    """The field that keys a type's messages."""
    return "item_id" if kind == ITEM else "user_id"


def build(kind: str, data: dict[str, Any], time_ms: int, source: str, event_id: str | None = None) -> Event:
    """A valid event. Without an id it gets a hash of its content: the same event sent again is the same event."""
    check(kind, data)
    _check_text(data)
    if not 0 <= time_ms < END_MS:
        raise Invalid("time_ms", time_ms, "is not between the years 1970 and 9999")
    if event_id is None:
        content = json.dumps([kind, source, time_ms, data], sort_keys=True, separators=(",", ":"))
        event_id = hashlib.blake2b(content.encode(), digest_size=12).hexdigest()
    return Event(kind, event_id, source, time_ms, data[key_field(kind)], data)


def parse(message: Message, now_ms: int | None = None) -> Event:
    """The event in a message; Invalid for everything that is wrong with it."""
    if found := message.problem:  # a new one: what is raised refers to its frames, which refer to the message
        raise Invalid(found.field, found.value, found.reason)
    headers, body = message.headers, message.value
    kind = _KINDS.get(headers.get("ce_type") or b"")
    if kind is None:
        raise Invalid("ce_type", _header(headers, "ce_type"), f"is none of {', '.join(_CE_TYPES)}")
    event_id, source = _header(headers, "ce_id"), _header(headers, "ce_source")
    time_ms = _time(_header(headers, "ce_time"))
    if time_ms > (now_ms or int(time.time() * 1000)) + SKEW_MS:
        raise Invalid("ce_time", _header(headers, "ce_time"), "is more than a day in the future")
    if kind == FORGET and body is None:  # a tombstone: the key says it all
        return Event(kind, event_id, source, time_ms, user := _key(message), {"user_id": user})
    data = decode(kind, body or b"")
    if data is None:
        data = _parse_body(kind, body or b"")
    elif kind == ITEM:
        _check_vectors(data)
    field = key_field(kind)
    key: str = data[field]
    if message.key is None or message.key != key.encode():
        raise Invalid("key", message.key, f"is not the {field} {key!r}")
    return Event(kind, event_id, source, time_ms, key, data)


def _parse_body(kind: str, body: bytes) -> dict[str, Any]:
    """The body's object, by the complete validator; Invalid says what is wrong with it."""
    try:
        # Strictly UTF-8: left to itself, json also takes halves of surrogate pairs, which nothing after it can store.
        text = body.decode()
        data: dict[str, Any] = _DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        raise Invalid("data", body, f"is not JSON ({error})") from None
    check(kind, data)
    if "\\u" in text:
        _check_text(data)
    return data


def _key(message: Message) -> str:
    try:
        key = (message.key or b"").decode()
    except UnicodeDecodeError:
        raise Invalid("key", message.key, "is not UTF-8") from None
    check(FORGET, {"user_id": key})
    return key


def _check_text(data: dict[str, Any]) -> None:
    """Refuse half of a surrogate pair, which JSON can spell and UTF-8 cannot."""
    try:
        json.dumps(data, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise Invalid("data", ascii(error.object[error.start : error.end]), "is half of a surrogate pair") from None


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number")


_DECODER = json.JSONDecoder(parse_constant=_no_constant)


def claimed_ms(message: Message) -> int:
    """The time (ms) that a message claims, valid or not; 0 where none can be read."""
    try:
        return _time(_header(message.headers, "ce_time"))
    except Invalid:
        return 0


def _header(headers: Mapping[str, bytes], name: str) -> str:
    raw = headers.get(name)
    if not raw:
        raise Invalid(name, raw, "is missing")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise Invalid(name, raw, "is not UTF-8") from None


def _time(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
        if text[7:8] != "-":  # a week date, which ISO 8601 has and RFC 3339 has not
            raise ValueError
    except ValueError:
        raise Invalid("ce_time", text, "is not an RFC 3339 time") from None
    if moment.tzinfo is None:
        raise Invalid("ce_time", text, "has no time zone")
    time_ms = round(moment.timestamp() * 1000)
    if time_ms < 0:  # a fence of 0, "nothing forgotten", would drop it
        raise Invalid("ce_time", text, "is before 1970")
    return time_ms
