"""The typed producer on a real broker."""

from datetime import UTC, datetime
from typing import Any

import pytest
from kafka import KafkaConsumer, TopicPartition

from features.errors import SeminarError
from streaming import clients
from streaming.events import Message, parse
from streaming.producer import Producer
from streaming.topics import EVENT_TOPICS

NOW = datetime(2017, 5, 1, 12, tzinfo=UTC)


def sent(bootstrap: str) -> list[Message]:
    consumer = KafkaConsumer(bootstrap_servers=bootstrap)
    partitions = [TopicPartition(topic, p) for topic in EVENT_TOPICS for p in range(4)]
    consumer.assign(partitions)
    consumer.seek_to_beginning(*partitions)
    total, found = sum(consumer.end_offsets(partitions).values()), list[Any]()
    while len(found) < total:
        found += [record for records in consumer.poll(timeout_ms=500).values() for record in records]
    consumer.close()
    return [Message(r.topic, r.partition, r.offset, r.key, r.value, dict(r.headers)) for r in found]


def test_what_is_sent_is_valid_and_keyed(bootstrap: str) -> None:
    with Producer(bootstrap, "shop") as producer:
        search = producer.search("u", "red shoes", NOW)
        producer.browse("u", "i", NOW, dwell_s=2, query="red shoes", search_id=search, impression_id="x")
        producer.impression("u", "x", [("i", 0), ("j", 1)], NOW, place="top")
        producer.item("i", "Shoe", NOW, category="shoes", attributes={"size": "9"}, text_vector=[0.5])
    assert producer.acknowledged == 4
    events = {event.type: event for event in map(parse, sent(bootstrap))}
    assert events["browse"].data["search_id"] == events["search"].id == search
    assert [events[kind].key for kind in ("search", "browse", "impression", "item")] == ["u", "u", "u", "i"]
    assert events["item"].data["text_vector"] == [0.5]
    assert {event.time_ms for event in events.values()} == {int(NOW.timestamp() * 1000)}


def test_ids_survive_a_restart(bootstrap: str) -> None:
    ids = []
    for _ in range(2):
        with Producer(bootstrap, "shop") as producer:
            ids.append(producer.search("u", "red shoes", NOW))
    assert ids[0] == ids[1]


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"query": ""}, "query"),
        ({"query": "\ud800"}, "data"),
        ({"query": "a", "time": datetime(2017, 5, 1)}, "time"),
        ({"query": "a", "time": datetime(1960, 5, 1, tzinfo=UTC)}, "time_ms"),
    ],
)
def test_an_invalid_event_is_refused_before_it_is_sent(bootstrap: str, arguments: dict[str, Any], field: str) -> None:
    with Producer(bootstrap, "shop") as producer, pytest.raises(SeminarError) as caught:
        producer.search("u", **arguments)
    assert caught.value.field == field
    assert sent(bootstrap) == []


def test_an_event_that_was_not_delivered_is_an_error_on_leaving(bootstrap: str) -> None:
    with pytest.raises(SeminarError, match="did not take an event"), Producer(bootstrap, "shop") as producer:
        producer.send_raw(EVENT_TOPICS[0], b"u", b"x" * 5_000_000, [])


def test_no_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "PATIENCE_MS", 300)
    with pytest.raises(SeminarError, match="KAFKA_BOOTSTRAP_SERVERS"):
        Producer("127.0.0.1:1", "shop")
