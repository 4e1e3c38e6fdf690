"""Positions, and reading topics once, on a real broker."""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import pytest
from kafka import KafkaConsumer, TopicPartition

from features.errors import SeminarError
from streaming import offsets, reading
from streaming.positions import Position, parse_from, start_offsets
from streaming.producer import Producer
from streaming.topics import EVENT_TOPICS

from .conftest import event

NOW = 1_700_000_000_000


@pytest.mark.parametrize(
    ("text", "time_ms"),
    [
        ("earliest", None),
        ("last=90s", NOW - 90_000),
        ("last=90m", NOW - 5_400_000),
        ("last=1h", NOW - 3_600_000),
        ("last=2d", NOW - 172_800_000),
        ("last=99999d", 0),
        ("ts=2023-11-14T22:13:20Z", NOW),
        ("ts=2023-11-14T23:13:20+01:00", NOW),
        ("ts=2023-11-14T22:13:20", NOW),
    ],
)
def test_positions(text: str, time_ms: int | None) -> None:
    assert parse_from(text, NOW) == Position(time_ms)


@pytest.mark.parametrize(
    "text", ["", "latest", "earliest=1", "last=", "last=1", "last=h", "last=-1h", "last=1w", "ts=", "ts=x", "ts=1960-01-01"]
)
def test_what_is_no_position_is_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(SeminarError, match="last=90m") as caught:
        parse_from(text, NOW)
    assert caught.value.value == text


@pytest.fixture
def consumer(bootstrap: str) -> Iterator[Any]:
    found = KafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="none", enable_auto_commit=False)
    yield found
    found.close()


def partitions(consumer: Any) -> list[TopicPartition]:
    return [p for topic in EVENT_TOPICS for p in reading.partitions_of(consumer, topic)]


def test_everything_is_read_once_and_what_comes_later_is_not(bootstrap: str, consumer: Any) -> None:
    with Producer(bootstrap, "test") as producer:
        for i in range(300):
            producer.send(event(i))
    wanted = reading.ranges(consumer, partitions(consumer), Position())
    with Producer(bootstrap, "test") as producer:
        for i in range(300, 400):
            producer.send(event(i))
    found = list(reading.read(consumer, wanted, limit=7))
    assert sorted(m.headers["ce_id"] for m, _ in found) == sorted(f"e{i}".encode() for i in range(300))
    places: dict[tuple[str, int], list[int]] = {}
    for message, _ in found:
        places.setdefault((message.topic, message.partition), []).append(message.offset)
    assert all(offsets == list(range(len(offsets))) for offsets in places.values())
    assert all(abs(stamp - time.time() * 1000) < 600_000 for _, stamp in found)


def test_from_a_time(bootstrap: str, consumer: Any) -> None:
    with Producer(bootstrap, "test") as producer:
        for i in range(50):
            producer.send(event(i))
    time.sleep(0.01)
    cut = int(time.time() * 1000)
    with Producer(bootstrap, "test") as producer:
        for i in range(50, 80):
            producer.send(event(i))
    found = list(reading.read(consumer, reading.ranges(consumer, partitions(consumer), Position(cut))))
    assert {m.headers["ce_id"] for m, _ in found} == {f"e{i}".encode() for i in range(50, 80)}
    late = start_offsets(consumer, partitions(consumer), Position(cut + 3_600_000))
    assert late == offsets.end(consumer, partitions(consumer))
    assert list(reading.read(consumer, reading.ranges(consumer, partitions(consumer), Position(cut + 3_600_000)))) == []


def test_offsets_are_complete_while_the_client_does_not_know_every_leader(bootstrap: str) -> None:
    with Producer(bootstrap, "test") as producer:
        for i in range(80):
            producer.send(event(i))

    def forgetful() -> tuple[Any, list[TopicPartition]]:
        """A consumer that was told of all topics and whose client has turned to the one it is assigned since."""
        own = KafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="none", enable_auto_commit=False)
        consumer = closing.enter_context(contextlib.closing(own))
        wanted = partitions(consumer)
        consumer.assign(wanted[-1:])
        time.sleep(0.25)
        return consumer, wanted

    with contextlib.ExitStack() as closing:
        ends = offsets.end(*forgetful())
        assert sum(ends.values()) == 80
        assert offsets.first(*forgetful()) == dict.fromkeys(ends, 0)
        assert offsets.since(*forgetful(), 1) == {p: 0 for p, end in ends.items() if end}
        assert start_offsets(*forgetful(), Position(1)) == dict.fromkeys(ends, 0)


def test_a_range_of_one_partition(bootstrap: str, consumer: Any) -> None:
    with Producer(bootstrap, "test") as producer:
        for i in range(60):
            producer.send(event(i, users=1))
    end = offsets.end(consumer, partitions(consumer))
    partition = max(end, key=lambda p: end[p])
    found = [m.offset for m, _ in reading.read(consumer, {partition: (5, 15)}, limit=4)]
    assert found == list(range(5, 15))


def test_an_unknown_topic_is_named(consumer: Any) -> None:
    with pytest.raises(SeminarError, match="no-such-topic"):
        reading.partitions_of(consumer, "no-such-topic")


def test_a_broker_that_goes_away_is_an_error_and_not_a_wait_for_ever(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from streaming import topics
    from streaming.broker import EmbeddedBroker

    monkeypatch.setattr(reading, "PATIENCE_S", 1.0)
    with EmbeddedBroker(tmp_path) as broker:
        topics.apply(broker.bootstrap)
        with Producer(broker.bootstrap, "test") as producer:
            producer.send(event(0))
        consumer = KafkaConsumer(bootstrap_servers=broker.bootstrap, auto_offset_reset="none", enable_auto_commit=False)
        wanted = reading.ranges(consumer, partitions(consumer), Position())
    with pytest.raises(SeminarError, match="brought nothing more"):
        list(reading.read(consumer, wanted))
    consumer.close()
