"""MEMBER: one consumer's share of the group: which partitions are its own, and from which offset of which topic it reads.

A partition that is new to the group starts at its beginning: the client's own default would skip what was written before
the partition was seen. A topic that was deleted and made again is not noticed by the client, which reads on from the old
offset: so the topic's id is committed with each offset, compared when a partition is assigned and again before each commit.
Where a broker has no topic ids (Kafka before 2.8), a configured epoch takes their place. Nothing is done in a rebalance
listener but noting down: the client forbids blocking calls in its IO thread.
"""

import contextlib
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kafka import ConsumerRebalanceListener, OffsetAndMetadata, TopicPartition
from kafka.errors import (
    FencedInstanceIdError,
    KafkaError,
    LogTruncationError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    UnknownTopicOrPartitionError,
)

from features.errors import SeminarError
from features.state import Watermark
from streaming import clients, offsets
from streaming.topics import EVENT_TOPICS

log = logging.getLogger(__name__)

Batch = dict[TopicPartition, list[Any]]
_GONE = "deleted"
_JOINING = 1.0
"""s of a poll while the group rebalances: the client begins a join anew that ended between two polls."""


@dataclass(frozen=True)
class Limits:
    """Bounds of a batch and of waiting."""

    events: int = 10_000
    seconds: float = 0.5  # a batch that is not full is applied after this long
    idle: float = 0.1  # s without a poll after one that brought nothing
    tick: float = 2.0  # s between watermarks, and between commits of a member that has nothing to do
    backoff: tuple[float, ...] = (0.1, 0.5, 1, 2, 5)  # s between retries of a failed batch; the last one repeats


@dataclass
class _Changes(ConsumerRebalanceListener):
    """What the group gave and took since the last look; filled by the client's thread."""

    lost: set[TopicPartition] = field(default_factory=set)
    fresh: set[TopicPartition] = field(default_factory=set)
    joining: bool = True

    def on_partitions_revoked(self, revoked: Sequence[TopicPartition]) -> None:
        self.lost |= set(revoked)
        self.fresh -= set(revoked)
        self.joining = True

    def on_partitions_assigned(self, assigned: Sequence[TopicPartition]) -> None:
        self.lost -= set(assigned)
        self.fresh |= set(assigned)
        self.joining = False


class Member:
    """A static member of the group. `epoch`: part of what identifies a topic; another one reads all from the beginning."""

    def __init__(self, bootstrap: str, group: str, instance: str, limits: Limits, epoch: str = "") -> None:
        self._epoch = epoch
        self._limits = limits
        self._changes = _Changes()
        self._topics: dict[str, str] = {}  # the id of each topic as it is read
        self.partitions: dict[str, int] = {}  # how many each topic has that was looked at, as the broker last said
        self._arrived: dict[TopicPartition, int] = {}  # the Kafka timestamp of the last applied record
        self._instance = instance
        self._marked: dict[TopicPartition, tuple[int, float]] = {}  # offset of the last watermark, and when
        self._due: dict[TopicPartition, int] = {}  # next offsets that are applied and not committed
        self._cut: dict[TopicPartition, Any] = {}  # the end (or None) of logs that were cut off before our position
        self._admin = clients.admin(bootstrap)
        self._consumer = clients.consumer(
            bootstrap,
            group_id=group,
            group_instance_id=instance,
            auto_offset_reset="none",
            isolation_level="read_committed",
            max_poll_records=limits.events,
            fetch_max_wait_ms=100,
            metadata_max_age_ms=5_000,  # topics and partitions that are added are seen after this long
        )
        self._consumer.subscribe(list(EVENT_TOPICS), listener=self._changes)

    def close(self) -> None:
        """Leave without committing; a static member keeps its partitions until its session times out."""
        self._consumer.close()
        self._admin.close()

    def poll(self, seconds: float, limit: int) -> Batch:
        """One poll. SeminarError: an offset that the broker no longer keeps."""
        if self._cut and not self._go_back():
            return {}
        if self._changes.joining:
            # The client forgets a join that it has begun when the metadata which caused it change back meanwhile, as with a
            # topic that is deleted and made again: it would stay between two generations for ever.
            self._consumer._coordinator.request_rejoin()
            seconds = max(seconds, _JOINING)
        try:
            found: Batch = self._consumer.poll(timeout_ms=max(0, int(seconds * 1000)), max_records=limit)
        except (NoOffsetForPartitionError, OffsetOutOfRangeError, LogTruncationError) as error:
            try:
                if isinstance(error, OffsetOutOfRangeError):
                    self._out_of_range(error)
                elif isinstance(error, LogTruncationError):
                    self._cut_off(error)
                else:
                    self._rewind(error.args[0])
            except KafkaError as away:  # the next poll says the same again
                log.warning("partition without an offset, to be looked at again: %s: %s", type(away).__name__, away)
            return {}
        if self._changes.fresh:
            self._settle(found)
        return {partition: records for partition, records in found.items() if records}

    def idle(self) -> None:
        """Keep the membership and read nothing."""
        self._consumer.pause(*self._consumer.assignment())
        # A rebalance inside this poll assigns partitions that are not paused: what they bring is put back, not dropped.
        for partition, records in self.poll(0.05, 1).items():
            self._seek(partition, records[0].offset)

    def resume(self) -> None:
        """Read again after `idle`."""
        self._consumer.resume(*self._consumer.paused())

    def applied(self, batch: Mapping[TopicPartition, Sequence[Any]]) -> None:
        """Note that a whole batch is applied and is to be committed.

        Also what a rebalance took away meanwhile must be applied: if it is given back at once, the client goes on after it.
        """
        for partition, records in batch.items():
            self._due[partition] = records[-1].offset + 1
            self._arrived[partition] = records[-1].timestamp

    def commit(self) -> None:
        """Commit what was applied, of partitions that are still ours and topics that are still the same.

        What cannot be committed now stays for the next time. FencedInstanceIdError: another member has this instance.
        """
        lost, self._changes.lost = self._changes.lost, set()
        for partition in lost:
            self._due.pop(partition, None)
        try:
            self._same_topics({p.topic for p in self._due})
            if self._due:
                self._consumer.commit(
                    {p: OffsetAndMetadata(offset, self._topics.get(p.topic, ""), -1) for p, offset in self._due.items()}
                )
            self._due.clear()
        except FencedInstanceIdError:
            raise
        except KafkaError as error:
            # Where another member has a partition by now, it reads the batch again, which changes nothing.
            log.warning("commit failed, to be made up for: %s: %s", type(error).__name__, error)

    def watermarks(self) -> dict[str, Watermark]:
        """How far each of this member's partitions is applied; call it with no batch in hand, after a commit.

        Also commits what could not be committed before, and the positions again: a member that has nothing to do learns by
        that alone that it was fenced.
        """
        self.commit()
        mine = [p for p in self._consumer.assignment() if p not in self._changes.lost | self._changes.fresh]
        if not mine or self._due or self._cut:
            return {}
        self._same_topics({p.topic for p in mine})
        now = int(time.time() * 1000)
        try:
            ends = self._consumer.end_offsets(mine)
        except KeyError:  # a partition is without a leader just now (`streaming.offsets`); nothing waits for a watermark
            return {}
        try:
            found = {p: self._consumer.position(p, timeout_ms=1_000) for p in mine}
        except LogTruncationError as error:  # said once, to whoever asks first
            self._cut_off(error)
            return {}
        reached = {p: offset for p, offset in found.items() if offset is not None}
        self._due |= reached
        self.commit()
        marks = {}
        for p, offset in reached.items():
            lag = max(0, ends[p] - offset)
            before, when = self._marked.get(p, (offset, time.monotonic() - 1))
            rate = max(0, offset - before) / max(time.monotonic() - when, 1e-3)
            self._marked[p] = offset, time.monotonic()
            ms = now if not lag else self._arrived.get(p)
            if ms is not None:
                marks[f"{p.topic}/{p.partition}"] = Watermark(offset, ms, lag, round(rate, 1), self._instance)
        return marks

    def _settle(self, found: Batch) -> None:
        """Compare the topic id that was committed with each newly assigned partition's offset with the topic's own."""
        fresh = set(self._changes.fresh)
        try:
            ids = self._ids({p.topic for p in fresh})
            for partition in fresh & self._consumer.assignment():
                name = partition.topic
                if name not in ids:
                    raise UnknownTopicOrPartitionError(name)
                committed = self._consumer.committed(partition, metadata=True)
                # None: the position may come from an offset that was removed with its topic a moment ago.
                if committed is None or (committed.metadata and committed.metadata != ids[name]):
                    log.info("%s/%d is new to the group or another topic: read from its beginning", *partition)
                    found.pop(partition, None)
                    self._rewind([partition])
                self._topics[name] = ids[name]
        except KafkaError as error:
            log.warning("assignment not settled, to be tried again: %s: %s", type(error).__name__, error)
            for partition, records in found.items():
                if records:
                    self._seek(partition, records[0].offset)
            found.clear()
            return
        self._changes.fresh -= fresh

    def _same_topics(self, names: set[str]) -> None:
        """Discard what was applied of topics that were deleted or made again meanwhile, and read those from 0."""
        ids = self._ids(names)
        for topic in names:
            known, now = self._topics.setdefault(topic, ids.get(topic, "")), ids.get(topic, _GONE)
            if known == now:
                continue
            log.warning("%s was deleted%s", topic, "" if now == _GONE else " and made again: read from its beginning")
            self._due = {p: offset for p, offset in self._due.items() if p.topic != topic}
            if now != _GONE:
                self._rewind(p for p in self._consumer.assignment() if p.topic == topic)
            self._topics[topic] = now  # last: where rewinding fails, it is tried again

    def _ids(self, names: set[str]) -> dict[str, str]:
        """What identifies each topic now; a topic that is not there is left out."""
        if not names:
            return {}
        found = [x for x in self._admin.describe_topics(sorted(names)) if not x["error_code"]]
        self.partitions |= {x["name"]: len(x["partitions"]) for x in found}
        return {x["name"]: "#".join(filter(None, [str(x.get("topic_id") or ""), self._epoch])) for x in found}

    def _rewind(self, partitions: Iterable[TopicPartition]) -> None:
        mine = [p for p in partitions if p in self._consumer.assignment()]
        for partition, offset in offsets.first(self._consumer, mine).items():
            self._seek(partition, offset)

    def _seek(self, partition: TopicPartition, offset: int) -> None:
        with contextlib.suppress(ValueError):  # taken away since: its next owner begins at the committed offset
            self._consumer.seek(partition, offset)

    def _cut_off(self, error: LogTruncationError) -> None:
        """Note where logs were cut off: by a topic made again, or by a broker that lost what it had acknowledged."""
        self._cut |= error.divergent_offsets
        for partition in self._cut:
            self._due.pop(partition, None)

    def _go_back(self) -> bool:
        """Read on from where logs were cut off; False: not now. What the broker lost is applied, what came since is read."""
        try:
            self._settle({})
            before = dict(self._topics)
            self._same_topics({p.topic for p in self._cut})
            for partition, end in self._cut.items():
                if self._topics.get(partition.topic) == before.get(partition.topic):
                    where = end.offset if end else "an unknown offset"
                    log.warning("%s/%d was cut off at %s: read again from there", *partition, where)
                    if end:
                        self._seek(partition, end.offset)
                    else:
                        self._rewind([partition])
        except KafkaError as away:
            log.warning("partitions that were cut off, to be looked at again: %s: %s", type(away).__name__, away)
            return False
        self._cut.clear()
        return True

    def _out_of_range(self, error: OffsetOutOfRangeError) -> None:
        ((partition, offset),) = list(error.args[0].items())[:1]
        self._settle({})
        before = self._topics.get(partition.topic)
        self._same_topics({partition.topic})
        if self._topics.get(partition.topic) != before or self._consumer.position(partition) != offset:
            return
        (first,), (last,) = (f([partition]).values() for f in (self._consumer.beginning_offsets, self._consumer.end_offsets))
        raise SeminarError(
            f"offset of {partition.topic}/{partition.partition}",
            offset,
            f"is not among what the broker keeps ({first} to {last}): what lies between is lost or the topic is another",
            "find out why, then set the group's offset with Kafka's own tools",
        ) from error
