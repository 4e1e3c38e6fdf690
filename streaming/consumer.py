"""The consumer: polls a bounded batch, applies it, commits; a failed batch is retried whole before anything later.

Offsets are committed explicitly, and only after `Applier.apply` returned. While a store is away the partitions are paused
and polling goes on, so that the group keeps this member; what a rebalance brings meanwhile is put back.
"""

import gc
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kafka import TopicPartition
from kafka.errors import FencedInstanceIdError, KafkaError

from features.errors import SeminarError
from features.online import Online
from features.state import IdentityLost, write_watermarks
from streaming import clients, offsets
from streaming.apply import Applied, Applier
from streaming.deadletters import KafkaSink
from streaming.events import Message
from streaming.member import Batch, Limits, Member
from streaming.metrics import Metrics
from streaming.topics import EVENT_TOPICS

log = logging.getLogger(__name__)


def run(
    bootstrap: str,
    online: Online,
    home: Path,
    stop: threading.Event,
    *,
    group: str = "seminar",
    instance: str = "seminar-1",
    epoch: str = "",
    limits: Limits | None = None,
    metrics: Metrics | None = None,
    step: Callable[[str], None] = lambda name: None,
) -> dict[str, Any]:
    """Consume until `stop` is set; the batch in hand is finished. Totals of what was applied.

    `epoch` identifies the topics where the broker has no topic ids. `step` is told the name of each step after it is done.
    SeminarError: no broker, an offset that is gone, an `instance` that another member uses. IdentityLost: the online store
    was emptied.
    """
    limits, metrics = limits or Limits(), metrics or Metrics()
    member, sink = Member(bootstrap, group, instance, limits, epoch), KafkaSink(bootstrap)
    total, busy, due = Applied(), 0.0, 0.0
    try:
        applier = Applier(online, home, sink, step)
        gc.freeze()  # what was imported lives on: collections need not look at it with every batch
        gc.set_threshold(100_000, 20, 50)  # nor at a batch, many times over, while it is being read
        while not stop.is_set():
            batch = _collect(member, limits, stop)
            if batch:
                begin = time.monotonic()
                done = _apply(member, applier, batch, limits, stop, metrics)
                if done is None:
                    break
                member.applied(batch)
                member.commit()
                step("commit")
                seconds = time.monotonic() - begin
                busy += seconds
                total += done
                metrics.applied(done, seconds)
                log.info("applied %d events, %d rejected, in %.3f s", done.accepted, done.rejected, seconds)
            if time.monotonic() >= due:
                _tick(member, online, home, metrics)
                due = time.monotonic() + limits.tick
    except FencedInstanceIdError as error:
        raise SeminarError(
            "instance", instance, f"is used by another member of {group}", "give each consumer its own"
        ) from error
    finally:
        member.close()
        sink.close()
    return {
        "events": total.counts,
        "rejected": total.rejected,
        "forgotten": total.forgotten,
        "busy_s": round(busy, 3),
        "steps_s": total.seconds,
    }


def _collect(member: Member, limits: Limits, stop: threading.Event) -> Batch:
    batch: Batch = {}
    count, deadline = 0, time.monotonic() + limits.seconds
    while count < limits.events and time.monotonic() < deadline and not stop.is_set():
        found = member.poll(min(0.05, deadline - time.monotonic()), limits.events - count)
        for partition, records in found.items():
            batch.setdefault(partition, []).extend(records)
            count += len(records)
        if not found:
            # Not all brokers hold an empty fetch back as they are asked to; the client would ask again at once.
            stop.wait(limits.idle)
    return batch


def _apply(
    member: Member, applier: Applier, batch: Batch, limits: Limits, stop: threading.Event, metrics: Metrics
) -> Applied | None:
    attempt = 0
    messages = [
        Message(r.topic, r.partition, r.offset, r.key, r.value, dict(r.headers), r.timestamp)
        for records in batch.values()
        for r in records
    ]
    while True:
        try:
            return applier.apply(messages)
        except IdentityLost:
            raise  # going on would fill an empty store with the rest of each history
        except Exception as error:
            # Whatever failed (a store away, a full disk), nothing is committed and the whole batch comes again.
            wait = limits.backoff[min(attempt, len(limits.backoff) - 1)]
            log.error("batch of %d failed, again in %g s: %s: %s", len(messages), wait, type(error).__name__, error)
            metrics.failed()
            attempt += 1
            deadline = time.monotonic() + wait
            while time.monotonic() < deadline:
                if stop.is_set():
                    return None
                member.idle()
            member.resume()


def _tick(member: Member, online: Online, home: Path, metrics: Metrics) -> None:
    """Say how far this member is, online and as metrics; what fails is said again at the next tick."""
    try:
        marks = member.watermarks()
    except FencedInstanceIdError:
        raise
    except KafkaError as error:
        log.warning("no watermark: %s: %s", type(error).__name__, error)
        return
    try:
        write_watermarks(online, marks, member.partitions)
        metrics.history(home)
    except Exception as error:  # a store of any kind: batches wait for it, a watermark need not
        log.warning("watermark not written: %s: %s", type(error).__name__, error)
    metrics.reached(marks)


def lag(bootstrap: str, group: str = "seminar") -> dict[str, int]:
    """Records not yet committed by the group, by `topic/partition`."""
    consumer = clients.consumer(bootstrap, group_id=group)
    try:
        partitions = [TopicPartition(t, p) for t in EVENT_TOPICS for p in consumer.partitions_for_topic(t) or ()]
        first, last = offsets.first(consumer, partitions), offsets.end(consumer, partitions)
        return {f"{p.topic}/{p.partition}": last[p] - max(first[p], consumer.committed(p) or 0) for p in partitions}
    finally:
        consumer.close()
