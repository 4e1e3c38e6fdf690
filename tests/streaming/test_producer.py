"""The typed producer on a real broker."""

import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest
from kafka import KafkaConsumer, TopicPartition

from features import history
from features.errors import SeminarError
from features.online import Online
from features.parity import compare
from streaming import clients, offsets, topics
from streaming.broker import EmbeddedBroker
from streaming.events import ITEM, Message, build, parse
from streaming.producer import Delivery, Producer
from streaming.topics import EVENT_TOPICS

from .apache import needs_kafka
from .conftest import Secured, caught_up, consuming, wait

NOW = datetime(2017, 5, 1, 12, tzinfo=UTC)


def sent(bootstrap: str) -> list[Message]:
    consumer = KafkaConsumer(bootstrap_servers=bootstrap)
    partitions = [TopicPartition(topic, p) for topic in EVENT_TOPICS for p in range(4)]
    consumer.assign(partitions)
    consumer.seek_to_beginning(*partitions)
    total, found = sum(offsets.end(consumer, partitions).values()), list[Any]()
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


def test_an_event_that_is_too_large_is_refused_by_its_name(bootstrap: str) -> None:
    large = build(ITEM, {"item_id": "i", "title": "Shoe", "notes": "x" * 2_000_000}, 0, "shop", "big")
    with Producer(bootstrap, "shop") as producer:
        with pytest.raises(SeminarError, match="'big' is too large"):
            producer.send(large)
        producer.search("u", "shoes", NOW)
    assert producer.acknowledged == 1
    with pytest.raises(SeminarError, match="is too large"), Producer(bootstrap, "shop") as producer:
        producer.send_raw(EVENT_TOPICS[0], b"u", b"x" * 5_000_000, [])


def test_every_delivery_is_reported_with_its_place(bootstrap: str) -> None:
    told: list[Delivery] = []
    with Producer(bootstrap, "shop", on_delivery=told.append) as producer:
        ids = [producer.search(f"u{i}", "red shoes", NOW) for i in range(50)]
    places = {(m.topic, m.partition, m.offset): m.headers["ce_id"].decode() for m in sent(bootstrap)}
    assert {delivery.event_id: (delivery.topic, delivery.partition, delivery.offset) for delivery in told} == {
        event_id: place for place, event_id in places.items()
    }
    assert len(places) == len(set(ids)) == 50
    assert all(delivery.error is None for delivery in told)


def test_a_report_that_fails_is_an_error_of_the_producer(bootstrap: str) -> None:
    def broken(delivery: Delivery) -> None:
        raise ValueError("no such column")

    with (
        pytest.raises(SeminarError, match=r"on_delivery.*no such column"),
        Producer(bootstrap, "shop", on_delivery=broken) as producer,
    ):
        producer.search("u", "red shoes", NOW)
    assert producer.acknowledged == 1


@needs_kafka
def test_a_topic_that_is_not_there_is_an_error_and_is_not_made(secured: Secured) -> None:
    """The broker would make it, with one partition, for anyone who asked for it."""
    refused = pytest.raises(SeminarError, match="seminar topics apply")
    with Producer(secured.bootstrap, "shop", max_block_s=1) as producer, refused:
        producer.send_raw("seminar.nowhere", b"u", b"{}", [])
    admin = clients.admin(secured.bootstrap)
    assert "seminar.nowhere" not in admin.list_topics()
    admin.close()


def test_the_callers_own_error_comes_first(bootstrap: str) -> None:
    with pytest.raises(SeminarError, match="has no time zone"), Producer(bootstrap, "shop") as producer:
        send_two(producer)
    assert producer.acknowledged == 1


def send_two(producer: Producer) -> None:
    producer.search("u", "red shoes", NOW)
    producer.search("u", "red shoes", NOW.replace(tzinfo=None))


def test_a_full_buffer_waits_for_room(bootstrap: str) -> None:
    """One that holds about two events; nothing is lost, and never is more under way."""
    with Producer(bootstrap, "shop", buffer_memory=3_000) as producer:
        for i in range(200):
            producer.search("u", f"query {i}", NOW)
            assert i - producer.acknowledged <= 3
    assert producer.acknowledged == 200


def test_a_broker_that_goes_away_while_sending(tmp_path: Path) -> None:
    """Memory stays bounded, and the error names the brokers and how many events were not acknowledged."""
    reports: list[Delivery] = []
    with EmbeddedBroker(tmp_path) as broker:
        topics.apply(broker.bootstrap)
        producer = Producer(
            broker.bootstrap, "shop", on_delivery=reports.append, buffer_memory=4 << 20, max_block_s=1, delivery_s=3
        )
        producer.search("u", "before", NOW)
        producer.flush()
    before = resident()
    with pytest.raises(SeminarError, match="not acknowledged") as caught:
        send_until_refused(producer)
    assert caught.value.value == broker.bootstrap
    assert "buffer_memory" in str(caught.value)
    count = int(str(caught.value).split("; ")[1].split()[0])
    assert 1_000 < count < 4_000
    assert resident() - before < 40 << 20
    with pytest.raises(SeminarError, match=f"{count} not acknowledged") as caught:
        producer.close()
    assert caught.value.value == broker.bootstrap
    assert producer.acknowledged == 1
    assert sum(delivery.error is not None for delivery in reports) == count
    assert not [thread for thread in threading.enumerate() if "producer" in thread.name]


def send_until_refused(producer: Producer) -> None:
    for i in range(1_000_000):
        producer.search("u", "x" * 900, NOW, id=str(i))


def test_a_flush_that_gives_up_closes_all_the_same(tmp_path: Path) -> None:
    with EmbeddedBroker(tmp_path) as broker:
        topics.apply(broker.bootstrap)
        producer = Producer(broker.bootstrap, "shop")
        producer.search("u", "before", NOW)
        producer.flush()
    producer.search("u", "after", NOW)
    with pytest.raises(SeminarError, match=r"within 0\.5 s; 1 not acknowledged"):
        producer.close(0.5)
    assert not [thread for thread in threading.enumerate() if "producer" in thread.name]


def resident() -> int:
    """This process's memory in bytes."""
    return psutil.Process().memory_info().rss


SENDER = """
import sys
from datetime import UTC, datetime, timedelta
from streaming.producer import Producer

with Producer(sys.argv[1], "shop") as producer:
    for i in range(5_000):
        moment = datetime(2017, 5, 1, tzinfo=UTC) + timedelta(seconds=i)
        producer.search(f"u{i % 50}", f"query {i}", moment, id=f"s{i}" if i % 2 else None)
        if producer.acknowledged > 1_000:
            print("going", flush=True)
"""


def test_a_producer_that_is_killed_and_run_again_doubles_nothing(bootstrap: str, home: Path) -> None:
    """Half of the ids are given, half come from the content; the broker has some events twice, history has each once."""
    command = [sys.executable, "-c", SENDER, bootstrap]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "going\n"
    process.kill()
    process.wait()
    first = len(sent(bootstrap))
    assert 1_000 < first < 5_000
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    assert len(sent(bootstrap)) == first + 5_000
    with consuming(bootstrap, home):
        wait(caught_up(bootstrap))
    found = history.read_sequences(home)
    assert len(found.records) == 5_000
    assert len(set(found.records["digest"].tolist())) > 4_990
    assert compare(Online(), home)["edit_distance"] == 0
    assert sum(len(Online().sequence(user)[0]) for user in found.user_ids) == 5_000


def test_no_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "PATIENCE_MS", 300)
    with pytest.raises(SeminarError, match="KAFKA_BOOTSTRAP_SERVERS"):
        Producer("127.0.0.1:1", "shop")
