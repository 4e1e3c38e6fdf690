"""Amazon reviews, in the layouts of 2018 and 2023, as events: a review is a `browse`; there are no searches or impressions.

A folder holds reviews, JSON lines, of any number of categories, packed (.gz) or not, and their `meta_*` files. 2018:
`reviewerID`, `asin`, `unixReviewTime` (s, whole days) and meta by `asin`. 2023: `user_id`, `parent_asin`, `timestamp` (ms)
and meta by `parent_asin`. The layout is told line by line from the fields.
"""

from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

from features.errors import SeminarError
from streaming.datasets import rows
from streaming.datasets.dataset import name_of
from streaming.datasets.rows import Row
from streaming.events import BROWSE, ITEM, Event, Message

NOTICE = "Data: Amazon reviews (J. Ni et al., 2019; Y. Hou et al., 2024). Reviews stand for browses; there are no searches."
SOURCE = "amazon"
_SUFFIXES = (".json", ".jsonl", ".json.gz", ".jsonl.gz")


class Amazon:
    """A folder of review and meta files."""

    notice = NOTICE

    def __init__(self, folder: Path) -> None:
        self.name = name_of(folder)
        files = sorted(file for file in folder.glob("*") if file.name.endswith(_SUFFIXES)) if folder.is_dir() else []
        self._meta = [file for file in files if file.name.startswith("meta_")]
        self._reviews = [file for file in files if not file.name.startswith("meta_")]
        for what, found in (("meta_*.jsonl", self._meta), ("review file (*.jsonl)", self._reviews)):
            if not found:
                raise SeminarError("DIR", folder, f"has no {what}", "give a folder with reviews and their meta_ files")

    def items(self) -> Iterator[Event | Message]:
        """`item` events of the meta files; without a time, so as if they had always been there."""
        for file in self._meta:
            yield from rows.messages(self._topic(file), rows.read_json_lines(file), ITEM, _item)

    def behaviour(self) -> Iterator[Event | Message]:
        """A browse a review; one that is in two files is one event."""
        for file in self._reviews:
            yield from rows.messages(self._topic(file), rows.read_json_lines(file), BROWSE, _review)

    def impressions(self) -> Iterator[Event | Message]:
        """None."""
        return iter(())

    def _topic(self, file: Path) -> str:
        return f"import:{self.name}/{file.name}"


def _review(row: Row) -> Iterator[Event]:
    user, item, time = (
        ("user_id", "parent_asin", "timestamp") if "parent_asin" in row else ("reviewerID", "asin", "unixReviewTime")
    )
    data = {"user_id": str(rows.needed(row, user)), "item_id": str(rows.needed(row, item))}
    yield rows.event(BROWSE, data, rows.moment(time, rows.needed(row, time)), SOURCE)


def _item(row: Row) -> Iterator[Event]:
    """`product_type`: the narrowest category, which is what a search would ask for."""
    newer = "parent_asin" in row
    tree = row.get("categories" if newer else "category") or []
    levels = [_text(name, 256) for name in tree if isinstance(name, str) and name.strip()]
    details = row.get("details")
    brand = row.get("store" if newer else "brand") or (details.get("Brand") if isinstance(details, dict) else None)
    attributes = {f"level {i}": name for i, name in enumerate(levels[1:4], 1)}
    if levels:
        attributes["product_type"] = levels[-1]
    given = {
        "category": _text(row.get("main_category" if newer else "main_cat") or (levels or [""])[0], 256),
        "brand": _text(brand, 256),
    }
    data: dict[str, Any] = {
        "item_id": str(rows.needed(row, "parent_asin" if newer else "asin")),
        "title": _text(row.get("title"), 2000),  # of some nothing but the id is known
        "attributes": attributes,
        **{name: value for name, value in given.items() if value},
    }
    yield rows.event(ITEM, data, 0, SOURCE)


def _text(value: object, most: int) -> str:
    return unescape(str(value or "")).strip()[:most].strip()
