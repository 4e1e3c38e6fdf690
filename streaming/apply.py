"""The heart: how a batch of messages becomes features and history.

Consumer, bulk import, replay and redrive are four sources of this one function, so that they cannot disagree.
"""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Protocol, TypeVar

from features import history
from features.barrier import writing
from features.fences import fences, raise_fence, user_hash
from features.online import Online
from features.state import check_identity, ensure_identity
from streaming.batch import NO_RECORDS, Batch
from streaming.events import FORGET, ITEM, SKEW_MS, Event, Invalid, Message, claimed_ms, parse

_ORIGIN = attrgetter("topic", "partition", "offset")
SEEN_QUERIES = 1_000_000
"""Queries remembered as written, so that one that repeats is not written again; forgetting them costs a write each."""


class DeadLetters(Protocol):
    """Where messages go that are no valid events."""

    def send(self, rejected: Sequence[tuple[Message, Invalid]]) -> None:
        """Returns when they are safe; raises when they are not."""


Number = TypeVar("Number", int, float)


@dataclass
class Applied:
    """What a batch (or a sum of batches) came to; seconds by step."""

    counts: dict[str, int] = field(default_factory=dict)
    rejected: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    forgotten: int = 0  # events older than their user's fence: dropped

    @property
    def accepted(self) -> int:
        """Valid events of all types."""
        return sum(self.counts.values())

    def __iadd__(self, other: "Applied") -> "Applied":
        _add(self.counts, other.counts)
        _add(self.seconds, other.seconds)
        self.rejected += other.rejected
        self.forgotten += other.forgotten
        return self


def _add(mine: dict[str, Number], theirs: dict[str, Number]) -> None:
    for name, value in theirs.items():
        mine[name] = mine.get(name, 0) + value


class Applier:
    """Applies batches; keeps nothing but a memory of the queries that it has written."""

    def __init__(
        self,
        online: Online,
        home: Path,
        deadletters: DeadLetters,
        step: Callable[[str], None] = lambda name: None,
    ) -> None:
        """`step` is told the name of each step after it is done: the tests of crashes die there.

        IdentityLost: the online store was emptied or belongs to another history.
        """
        self._online = online
        self._home = home
        self._deadletters = deadletters
        self._step = step
        self._queries: set[int] = set()
        self._fences = fences(home)
        ensure_identity(online, home)

    def apply(self, messages: Sequence[Message]) -> Applied:
        """Apply a batch. The order is the guarantee:

        1. Validate. What is no valid event is set aside; what is older than its user's fence is dropped.
        2. Dead letters are sent and acknowledged: from here on nothing that came is lost.
        3. Entity rows (item contents, query texts) are written online, so that no sequence names what cannot be resolved.
        4. History files are written, synced and renamed.
        5. Deltas are appended to the users' sequences online; the store must still be the one that history belongs to.
        6. The caller commits. A crash before that repeats the batch, which changes nothing: 3 overwrites rows with the
           same, 4 writes the same files (their name is a hash of the batch), 5 adds records to a set.

        SeminarError: an erasure is at work (try again), or the online store is not history's (IdentityLost).
        """
        with writing(self._home):
            return self._apply(messages)

    def _apply(self, messages: Sequence[Message]) -> Applied:
        result, clock = Applied(), time.monotonic()

        def done(name: str) -> None:
            nonlocal clock
            result.seconds[name] = time.monotonic() - clock
            clock = time.monotonic()
            self._step(name)

        if (fence := fences(self._home)) != self._fences:
            self._queries.clear()  # an erasure may have removed texts that were written before
            self._fences = fence
        events, rejected = self._validate(messages)
        asked = self._forget([event for event, _ in events if event.type == FORGET])
        if self._fences:
            kept = [
                (event, m) for event, m in events if event.type in (ITEM, FORGET) or self._keeps(event.key, event.time_ms)
            ]
            letters = [x for x in rejected if self._keeps_refused(x[0])]
            result.forgotten = len(events) - len(kept) + len(rejected) - len(letters)
            events, rejected = kept, letters
        result.rejected = len(rejected)
        done("validate")
        if rejected:
            self._deadletters.send(rejected)
        done("dead_letters")
        batch = Batch(events)
        items, queries = batch.items(), batch.queries(self._queries)
        self._online.write_items(items)
        self._online.write_queries(queries)
        done("entities")
        name = _name(messages)
        records, deltas = batch.records()
        for table, rows in (
            (history.ITEMS, items),
            (history.QUERIES, queries),
            (history.EVENTS, records),
            (history.IMPRESSIONS, batch.impressions()),
            (history.CLICKS, batch.clicks()),
        ):
            if len(rows):
                history.write(self._home, table, rows, name)
        done("history")
        self._online.append(deltas | {user: deltas.get(user, NO_RECORDS) for user in asked}, asked)
        check_identity(self._online, self._home)
        done("online")
        if len(self._queries) > SEEN_QUERIES:
            self._queries.clear()
        self._queries.update(batch.new_queries)
        result.counts = batch.counts
        return result

    def _keeps(self, user: str, time_ms: int) -> bool:
        return time_ms >= self._fences.of(user)

    def _keeps_refused(self, message: Message) -> bool:
        """Whether a refused message is set aside: unless it is a user's, and surely of before the fence."""
        if message.headers.get("ce_type") == ITEM.encode():
            return True
        time_ms = message.timestamp_ms or claimed_ms(message)
        return not time_ms or self._keeps((message.key or b"").decode(errors="replace"), time_ms)

    def _forget(self, asked: Sequence[Event]) -> dict[str, int]:
        """Raise the fences of users who asked for it, by their event's time: a replay must not forget what came later."""
        found: dict[str, int] = {}
        for event in asked:
            found[event.key] = max(event.time_ms + SKEW_MS, found.get(event.key, 0))
        for user, fence in found.items():
            raise_fence(self._home, user_hash(user), fence)
        if found:
            self._fences = fences(self._home)
            self._queries.clear()  # as after a fence that another process raised
        return found

    def _validate(self, messages: Sequence[Message]) -> tuple[list[tuple[Event, Message]], list[tuple[Message, Invalid]]]:
        events: list[tuple[Event, Message]] = []
        rejected: list[tuple[Message, Invalid]] = []
        now = int(time.time() * 1000)
        for message in messages:
            try:
                events.append((parse(message, now), message))
            except Invalid as invalid:
                rejected.append((message, invalid))
        return events, rejected


def _name(messages: Sequence[Message]) -> str:
    # Of all messages, not of the valid ones: whether a time lies too far in the future changes with the clock. With their
    # bodies: in a topic that was deleted and made again the same offsets hold other events.
    parts: list[bytes] = []
    for m in sorted(messages, key=_ORIGIN):
        parts += (b"%b/%d/%d" % (m.topic.encode(), m.partition, m.offset), m.headers.get("ce_id") or b"", m.value or b"")
    return hashlib.blake2b(b"/".join(parts), digest_size=12).hexdigest()
