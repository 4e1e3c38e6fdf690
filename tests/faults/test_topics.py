"""Poison at the head of a partition, topics made anew, partitions added."""

import pytest
from kafka.admin import NewPartitions

from benchmarks.harness.load import event, message
from benchmarks.harness.stand import Stand, finish
from benchmarks.harness.waiting import until
from streaming import clients
from streaming.deadletters import read_all

from .conftest import assert_each_once, remake

TOPIC = "seminar.search"


def test_poison_at_the_head_of_every_partition_is_set_aside_and_the_rest_flows(stand: Stand) -> None:
    _, key, body, headers = message(event(0, 1_500_000_000_000))
    pills: list[tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]] = [
        (key, body, []),  # no headers
        (key, b'{"user_id":"u","query":"\xff\xfe"}', [*headers]),  # not UTF-8
        (b"\xff", b"\x00" * 900_000, [*headers]),  # as large as a broker takes by default
        (key, None, [*headers]),  # a tombstone
        (None, b"[" * 100_000, [*headers]),  # nested too deep
        (key, body, [("ce_type", b""), ("ce_type", b"\xff"), ("\ud7ff", b"")]),  # repeated, empty and odd headers
    ]
    producer = clients.producer(stand.bootstrap)
    sent = [
        producer.send(TOPIC, key=pill[0], value=pill[1], headers=pill[2], partition=partition)
        for pill in pills
        for partition in range(4)
    ]
    producer.flush(60)
    origins = {f"{x.topic}/{x.partition}/{x.offset}" for x in (future.get(10) for future in sent)}
    producer.close()
    stand.send(400)
    pid = stand.member()
    stand.settle()
    stand.stop(pid)
    assert_each_once(stand.judge())
    assert origins <= {letter["origin"] for letter in read_all(stand.bootstrap)}


@pytest.mark.parametrize("alive", [True, False], ids=["while a consumer lives", "while it is stopped"])
def test_a_topic_deleted_and_made_again_is_read_from_its_beginning(stand: Stand, alive: bool) -> None:
    pid = stand.member()
    stand.send(600)
    stand.settle()
    if not alive:
        stand.stop(pid)
    remake(stand.bootstrap, [TOPIC, "seminar.browse"])
    # Shorter than the old one, then longer: neither an offset out of range nor one in range may mislead.
    stand.send(300)
    stand.send(900)
    if not alive:
        pid = stand.member()
    wait_until_held(stand)
    stand.stop(pid)
    assert_each_once(stand.judge())


def wait_until_held(stand: Stand) -> None:
    """The group's lag is no measure over a topic that was made anew: wait for what the files say."""
    until(lambda: not stand.judge()["lost"], 60, f"not all arrived: {stand.judge()}")


def test_partitions_added_under_load_are_read_from_their_beginning(stand: Stand) -> None:
    pid = stand.member()
    load = stand.load(6000, rate=1000)
    until(lambda: len(stand.steps(pid)) > 12, 60, "nothing is consumed")
    admin = clients.admin(stand.bootstrap)
    admin.create_partitions({TOPIC: NewPartitions(7), "seminar.browse": NewPartitions(6)})
    admin.close()
    finish(load)
    stand.send(1000)  # whatever the first one had left to send: this producer knows all partitions
    assert written(stand.bootstrap, 5) > 0, "the load must have met a partition that was added"
    stand.settle()
    stand.stop(pid)
    assert_each_once(stand.judge())


def written(bootstrap: str, partition: int) -> int:
    """The end of a partition of the topic."""
    from kafka import TopicPartition

    reader = clients.consumer(bootstrap)
    try:
        return int(reader.end_offsets([TopicPartition(TOPIC, partition)])[TopicPartition(TOPIC, partition)])
    finally:
        reader.close()
