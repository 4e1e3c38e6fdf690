"""The rows of history that an event became, with their files: read by batches, and only the columns that can tell."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

from features import history, snapshot
from features.record import KIND_BROWSE, KIND_SEARCH, entity_id, event_digest, signed
from features.sequences import packed
from streaming.events import BROWSE, IMPRESSION, ITEM, SEARCH, Event

_KINDS = {KIND_SEARCH: SEARCH, KIND_BROWSE: BROWSE}


@dataclass(frozen=True)
class Row:
    """A row: its file (relative to the home), origin and arrival. `by`: what it was recognised by."""

    file: str
    kind: str
    user: str | None
    time: str
    origin: str
    arrived: str
    by: str


def rows_of(home: Path, event: Event) -> list[Row]:
    """The rows of an event that is at hand; those that repeat it too."""
    then = pa.scalar(datetime.fromtimestamp(event.time_ms / 1000, UTC), pa.timestamp("us", "UTC"))
    moment = ds.field("event_timestamp") == then
    if event.type in (SEARCH, BROWSE):
        digest = event_digest(event.source, event.id)
        one = ds.field("user_id") == event.key
        return _scan(home, history.EVENTS, moment & one, event.time_ms, digest, "user, time and digest")
    if event.type == IMPRESSION:
        one = (ds.field("user_id") == event.key) & (ds.field("impression_id") == event.data["impression_id"])
        return _scan(home, history.IMPRESSIONS, moment & one, event.time_ms, None, "user, time and impression_id")
    if event.type == ITEM:
        one = ds.field("item") == signed(entity_id(event.key))
        return _scan(home, history.ITEMS, moment & one, event.time_ms, None, "item and time")
    return []


def rows_of_digest(home: Path, digest: int, user: str | None) -> list[Row]:
    """Rows of searches and browses by the digest of source and id alone; one in 4 billion others has the same."""
    wanted = ds.scalar(True) if user is None else ds.field("user_id") == user
    return _scan(home, history.EVENTS, wanted, None, digest, "digest" if user is None else "user and digest")


def _scan(home: Path, table: str, wanted: ds.Expression, time_ms: int | None, digest: int | None, by: str) -> list[Row]:
    schema = history.SCHEMAS[table]
    names = ["user_id", "event_timestamp", "sequence", "topic", "partition", "offset", "arrived"]
    columns = [name for name in names if name in schema.names]

    def take(dataset: ds.Dataset) -> list[Row]:
        found = []
        for fragment in dataset.get_fragments():
            file = str(Path(fragment.path).relative_to(home))
            for batch in fragment.scanner(schema, columns=columns, filter=wanted).to_batches():
                found += _rows(table, file, batch, digest, by)
        return found

    until = None if time_ms is None else time_ms + 1
    return snapshot.scan(home, table, schema, take, None, time_ms, until)


def _rows(table: str, file: str, batch: pa.RecordBatch, digest: int | None, by: str) -> list[Row]:
    kinds = [table.removesuffix("s")] * len(batch)
    hits = list(range(len(batch)))
    if digest is not None and len(batch):
        records = packed(batch["sequence"])
        hits = np.flatnonzero(records["digest"] == digest).tolist()
        kinds = [_KINDS.get(int(kind), "?") for kind in records["kind"]]
    return [
        Row(
            file,
            kinds[i],
            row.get("user_id"),
            _text(row["event_timestamp"]),
            f"{row['topic']}/{row['partition']}/{row['offset']}",
            _text(row["arrived"]),
            by,
        )
        for i in hits
        for row in batch.slice(i, 1).to_pylist()
    ]


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
