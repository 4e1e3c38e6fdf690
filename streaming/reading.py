"""Reading topics once, from a position up to where they end now: what replay, validation and trace have in common."""

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from kafka import TopicPartition
from kafka.errors import KafkaError, OffsetOutOfRangeError

from features.errors import SeminarError
from streaming import offsets
from streaming.events import Message
from streaming.positions import Position, start_offsets

PATIENCE_S = 60.0
"""How long reading waits for the next message before it says that the brokers have stopped answering."""

Range = tuple[int, int]
"""Offsets [first, end) of a partition."""


def partitions_of(consumer: Any, topic: str) -> list[TopicPartition]:
    """The partitions of a topic, in order; SeminarError when there is no such topic."""
    found = sorted(consumer.partitions_for_topic(topic) or ())
    if not found:
        raise SeminarError(
            "topic", topic, "is not among the broker's topics", "run `seminar topics apply`, or correct the name"
        )
    return [TopicPartition(topic, number) for number in found]


def ranges(consumer: Any, partitions: Iterable[TopicPartition], position: Position) -> dict[TopicPartition, Range]:
    """What there is to read of each partition from a position up to its end as it is now."""
    wanted = list(partitions)
    starts, ends = start_offsets(consumer, wanted, position), offsets.end(consumer, wanted)
    return {p: (min(starts[p], ends[p]), ends[p]) for p in wanted}


def read(consumer: Any, wanted: Mapping[TopicPartition, Range], limit: int = 2_000) -> Iterator[tuple[Message, int]]:
    """The messages of these ranges with their Kafka timestamp (ms), each partition in its order; then it ends.

    `consumer` is one without a group and with `auto_offset_reset="none"`; its assignment is replaced. Memory is bounded by
    the consumer's own fetch buffers and `limit` messages. Gaps (compaction, transactions) are passed over. SeminarError: an
    offset that retention has removed meanwhile, or a broker that stopped answering.
    """
    at = {p: first for p, (first, end) in wanted.items() if first < end}
    if not at:
        return
    consumer.assign(list(at))
    for partition, first in at.items():
        consumer.seek(partition, first)
    progress = time.monotonic()
    while at:
        found = _poll(consumer, limit)
        for partition in list(at):
            records, end = found.get(partition, ()), wanted[partition][1]
            for r in records:
                if r.offset < end:
                    yield Message(r.topic, r.partition, r.offset, r.key, r.value, dict(r.headers), r.timestamp), r.timestamp
            reached = records[-1].offset + 1 if records else _position(consumer, partition)
            if reached > at[partition]:
                progress = time.monotonic()
            at[partition] = max(at[partition], reached)
            if at[partition] >= end:
                del at[partition]
                consumer.pause(partition)
        if not found:
            if time.monotonic() - progress > PATIENCE_S:
                left = ", ".join(f"{p.topic}/{p.partition} at {offset}" for p, offset in at.items())
                raise SeminarError("KAFKA_BOOTSTRAP_SERVERS", left, "brought nothing more", "see that the brokers run")
            time.sleep(0.02)  # not all brokers hold an empty fetch back


def _poll(consumer: Any, limit: int) -> dict[TopicPartition, list[Any]]:
    try:
        found: dict[TopicPartition, list[Any]] = consumer.poll(timeout_ms=200, max_records=limit)
        return found
    except OffsetOutOfRangeError as error:
        ((partition, offset),) = list(error.args[0].items())[:1]
        raise SeminarError(
            f"offset of {partition.topic}/{partition.partition}",
            offset,
            "is no longer among what the broker keeps",
            "retention removed it meanwhile: begin later",
        ) from error


def _position(consumer: Any, partition: TopicPartition) -> int:
    """Where the consumer stands: past what holds no message for it (markers of transactions, compacted offsets)."""
    try:
        return consumer.position(partition, timeout_ms=1_000) or 0
    except KafkaError:
        return 0
