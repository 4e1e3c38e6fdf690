"""Replay: an online store rebuilt from history, or everything read again from Kafka; also beside live traffic.

Both are unions: what is there already stays, nothing is doubled, and a consumer may go on meanwhile.
"""

from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

from features import history
from features.barrier import writing
from features.errors import SeminarError
from features.fences import fences
from features.online import Online
from features.state import expected_identity, found_identity, restore_identity
from streaming import clients
from streaming.apply import Applied, Applier, DeadLetters
from streaming.positions import Position
from streaming.reading import partitions_of, ranges, read
from streaming.topics import EVENT_TOPICS

BATCH = 5_000
ROWS, USERS = 10_000, 500


def from_history(online: Online, home: Path, on_batch: Callable[[int], Any] = lambda done: None) -> dict[str, int]:
    """Write items, query texts and every user's sequence to the online store; the store's identity last.

    Until that last step a consumer refuses the store and a scorer marks it, so that no half-built store passes for whole.
    SeminarError: the store carries another history's identity.
    """
    found, expected = found_identity(online), expected_identity(home)
    if found is not None and found != expected:
        raise SeminarError("online store", found, f"belongs to another history ({expected})", "name the store to rebuild")
    items = history.read_items(home)
    for start in range(0, len(items), ROWS):
        online.write_items(items.slice(start, ROWS))
    with writing(home):  # an erasure must not be crossed by texts that were read before it
        queries = history.read_queries(home)
        for start in range(0, len(queries), ROWS):
            online.write_queries(queries.slice(start, ROWS))
    stored, fence = history.read_sequences(home), fences(home)
    for start in range(0, len(stored.user_ids), USERS):
        users = stored.user_ids[start : start + USERS]
        deltas = {user: stored.of(start + i) for i, user in enumerate(users)}
        online.append(deltas, {user: fence.of(user) for user in users})
        on_batch(sum(map(len, deltas.values())))
    restore_identity(online, home)
    return {
        "users": len(stored.user_ids),
        "records": len(stored.records),
        "items": len(items),
        "queries": len(queries),
    }


def from_kafka(
    bootstrap: str,
    position: Position,
    online: Online,
    home: Path,
    deadletters: DeadLetters,
    on_batch: Callable[[int], Any] = lambda done: None,
) -> Applied:
    """Apply again what the topics hold from a position up to their ends now, into history and online; commits nothing."""
    applier, total = Applier(online, home, deadletters), Applied()
    consumer = clients.consumer(bootstrap, auto_offset_reset="none", isolation_level="read_committed")
    try:
        partitions = [p for topic in EVENT_TOPICS for p in partitions_of(consumer, topic)]
        stream = (message for message, _ in read(consumer, ranges(consumer, partitions, position)))
        while batch := list(islice(stream, BATCH)):
            total += applier.apply(batch)
            on_batch(len(batch))
    finally:
        consumer.close()
    return total
