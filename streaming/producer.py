"""A typed producer: events are validated before they are sent, keyed, and acknowledged by all replicas."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from kafka.errors import KafkaError, MessageSizeTooLargeError

from features.errors import SeminarError
from streaming import clients
from streaming.events import BROWSE, FORGET, IMPRESSION, ITEM, SEARCH, Event, Invalid, build
from streaming.topics import topic_of

_OVERHEAD = 1_000
"""Bytes that the client itself keeps for a message that is under way."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """What became of a message: where the broker put it, or (`partition` and `offset` None) why it did not."""

    event_id: str | None
    topic: str
    partition: int | None
    offset: int | None
    error: str | None


class Producer:
    """Sends events; a context manager that flushes on leaving. `source` names the producer (CloudEvents).

    An event's id is given by the caller or derived from its content (with its time), so sending again after a crash
    doubles nothing, if the content and the time are the same again.

    `on_delivery` is told of every message, in the client's own thread: it must be quick. `buffer_memory` (bytes) bounds
    what is under way; when it is full, sending waits up to `max_block_s` and then raises. `delivery_s` bounds how long one
    message is tried. Errors of delivery surface at `flush` or on leaving, as SeminarError: which brokers, how many events
    were not acknowledged. Safe for threads.
    """

    def __init__(
        self,
        bootstrap: str,
        source: str,
        *,
        on_delivery: Callable[[Delivery], None] | None = None,
        buffer_memory: int = 64 << 20,
        max_block_s: float = 60,
        delivery_s: float = 120,
    ) -> None:
        self._source, self._bootstrap = source, bootstrap
        self._on_delivery, self._buffer, self._max_block_s = on_delivery, buffer_memory, max_block_s
        self._changed = threading.Condition()
        self._bytes = self._pending = self._lost = self._blocked = 0
        self._first: BaseException | None = None
        self._report_failed: Exception | None = None
        self._patience_s = delivery_s + 10
        self.acknowledged = 0
        self._kafka = clients.producer(
            bootstrap,
            linger_ms=20,
            batch_size=1 << 18,
            max_block_ms=int(max_block_s * 1000),
            delivery_timeout_ms=int(delivery_s * 1000),
            request_timeout_ms=min(30_000, int(delivery_s * 1000) - 20),
        )

    def __enter__(self) -> "Producer":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            self.close()
        except SeminarError as mine:
            if error is None:
                raise
            error.add_note(str(mine))  # what ended the caller's own block comes first

    def search(self, user_id: str, query: str, time: datetime | None = None, id: str | None = None) -> str:
        """A user typed a query; the event's id."""
        return self._build(SEARCH, {"user_id": user_id, "query": query}, time, id)

    def browse(
        self,
        user_id: str,
        item_id: str,
        time: datetime | None = None,
        *,
        dwell_s: float | None = None,
        query: str | None = None,
        search_id: str | None = None,
        impression_id: str | None = None,
        id: str | None = None,
    ) -> str:
        """A user looked at, clicked or bought an item; with the search or impression that led to it, if known."""
        data = {"user_id": user_id, "item_id": item_id, "dwell_s": dwell_s, "query": query, "search_id": search_id}
        return self._build(BROWSE, {**data, "impression_id": impression_id}, time, id)

    def impression(
        self,
        user_id: str,
        impression_id: str,
        items: Sequence[tuple[str, int]],
        time: datetime | None = None,
        *,
        query: str | None = None,
        place: str | None = None,
        id: str | None = None,
    ) -> str:
        """Items were shown at positions (0: the first)."""
        shown = [{"item_id": item, "position": position} for item, position in items]
        data = {"user_id": user_id, "impression_id": impression_id, "items": shown, "query": query, "place": place}
        return self._build(IMPRESSION, data, time, id)

    def item(
        self,
        item_id: str,
        title: str,
        time: datetime | None = None,
        *,
        category: str | None = None,
        brand: str | None = None,
        attributes: Mapping[str, str] | None = None,
        text_vector: Sequence[float] | None = None,
        image_vector: Sequence[float] | None = None,
        id: str | None = None,
    ) -> str:
        """An item as it is now."""
        data = {"item_id": item_id, "title": title, "category": category, "brand": brand}
        vectors = {"text_vector": text_vector, "image_vector": image_vector}
        content = {**data, "attributes": dict(attributes) if attributes else None}
        return self._build(ITEM, {**content, **{k: list(v) for k, v in vectors.items() if v is not None}}, time, id)

    def forget(self, user_id: str, time: datetime | None = None, id: str | None = None) -> str:
        """A user asks to be forgotten: what is older than this event and a day is dropped, whenever it comes."""
        return self._build(FORGET, {"user_id": user_id}, time, id)

    def _build(self, kind: str, data: dict[str, Any], time: datetime | None, event_id: str | None) -> str:
        moment = time or datetime.now(UTC)
        if moment.tzinfo is None:
            raise SeminarError("time", moment, "has no time zone", "give an aware datetime")
        known = {name: value for name, value in data.items() if value is not None}
        try:
            event = build(kind, known, round(moment.timestamp() * 1000), self._source, event_id)
        except Invalid as invalid:
            raise SeminarError(invalid.field, invalid.value, invalid.reason, "nothing was sent; correct the event") from None
        self.send(event)
        return event.id

    def send(self, event: Event) -> None:
        """Send a ready event."""
        self.send_raw(topic_of(event.type), event.key.encode(), event.value(), event.headers(), event.id)

    def send_raw(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: list[tuple[str, bytes]],
        event_id: str | None = None,
    ) -> None:
        """Send a message as it is, unchecked: what a foreign client would do."""
        size = _OVERHEAD + len(key or b"") + len(value or b"") + sum(len(name) + len(text) for name, text in headers)
        self._reserve(size)
        try:
            sent = self._kafka.send(topic, key=key, value=value, headers=headers)
        except BaseException as error:
            self._release(size)
            if isinstance(error, MessageSizeTooLargeError):
                name, most = event_id or topic, self._kafka.config["max_request_size"]
                raise SeminarError(
                    "event", name, f"is too large to send ({size} bytes)", f"keep it under {most} bytes"
                ) from None
            if isinstance(error, KafkaError):
                raise self._away(f"took no event ({error})", self._waiting()) from error
            raise
        sent.add_callback(self._delivered, event_id, size)
        sent.add_errback(self._failed, event_id, topic, size)

    def flush(self, timeout: float | None = None) -> None:
        """Wait until all is acknowledged, at most `timeout` s (else somewhat longer than `delivery_s`).

        SeminarError names how many events were not acknowledged since the last flush, or are still under way.
        """
        patience = self._patience_s if timeout is None else timeout
        with self._changed:
            self._changed.wait_for(lambda: not self._pending, patience)
            pending, lost, first = self._pending, self._lost, self._first
            report, self._report_failed = self._report_failed, None
            self._lost, self._first = 0, None
        if lost:
            raise self._away(f"did not take an event ({first!r})", lost + pending) from first
        if pending:
            raise self._away(f"did not answer within {patience:g} s", pending)
        if report is not None:
            raise SeminarError("on_delivery", repr(report), "is what a delivery report raised", "correct it") from report

    def close(self, timeout: float | None = None) -> None:
        """Flush and close, also when the flush fails; SeminarError as from `flush`. What is not acknowledged is given up."""
        try:
            self.flush(timeout)
        except BaseException:
            # The client's own close would first wait, without end, for what a broker that is away will not acknowledge.
            self._kafka._sender.force_close()
            self._kafka._sender.join(10)
            raise
        finally:
            self._kafka.close(10)

    def _reserve(self, size: int) -> None:
        with self._changed:
            self._blocked += 1
            # A message larger than the buffer goes alone.
            fits = self._changed.wait_for(lambda: not self._pending or self._bytes + size <= self._buffer, self._max_block_s)
            self._blocked -= 1
            if not fits:
                problem = f"took nothing for {self._max_block_s:g} s and buffer_memory ({self._buffer} bytes) is full"
                raise self._away(problem, self._pending + self._lost)
            self._bytes += size
            self._pending += 1

    def _release(self, size: int) -> None:
        with self._changed:
            self._bytes -= size
            self._pending -= 1
            # Not for every message: a sender that waits for room is woken when there is some for several.
            if not self._pending or (self._blocked and self._bytes < 0.75 * self._buffer):
                self._changed.notify_all()

    def _waiting(self) -> int:
        with self._changed:
            return self._pending + self._lost

    def _delivered(self, event_id: str | None, size: int, record: Any) -> None:
        self.acknowledged += 1  # callbacks run in one thread
        self._tell(Delivery(event_id, record.topic, record.partition, record.offset, None))
        self._release(size)

    def _failed(self, event_id: str | None, topic: str, size: int, error: BaseException) -> None:
        with self._changed:
            self._first, self._lost = self._first or error, self._lost + 1
        self._tell(Delivery(event_id, topic, None, None, f"{type(error).__name__}: {error}"))
        self._release(size)

    def _tell(self, delivery: Delivery) -> None:
        if self._on_delivery is not None:
            try:
                self._on_delivery(delivery)
            except Exception as error:  # it would end in the client's log alone
                self._report_failed = self._report_failed or error

    def _away(self, problem: str, count: int) -> SeminarError:
        remedy = "see that the brokers run and `seminar topics apply` was run, then send again (ids make that safe)"
        return SeminarError("KAFKA_BOOTSTRAP_SERVERS", self._bootstrap, f"{problem}; {count} not acknowledged", remedy)
