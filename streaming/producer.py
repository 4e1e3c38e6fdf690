"""A typed producer: events are validated before they are sent, keyed, and acknowledged by all replicas."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from kafka.errors import KafkaError

from features.errors import SeminarError
from streaming import clients
from streaming.events import BROWSE, FORGET, IMPRESSION, ITEM, SEARCH, Event, Invalid, build
from streaming.topics import topic_of


class Producer:
    """Sends events; a context manager that flushes on leaving. `source` names the producer (CloudEvents).

    An event's id is given by the caller or derived from its content, so sending again after a crash doubles nothing.
    Errors of delivery surface at `flush` or on leaving, as SeminarError.
    """

    def __init__(self, bootstrap: str, source: str) -> None:
        self._source = source
        self._bootstrap = bootstrap
        self._failed: BaseException | None = None
        self._kafka = clients.producer(bootstrap, linger_ms=20, batch_size=1 << 18)
        self.acknowledged = 0

    def __enter__(self) -> "Producer":
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.flush()
        finally:
            self._kafka.close()

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
        self.send_raw(topic_of(event.type), event.key.encode(), event.value(), event.headers())

    def send_raw(self, topic: str, key: bytes | None, value: bytes, headers: list[tuple[str, bytes]]) -> None:
        """Send a message as it is, unchecked: what a foreign client would do."""
        try:
            sent = self._kafka.send(topic, key=key, value=value, headers=headers)
            sent.add_callback(self._delivered)
            sent.add_errback(self._lost)
        except KafkaError as error:
            raise self._away(error) from error

    def flush(self, timeout: float = 60) -> None:
        """Wait until all is acknowledged; SeminarError when something was not."""
        try:
            self._kafka.flush(timeout)
        except KafkaError as error:
            raise self._away(error) from error
        if self._failed is not None:
            raise self._away(self._failed) from self._failed

    def _delivered(self, _: object) -> None:
        self.acknowledged += 1

    def _lost(self, error: BaseException) -> None:
        self._failed = self._failed or error

    def _away(self, error: BaseException) -> SeminarError:
        remedy = "see that the brokers run and `seminar topics apply` was run, then send again (ids make that safe)"
        return SeminarError("KAFKA_BOOTSTRAP_SERVERS", self._bootstrap, f"did not take an event ({error!r})", remedy)
