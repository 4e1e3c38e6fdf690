"""First, end and as-of-a-time offsets of partitions, each of them answered.

A consumer of kafka-python leaves partitions out of its answer while it does not know their leader: after an assignment
that does without their topic, or while brokers change. Its own methods then raise KeyError, or say None as if nothing were
as late as the time asked for, which would pass messages over. Asked for alone, such a partition is waited for, so what is
missing is asked for again, one by one.
"""

from collections.abc import Callable, Iterable
from typing import Any

from kafka import TopicPartition

Offsets = dict[TopicPartition, int]


def first(consumer: Any, partitions: Iterable[TopicPartition]) -> Offsets:
    """The first offset that is left of each partition. KafkaTimeoutError: brokers that do not answer."""
    return _all(consumer.beginning_offsets, partitions)


def end(consumer: Any, partitions: Iterable[TopicPartition]) -> Offsets:
    """The offset after the last message of each partition. KafkaTimeoutError: brokers that do not answer."""
    return _all(consumer.end_offsets, partitions)


def since(consumer: Any, partitions: Iterable[TopicPartition], time_ms: int) -> Offsets:
    """The offset of the first message as late as `time_ms` (ms since the epoch, in Kafka); no entry: none is."""
    wanted = list(partitions)
    found = consumer.offsets_for_times(dict.fromkeys(wanted, time_ms)) if wanted else {}
    for partition in wanted:
        if found.get(partition) is None:
            found |= consumer.offsets_for_times({partition: time_ms})
    return {p: found[p].offset for p in wanted if found[p] is not None}


def _all(ask: Callable[[list[TopicPartition]], Offsets], partitions: Iterable[TopicPartition]) -> Offsets:
    wanted = list(partitions)
    try:
        return dict(ask(wanted)) if wanted else {}
    except KeyError:
        return {p: ask([p])[p] for p in wanted}
