"""KuaiSAR: real searches and recommendations of a short-video app, as published in five CSV files, as events.

`src_inter.csv`: a row for each item that a search session showed; the session is a `search` (its anonymous keyword numbers
are its words) and an `impression` of its items, a click a `browse` that names both. `rec_inter.csv`: rows of one user and
moment are an `impression`, a click a `browse` with the time that was played. `item_features.csv`: the catalogue, whose
captions are numbers too. `user_features.csv` and `social_network.csv` are not read: the model knows users by what they did.

What is constructed: a search session has one time, so its clicks are set a second later and one after the other; positions
are the order of the rows. Users, lives, goods and music that a search showed carry their kind in their id.
"""

import math
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import duckdb

from features.errors import SeminarError
from streaming.datasets import rows
from streaming.datasets.dataset import name_of
from streaming.datasets.rows import Row
from streaming.events import BROWSE, IMPRESSION, ITEM, SEARCH, Event, Invalid, Message

NOTICE = (
    "Data: KuaiSAR (Z. Sun et al., CIKM 2023, CC BY-SA 4.0). Searches and impressions are real; the times of clicks in a "
    "search are constructed."
)
SOURCE = "kuaisar"
_COLUMNS = {
    "src_inter": (
        "user_id",
        "search_session_id",
        "search_session_timestamp",
        "keyword",
        "item_id",
        "click_cnt",
        "item_type",
    ),
    "rec_inter": ("user_id", "item_id", "playing_time", "timestamp", "click"),
    "item_features": ("item_id", "caption", "author_id", "first_level_category_name_en", "second_level_category_name_en"),
}
_OTHER_THINGS = ("USER", "LIVE", "COMMODITY", "MUSIC")
_BEIJING_MS = 8 * 3_600_000
_NONE = ("", "empty", "unknown", "0", "-124")
DAY_S = 86_400


class KuaiSAR:
    """A folder with the published files."""

    notice = NOTICE

    def __init__(self, folder: Path) -> None:
        self.name = name_of(folder)
        self._folder = folder
        for name in _COLUMNS:
            if not (folder / f"{name}.csv").is_file():
                raise SeminarError("DIR", folder, f"has no {name}.csv", "give the folder with KuaiSAR's five files")

    def items(self) -> Iterator[Event | Message]:
        """`item` events, from the day on which each was uploaded."""
        topic = f"import:{self.name}/item_features.csv"
        yield from rows.messages(topic, rows.read_csv(self._file("item_features"), ("item_id", "caption")), ITEM, _item)

    def behaviour(self) -> Iterator[Event | Message]:
        """Searches with their clicks, then clicks of recommendations."""
        yield from self._sessions(False)
        yield from self._shown(False)

    def impressions(self) -> Iterator[Event | Message]:
        """What searches and recommendations showed."""
        yield from self._sessions(True)
        yield from self._shown(True)

    def _file(self, name: str) -> Path:
        return self._folder / f"{name}.csv"

    def _sessions(self, shown: bool) -> Iterator[Message]:
        order = ("user_id", "search_session_id")
        return self._grouped("src_inter", order, _session_impression if shown else _session_behaviour, report=not shown)

    def _shown(self, shown: bool) -> Iterator[Message]:
        return self._grouped("rec_inter", ("user_id", "timestamp"), _feed_impression if shown else _feed_clicks, not shown)

    def _grouped(
        self, name: str, by: tuple[str, str], make: Callable[[list[Row]], Iterator[Event]], report: bool
    ) -> Iterator[Message]:
        """Events of rows that belong together, wherever they are in the file. Rows that make none: once, if `report`."""
        topic, file = f"import:{self.name}/{name}.csv", self._file(name)
        numbered = rows.read_csv(file, _COLUMNS[name])
        next(numbered, None)  # the header is as it must be
        for _, group in groupby(_sorted(file, by), key=lambda row: tuple(row[x] for x in by)):
            good: list[Row] = []
            for row in group:
                try:
                    good.append(_checked(name, row))
                except Invalid as bad:
                    if report:
                        yield rows.refused(topic, row.pop("line"), row, BROWSE, bad)
            if not good:
                continue
            try:
                for made in make(good):
                    yield made.message(topic, 0, good[0]["line"] - 1)
            except Invalid as bad:
                yield rows.refused(topic, good[0]["line"], good[0], BROWSE, bad)


def _sorted(file: Path, by: tuple[str, str]) -> Iterator[Row]:
    """Rows with their `line`, sorted on disk where they are many."""
    with duckdb.connect() as con:
        con.execute("SET memory_limit='2GB'; SET threads=2")
        keys = ", ".join(f"try_cast({name} as double), {name}" for name in by)
        try:
            cursor = con.execute(
                "select *, row_number() over () + 1 as line from read_csv(?, all_varchar=true, header=true,"
                f" delim=',', quote='\"', escape='\"') order by {keys}, line",
                [str(file)],
            )
        except duckdb.Error as error:
            words = str(error).splitlines()[0]
            raise SeminarError("file", file, f"is no CSV ({words})", "download it again, or correct the line") from error
        names = [column[0] for column in cursor.description]
        while chunk := cursor.fetchmany(10_000):
            for values in chunk:
                yield dict(zip(names, values, strict=True))


def _checked(name: str, row: Row) -> Row:
    """A row with its numbers as numbers."""
    row["user"] = _id(row, "user_id")
    row["item"] = _id(row, "item_id")
    if name == "src_inter":
        row["session"] = _id(row, "search_session_id")
        row["time_ms"] = rows.moment("search_session_timestamp", rows.needed(row, "search_session_timestamp"))
        row["clicked"] = rows.number(row, "click_cnt") > 0
        kind = (row["item_type"] or "").upper()
        if kind in _OTHER_THINGS:
            row["item"] = f"{kind}:{row['item']}"
    else:
        row["time_ms"] = rows.moment("timestamp", rows.needed(row, "timestamp"))
        row["clicked"] = rows.number(row, "click") > 0
        row["dwell_s"] = min(max(rows.number(row, "playing_time") / 1000, 0.0), DAY_S) if row["playing_time"] else 0.0
    return row


def _id(row: Row, field: str) -> str:
    """An id as digits: pandas writes some of them as 14358.0."""
    value = str(rows.needed(row, field)).strip()
    found = rows.number(row, field) if re.fullmatch(r"\d+\.\d*(e\+?\d+)?", value) else None
    return str(int(found)) if found is not None and math.isfinite(found) else value


def _keywords(text: str | None) -> str:
    return " ".join(re.findall(r"\d+", text or ""))[:1000]


def _session_ids(first: Row) -> tuple[str, str]:
    return f"s-{first['user']}-{first['session']}", f"i-{first['user']}-{first['session']}"


def _session_behaviour(session: list[Row]) -> Iterator[Event]:
    first = session[0]
    search_id, impression_id = _session_ids(first)
    data: dict[str, Any] = {"user_id": first["user"]}
    if query := _keywords(first["keyword"]):
        data["query"] = query
        yield rows.event(SEARCH, data, first["time_ms"], SOURCE, search_id)
    for place, row in enumerate(session):
        if row["clicked"]:
            found = {**data, "item_id": row["item"], "impression_id": impression_id}
            found |= {"search_id": search_id} if query else {}
            yield rows.event(BROWSE, found, first["time_ms"] + 1000 + place, SOURCE, f"{search_id}-{place}")


def _session_impression(session: list[Row]) -> Iterator[Event]:
    first = session[0]
    query = _keywords(first["keyword"])
    yield _impression(session, _session_ids(first)[1], "search", {"query": query} if query else {})


def _feed_id(first: Row) -> str:
    return f"f-{first['user']}-{first['time_ms']}"


def _feed_clicks(shown: list[Row]) -> Iterator[Event]:
    for place, row in enumerate(shown):
        if row["clicked"]:
            data = {
                "user_id": row["user"],
                "item_id": row["item"],
                "impression_id": _feed_id(row),
                "dwell_s": row["dwell_s"],
            }
            yield rows.event(BROWSE, data, row["time_ms"], SOURCE, f"{_feed_id(row)}-{place}")


def _feed_impression(shown: list[Row]) -> Iterator[Event]:
    yield _impression(shown, _feed_id(shown[0]), "recommendation", {})


def _impression(shown: list[Row], name: str, place: str, data: dict[str, Any]) -> Event:
    items = [{"item_id": row["item"], "position": i} for i, row in enumerate(shown)]
    data = {"user_id": shown[0]["user"], "impression_id": name, "place": place, "items": items, **data}
    return rows.event(IMPRESSION, data, shown[0]["time_ms"], SOURCE, name)


def _item(row: Row) -> Iterator[Event]:
    levels = [row.get(f"{level}_level_category_name_en") for level in ("first", "second", "third", "fourth")]
    named = [level for level in levels if level and level.lower() not in _NONE]
    attributes = {f"level {i}": level for i, level in enumerate(named[1:], 2)}
    attributes |= {name: row[name] for name in ("item_type", "upload_type") if row.get(name)}
    if row.get("author_id", "0") != "0":
        attributes["author"] = row["author_id"]
    if named:
        attributes["product_type"] = named[min(1, len(named) - 1)]
    data: dict[str, Any] = {
        "item_id": _id(row, "item_id"),
        "title": _keywords(row.get("caption"))[:2000],
        "attributes": attributes,
        **({"category": named[0]} if named else {}),
    }
    yield rows.event(ITEM, data, _uploaded(row.get("upload_time")), SOURCE)


def _uploaded(day: str | None) -> int:
    """Midnight in Beijing of an upload day; 0, always there, of padding (1970)."""
    if not day:
        return 0
    try:
        local = datetime.fromisoformat(day.strip()).replace(tzinfo=UTC)
    except ValueError:
        raise rows.problem("upload_time", day, "is no date", "write e.g. 2023-04-22, or leave it empty") from None
    return max(0, int(local.timestamp() * 1000) - _BEIJING_MS) if local.year > 1970 else 0
