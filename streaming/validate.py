"""Is what a producer sends fit for use? Checks over a file or topics, each PASS, FAIL or SKIP with examples.

Everything is read once and in order into a table on disk, over which each check is a query. Memory is bounded: a batch of
`BATCH` events, `MEMORY` for the queries, one day of history at a time, and the ids of known items (8 bytes each); the disk
below the home takes roughly 150 bytes an event and is freed at the end.
"""

import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

from features.errors import SeminarError
from features.record import entity_id, signed
from streaming import clients
from streaming.checks import CHECKS, PASS_FAIL
from streaming.events import BROWSE, END_MS, FORGET, ITEM, Event, Invalid, Message, parse
from streaming.known import add_known
from streaming.positions import parse_from
from streaming.reading import partitions_of, ranges, read

if TYPE_CHECKING:
    from features.online import Online  # Feast is slow to import, and a check of a file needs none

BATCH, MEMORY, EXAMPLES = 10_000, "512MB", 3
_COLUMNS = pa.schema(
    [
        ("n", pa.int64()),  # running number, as read
        ("place", pa.string()),
        ("stream", pa.string()),  # topic/partition: where order means something
        ("kind", pa.string()),
        ("source", pa.string()),
        ("id", pa.string()),
        ("key", pa.string()),
        ("time", pa.int64()),  # ms
        ("stamp", pa.int64()),  # ms; Kafka's, null in a file
        ("content", pa.binary(8)),
        ("item", pa.int64()),  # signed(entity_id); of browses and items
        ("item_id", pa.string()),
        ("search", pa.string()),
        ("impression", pa.string()),
    ]
)


@dataclass(frozen=True)
class Limits:
    """Shares (0 to 1) from which a check fails, and the tolerances in seconds."""

    invalid: float = 0.0  # messages that are no valid events
    keys: float = 0.0  # messages whose key is not their user (item events: item)
    conflicts: float = 0.0  # events that share source and id with another one of other content
    duplicates: float = 0.01  # events sent again as they were: harmless, and work
    disorder: float = 0.05  # events older than an earlier one of their user in their partition: harmless, unless many
    ahead: float = 0.0  # events later than their clock tolerance `ahead_s` allows
    late: float = 0.05  # events that reached Kafka more than `late_s` after they happened
    unknown_items: float = 0.01  # browses of items that no item event described
    lost_searches: float = 0.01  # browses whose search_id no search of that user has
    lost_impressions: float = 0.01  # browses whose impression_id no impression of that user has
    searched: float = 0.0  # least share of browses that find their search
    ahead_s: float = 300.0
    late_s: float = 86_400.0

    @classmethod
    def parse(cls, given: Iterable[str]) -> "Limits":
        """Limits from texts such as `late=0.2`; SeminarError for another name or no number."""
        found: dict[str, float] = {}
        names = [one.name for one in fields(cls)]
        for text in given:
            name, _, value = text.partition("=")
            if name not in names:
                raise SeminarError("limit", text, "names no limit", f"write NAME=NUMBER with one of {', '.join(names)}")
            try:
                found[name] = float(value)
            except ValueError:
                found[name] = -1.0
            if not (0 <= found[name] <= 1 or (name.endswith("_s") and found[name] >= 0)):
                raise SeminarError(
                    "limit", text, "is no share from 0 to 1 (or, with _s, of seconds)", f"write e.g. {name}=0.1"
                )
        return cls(**found)


@dataclass
class Check:
    """A check's outcome: `found` of `of` (null: skipped), against `limit`; `examples` and a note in words."""

    name: str
    status: str
    found: int = 0
    of: int = 0
    limit: float = 0.0
    examples: list[str] = field(default_factory=list)
    note: str = ""

    @property
    def share(self) -> float:
        """`found` of `of`; 0 of nothing."""
        return self.found / self.of if self.of else 0.0


def from_file(messages: Iterable[Message]) -> Iterator[tuple[Message, int | None]]:
    """Messages of a file: there is no time at which Kafka got them."""
    return ((message, None) for message in messages)


def from_topics(bootstrap: str, topics: Iterable[str], begin: str) -> Iterator[tuple[Message, int | None]]:
    """Messages of topics, from a position (`streaming.positions`) up to where they end now."""
    position = parse_from(begin, int(time.time() * 1000))
    consumer = clients.reader(bootstrap)
    try:
        partitions = [partition for topic in topics for partition in partitions_of(consumer, topic)]
        yield from read(consumer, ranges(consumer, partitions, position))
    finally:
        consumer.close()


def validate(
    messages: Iterable[tuple[Message, int | None]],
    home: Path,
    limits: Limits,
    *,
    online: "Online | None" = None,
    on_batch: Callable[[int], Any] = lambda done: None,
) -> dict[str, Any]:
    """Check messages with their Kafka timestamps (ms): {"messages", "passed", "checks": [as `Check`, with "share"]}.

    What history below `home` and the online store know counts as known.
    """
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".validate-", dir=home) as folder:
        con = duckdb.connect(str(Path(folder) / "events.db"))
        try:
            con.execute(f"SET memory_limit='{MEMORY}'; SET preserve_insertion_order=false; SET threads=2")
            refused = _Refused()
            count = _load(con, messages, refused, on_batch)
            notes = add_known(con, home, online)
            checks = [
                refused.check("invalid", "schema", count, limits.invalid),
                refused.check("keys", "keys", count, limits.keys),
            ]
            for one in CHECKS:
                checks.append(_run(con, one, limits, notes.get(one.name, "")))
        finally:
            con.close()
    if not count:
        raise SeminarError("messages", 0, "were read", "name a file or topics that hold some, or begin earlier")
    found = [{**asdict(check), "share": round(check.share, 6)} for check in checks]
    return {"messages": count, "passed": all(c.status != "FAIL" for c in checks), "checks": found}


class _Refused:
    """Messages that are no valid events, by field: counts, and a few examples each."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._examples: dict[str, list[str]] = {}

    def add(self, message: Message, invalid: Invalid) -> None:
        name = "keys" if invalid.field == "key" else "schema"
        self._counts[name] = self._counts.get(name, 0) + 1
        # One of each reason before a second of any.
        shown = self._examples.setdefault(name, [])
        words = f"{invalid.field} {invalid.value[:60]!r} {invalid.reason[:160]}"
        if len(shown) < 2 * EXAMPLES and not any(f": {invalid.field} " in x for x in shown):
            shown.append(f"{_place(message)}: {words}")

    def check(self, name: str, kind: str, of: int, limit: float) -> Check:
        found = self._counts.get(kind, 0)
        return Check(kind, PASS_FAIL[found > limit * of], found, of, limit, self._examples.get(kind, []))


def _load(
    con: duckdb.DuckDBPyConnection,
    messages: Iterable[tuple[Message, int | None]],
    refused: _Refused,
    on_batch: Callable[[int], Any],
) -> int:
    con.register("batch", _COLUMNS.empty_table())
    con.execute("CREATE TABLE events AS SELECT * FROM batch")
    count, stream, now = 0, iter(messages), int(time.time() * 1000)
    while chunk := list(islice(stream, BATCH)):
        rows = []
        for i, (message, stamp) in enumerate(chunk):
            try:
                rows.append(_row(count + i, parse(message, END_MS), message, stamp))
            except Invalid as invalid:
                refused.add(message, invalid)
        con.register("batch", pa.Table.from_pylist(rows, _COLUMNS))
        con.execute("INSERT INTO events SELECT * FROM batch")
        count += len(chunk)
        on_batch(len(chunk))
    con.unregister("batch")
    con.execute(f"CREATE MACRO now_ms() AS {now}")
    return count


def _row(n: int, event: Event, message: Message, stamp: int | None) -> dict[str, Any]:
    data = event.data
    item = data["item_id"] if event.type in (BROWSE, ITEM) else None
    content = json.dumps([event.type, event.time_ms, data], sort_keys=True)
    return {
        "n": n,
        "place": _place(message),
        "stream": f"{message.topic}/{message.partition}",
        "kind": event.type,
        "source": event.source,
        "id": event.id,
        "key": event.key,
        "time": event.time_ms,
        "stamp": stamp,
        "content": hashlib.blake2b(content.encode(), digest_size=8).digest(),
        "item": None if item is None else signed(entity_id(item)),
        "item_id": item,
        "search": data.get("search_id"),
        "impression": data.get("impression_id") if event.type != FORGET else None,
    }


def _place(message: Message) -> str:
    if message.topic.startswith("import:"):
        folder, _, file = message.topic.removeprefix("import:").rpartition("/")  # a folder's files are told apart
        return f"{file} line {message.offset + 1}" if folder else f"line {message.offset + 1}"
    return f"{message.topic}/{message.partition}/{message.offset}"


def _run(con: duckdb.DuckDBPyConnection, one: Any, limits: Limits, skip: str) -> Check:
    limit = getattr(limits, one.name)
    values = {"ahead_ms": limits.ahead_s * 1000, "late_ms": limits.late_s * 1000}
    of = int((con.execute(one.of).fetchone() or (0,))[0])
    if skip or not of:
        return Check(one.name, "SKIP", 0, of, limit, note=skip or one.nothing)
    wanted = {name: value for name, value in values.items() if f"${name}" in one.rows}
    con.execute(f"CREATE OR REPLACE TEMP TABLE hits AS {one.rows}", wanted)
    found = int((con.execute("SELECT count(*) FROM hits").fetchone() or (0,))[0])
    shown = con.execute(f"SELECT place, words FROM hits ORDER BY n LIMIT {EXAMPLES}").fetchall()
    examples = [f"{place}: {words}" for place, words in shown]
    failed = (of - found) < limit * of if one.least else found > limit * of
    if one.least and not failed:
        examples = []  # of what need not be
    return Check(one.name, PASS_FAIL[failed], of - found if one.least else found, of, limit, examples, one.note)
