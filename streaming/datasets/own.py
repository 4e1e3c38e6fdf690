"""Bring your own: a folder with `events`, `items` and perhaps `impressions`, each a .csv or a .parquet, as events.

events: `user_id`, `timestamp`, `item_id` and/or `query` (both: the query led to the item; a query alone: a search), and
where they are known `dwell_s`, `search_id`, `impression_id`, `event_id`. items: `item_id`, `title`, `category`, `brand`,
`timestamp`, `attributes` (a JSON object), `text_vector`, `image_vector` (JSON lists); other named columns are attributes.
impressions: a row for what was shown at once: `user_id`, `timestamp`, `impression_id`, `item_ids` (in the order shown,
separated by |), and `query`, `place`. Times without a zone are UTC. An item without a time was always there.

A row without `event_id` is named by its content: the same row again is the same event, and an import can be repeated.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from features import history
from features.errors import SeminarError
from streaming.batch import Batch
from streaming.datasets import rows
from streaming.datasets.dataset import name_of
from streaming.datasets.rows import Row
from streaming.events import BROWSE, END_MS, IMPRESSION, ITEM, SEARCH, Event, Message, parse

SOURCE = "csv"
EVENT_FIELDS = ("user_id", "item_id", "query", "timestamp", "dwell_s", "search_id", "impression_id", "event_id")
ITEM_FIELDS = ("item_id", "title", "category", "brand", "timestamp", "attributes", "text_vector", "image_vector")
INDEX = ("", "Unnamed: 0", "__index_level_0__")
"""What pandas calls the numbers of its rows, in CSV, in what was read from that, and in parquet."""
SHOWN_FIELDS = ("user_id", "timestamp", "impression_id", "item_ids", "query", "place")


REQUIRED = {
    ITEM: ("item_id", "title"),
    BROWSE: ("user_id", "timestamp"),
    IMPRESSION: ("user_id", "timestamp", "impression_id", "item_ids"),
}
"""Columns that a table must have."""


class Own:
    """A folder of tables; rows that make no event become messages that say why."""

    notice = ""

    def __init__(self, folder: Path) -> None:
        self.name = name_of(folder)
        self._folder = folder
        self._events = self._needed("events")
        self._items = self._needed("items")
        self._shown = self._file("impressions")
        for file, required in ((self._items, ITEM), (self._events, BROWSE), (self._shown, IMPRESSION)):
            if file:  # all of them before anything is applied
                rows.check_header(file, rows.header(file), REQUIRED[required])

    def _needed(self, name: str) -> Path:
        if found := self._file(name):
            return found
        remedy = "give a folder with events.csv and items.csv; `seminar history example DIR` makes one"
        raise SeminarError("DIR", self._folder, f"has no {name}.csv", remedy)

    def _file(self, name: str) -> Path | None:
        found = [file for suffix in ("csv", "parquet") if (file := self._folder / f"{name}.{suffix}").is_file()]
        if len(found) > 1:
            raise SeminarError("DIR", self._folder, f"has {name}.csv and {name}.parquet", "leave one of them")
        return found[0] if found else None

    def items(self) -> Iterator[Event | Message]:
        """`item` events of items.csv."""
        return self._read(self._items, ITEM, _item)

    def behaviour(self) -> Iterator[Event | Message]:
        """Searches and browses of events.csv."""
        return self._read(self._events, BROWSE, _behaviour)

    def impressions(self) -> Iterator[Event | Message]:
        """`impression` events of impressions.csv, where there is one."""
        return self._read(self._shown, IMPRESSION, _impression)

    def _read(self, file: Path | None, kind: str, make: Any) -> Iterator[Message]:
        if file is None:
            return iter(())
        read = rows.read_csv if file.suffix == ".csv" else rows.read_parquet
        return rows.messages(f"import:{self.name}/{file.name}", read(file, REQUIRED[kind]), kind, make)

    def ignored(self) -> list[str]:
        """Columns that are not read, as `events.csv: name`."""
        found = [f"{self._items.name}: {name or repr(name)}" for name in rows.header(self._items) if name in INDEX]
        for file, known in ((self._events, EVENT_FIELDS), (self._shown, SHOWN_FIELDS)):
            if file:
                found += [f"{file.name}: {name or repr(name)}" for name in rows.header(file) if name not in known]
        return found

    def ambiguous(self) -> list[str]:
        """Items with rows of one time that differ, and the line whose row holds, in words."""
        rows_of = partial(self._read, self._items, ITEM, _item)
        counts = Counter(message.key for message in rows_of())
        several = [message for message in rows_of() if counts[message.key] > 1 and message.problem is None]
        read = Batch([(parse(message, END_MS), message) for message in several]).items()
        newest, lines = history.newest_items(read), defaultdict[tuple[str, Any], dict[str, int]](dict)
        for row in read.to_pylist():
            content = repr([row[name] for name in history.CONTENT])
            lines[row["item_id"], row["event_timestamp"]].setdefault(content, row["offset"] + 1)
        found = []
        for row in newest.to_pylist():
            rivals = sorted(lines[row["item_id"], row["event_timestamp"]].values())
            if len(rivals) > 1:
                at = ", ".join(map(str, rivals))
                found.append(f"{row['item_id']!r} differs on lines {at}: the greater holds, line {row['offset'] + 1}")
        return found


def _texts(row: Row, *fields: str) -> dict[str, Any]:
    return {name: str(row[name]).strip() for name in fields if row.get(name) is not None and str(row[name]).strip()}


def _behaviour(row: Row) -> Iterator[Event]:
    rows.needed(row, "user_id")
    time_ms = rows.moment("timestamp", rows.needed(row, "timestamp"))
    data = _texts(row, "user_id", "item_id", "query", "search_id", "impression_id")
    if "item_id" not in data and "query" not in data:
        raise rows.problem("item_id", "", "and query are empty", "name the item, the query, or both")
    if "dwell_s" in row:
        data["dwell_s"] = rows.number(row, "dwell_s")
    event_id = _texts(row, "event_id").get("event_id")
    if "item_id" in data:
        yield rows.event(BROWSE, data, time_ms, SOURCE, event_id)
    else:
        yield rows.event(SEARCH, _texts(row, "user_id", "query"), time_ms, SOURCE, event_id)


def _item(row: Row) -> Iterator[Event]:
    rows.needed(row, "item_id")
    rows.needed(row, "title")
    data = _texts(row, "item_id", "title", "category", "brand")
    attributes = _json(row, "attributes", dict)
    attributes |= {name: value for name, value in row.items() if name not in (*ITEM_FIELDS, *INDEX)}
    data["attributes"] = {str(name): str(value) for name, value in attributes.items()}
    for name in ("text_vector", "image_vector"):
        if name in row:
            data[name] = _json(row, name, list)
    time_ms = rows.moment("timestamp", row["timestamp"]) if "timestamp" in row else 0
    yield rows.event(ITEM, data, time_ms, SOURCE)


def _impression(row: Row) -> Iterator[Event]:
    for name in ("user_id", "impression_id"):
        rows.needed(row, name)
    time_ms = rows.moment("timestamp", rows.needed(row, "timestamp"))
    shown = rows.needed(row, "item_ids")
    shown = shown.split("|") if isinstance(shown, str) else shown
    data = _texts(row, "user_id", "impression_id", "query", "place")
    data["items"] = [{"item_id": str(item).strip(), "position": place} for place, item in enumerate(shown)]
    yield rows.event(IMPRESSION, data, time_ms, SOURCE, data["impression_id"])


def _json(row: Row, field: str, kind: type) -> Any:
    found = row.get(field, "{}")
    if isinstance(found, str):
        try:
            found = json.loads(found)
        except (ValueError, RecursionError):
            found = None
    if not isinstance(found, kind):
        wanted = "object" if kind is dict else "list"
        raise rows.problem(field, row.get(field), f"is no JSON {wanted}", f"write a JSON {wanted}, or leave it empty")
    return found
