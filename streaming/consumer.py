"""The consumer: polls a bounded batch, applies it, commits; a failed batch is retried whole before anything later.

A partition that is new to the group starts at its beginning: the client's own default would skip what was written before
the partition was seen. Offsets are committed explicitly, and only after `Applier.apply` returned. While a store is away the
partitions are paused and polling goes on, so that the group keeps this member; what a rebalance brings meanwhile is put
back. Nothing here is done in a rebalance listener but noting down: the client forbids blocking calls in its IO thread.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kafka import ConsumerRebalanceListener, OffsetAndMetadata, TopicPartition
from kafka.errors import (
    FencedInstanceIdError,
    KafkaError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
)

from features.errors import SeminarError
from features.online import Online
from streaming import clients
from streaming.apply import Applied, Applier
from streaming.deadletters import KafkaSink
from streaming.events import Message
from streaming.topics import EVENT_TOPICS

log = logging.getLogger(__name__)

Batch = dict[TopicPartition, list[Any]]


@dataclass(frozen=True)
class Limits:
    """Bounds of a batch and of waiting."""

    events: int = 5_000
    seconds: float = 0.5  # a batch that is not full is applied after this long
    idle: float = 0.1  # s without a poll after one that brought nothing
    backoff: tuple[float, ...] = (0.1, 0.5, 1, 2, 5)  # s between retries of a failed batch; the last one repeats


@dataclass
class _Owned(ConsumerRebalanceListener):  # type: ignore[misc]
    """What the group took away since the last look: a batch with records of it must not be committed."""

    lost: set[TopicPartition] = field(default_factory=set)

    def on_partitions_revoked(self, revoked: Sequence[TopicPartition]) -> None:
        self.lost |= set(revoked)

    def on_partitions_assigned(self, assigned: Sequence[TopicPartition]) -> None:
        self.lost -= set(assigned)


def poll(consumer: Any, seconds: float, limit: int) -> Batch:
    """One poll. Partitions that the group has no offset for are put at their beginning; an offset that is gone halts."""
    try:
        found: Batch = consumer.poll(timeout_ms=max(0, int(seconds * 1000)), max_records=limit)
        return found
    except NoOffsetForPartitionError as error:
        for partition, offset in consumer.beginning_offsets(list(error.args[0])).items():
            if partition in consumer.assignment():
                consumer.seek(partition, offset)
        return {}
    except OffsetOutOfRangeError as error:
        ((partition, offset),) = error.args[0].items()
        (first,), (last,) = (f([partition]).values() for f in (consumer.beginning_offsets, consumer.end_offsets))
        raise SeminarError(
            f"offset of {partition.topic}/{partition.partition}",
            offset,
            f"is not among what the broker keeps ({first} to {last}): what lies between is lost or the topic is another",
            "find out why, then set the group's offset with Kafka's own tools",
        ) from error


def connect(bootstrap: str, group: str, instance: str, limits: Limits) -> Any:
    """A consumer with the settings that the guarantee needs."""
    return clients.consumer(
        bootstrap,
        group_id=group,
        group_instance_id=instance,
        auto_offset_reset="none",
        isolation_level="read_committed",
        max_poll_records=limits.events,
        fetch_max_wait_ms=100,
        metadata_max_age_ms=5_000,  # topics and partitions that are added are seen after this long
    )


def run(
    bootstrap: str,
    online: Online,
    home: Path,
    stop: threading.Event,
    *,
    group: str = "seminar",
    instance: str = "seminar-1",
    limits: Limits | None = None,
    step: Callable[[str], None] = lambda name: None,
) -> dict[str, Any]:
    """Consume until `stop` is set; the batch in hand is finished. Totals of what was applied.

    `step` is told the name of each step after it is done. SeminarError: no broker, an offset that is gone, an `instance`
    that another member uses.
    """
    limits = limits or Limits()
    consumer, sink = connect(bootstrap, group, instance, limits), KafkaSink(bootstrap)
    owned = _Owned()
    consumer.subscribe(list(EVENT_TOPICS), listener=owned)
    applier, total, busy = Applier(online, home, sink, step), Applied(), 0.0
    offsets: dict[TopicPartition, Any] = {}
    try:
        while not stop.is_set():
            batch = _collect(consumer, limits, stop)
            if not batch:
                if offsets:
                    _commit(consumer, owned, offsets)
                continue
            begin = time.monotonic()
            done = _apply(consumer, owned, applier, batch, limits, stop)
            if done is None:
                break
            offsets |= {p: OffsetAndMetadata(records[-1].offset + 1, "", -1) for p, records in batch.items()}
            _commit(consumer, owned, offsets)
            step("commit")
            busy += time.monotonic() - begin
            total += done
            log.info("applied %d events, %d rejected, in %.3f s", done.accepted, done.rejected, time.monotonic() - begin)
    except FencedInstanceIdError as error:
        raise SeminarError(
            "instance", instance, f"is used by another member of {group}", "give each consumer its own"
        ) from error
    finally:
        consumer.close()
        sink.close()
    return {"events": total.counts, "rejected": total.rejected, "busy_s": round(busy, 3), "steps_s": total.seconds}


def _collect(consumer: Any, limits: Limits, stop: threading.Event) -> Batch:
    batch: Batch = {}
    count, deadline = 0, time.monotonic() + limits.seconds
    while count < limits.events and time.monotonic() < deadline and not stop.is_set():
        found = poll(consumer, min(0.05, deadline - time.monotonic()), limits.events - count)
        for partition, records in found.items():
            batch.setdefault(partition, []).extend(records)
            count += len(records)
        if not found:
            # Not all brokers hold an empty fetch back as they are asked to; the client would ask again at once.
            stop.wait(limits.idle)
    return batch


def _apply(
    consumer: Any, owned: _Owned, applier: Applier, batch: Batch, limits: Limits, stop: threading.Event
) -> Applied | None:
    attempt = 0
    while True:
        messages = [
            Message(r.topic, r.partition, r.offset, r.key, r.value, dict(r.headers))
            for partition, records in batch.items()
            if partition not in owned.lost  # its new owner reads these
            for r in records
        ]
        try:
            return applier.apply(messages)
        except Exception as error:
            # Whatever failed (a store away, a full disk), nothing is committed and the whole batch comes again.
            wait = limits.backoff[min(attempt, len(limits.backoff) - 1)]
            log.error("batch of %d failed, again in %g s: %s: %s", len(messages), wait, type(error).__name__, error)
            attempt += 1
            deadline = time.monotonic() + wait
            while time.monotonic() < deadline:
                if stop.is_set():
                    return None
                _idle(consumer)
            consumer.resume(*consumer.paused())


def _idle(consumer: Any) -> None:
    """Keep the membership and read nothing."""
    consumer.pause(*consumer.assignment())
    # A rebalance inside this poll assigns partitions that are not paused: what they bring is put back, not dropped.
    for partition, records in poll(consumer, 0.05, 1).items():
        consumer.seek(partition, records[0].offset)


def _commit(consumer: Any, owned: _Owned, offsets: dict[TopicPartition, Any]) -> None:
    """Commit explicit next offsets for partitions that are still ours; what was committed is removed from `offsets`."""
    lost, owned.lost = owned.lost, set()  # the listener runs in the client's thread
    for partition in lost:
        offsets.pop(partition, None)
    try:
        if offsets:
            consumer.commit(dict(offsets))
        offsets.clear()
    except FencedInstanceIdError:
        raise
    except KafkaError as error:
        # They stay for the next commit. Where another member has the partition, it reads the batch again: no change.
        log.warning("commit failed, to be made up for: %s: %s", type(error).__name__, error)


def lag(bootstrap: str, group: str = "seminar") -> dict[str, int]:
    """Records not yet committed by the group, by `topic/partition`."""
    consumer = clients.consumer(bootstrap, group_id=group)
    try:
        partitions = [TopicPartition(t, p) for t in EVENT_TOPICS for p in consumer.partitions_for_topic(t) or ()]
        first, last = consumer.beginning_offsets(partitions), consumer.end_offsets(partitions)
        return {f"{p.topic}/{p.partition}": last[p] - max(first[p], consumer.committed(p) or 0) for p in partitions}
    finally:
        consumer.close()
