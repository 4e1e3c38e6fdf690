"""Your own tables: every row becomes an event or a dead letter that says where and why; repeating changes nothing."""

import gzip
import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features import history
from features.errors import SeminarError
from features.online import Online
from features.parity import compare
from features.record import KIND_BROWSE, KIND_SEARCH, entity_id
from streaming.datasets.own import Own
from streaming.datasets.rows import moment, read_json_lines
from streaming.deadletters import letters_in_file
from streaming.events import Invalid, parse
from streaming.importer import dataset_messages, import_dataset
from streaming.validate import Limits, from_file, validate

ITEMS = """item_id,title,category,brand,attributes,colour
a,"Mug, blue",mugs,Alder,"{""volume"": ""3 dl""}",blue
b,Tea pot,pots,,,
"""
GOOD = [
    "u1,2024-05-01T10:00:00Z,,blue mug,,,",
    "u1,2024-05-01T12:00:05+02:00,a,blue mug,12.5,s1,i1",
    "u1,1714557700,b,,,,",
    "u2,1714557800000,b,,,,",
    "u2,2024-05-02 08:00:00,a,,,,",
]
HEADER = "user_id,timestamp,item_id,query,dwell_s,search_id,impression_id"
BAD = {
    "u1,yesterday,a,,,,": ("timestamp", "yesterday", "RFC 3339"),
    ",2024-05-01,a,,,,": ("user_id", "", "fill it in"),
    "u1,,a,,,,": ("timestamp", "", "fill it in"),
    "u1,2024-05-01,,,,,": ("item_id", "", "name the item, the query, or both"),
    "u1,2024-05-01,a,,long,,": ("dwell_s", "long", "write digits"),
    "u1,2024-05-01,a,,-4,,": ("dwell_s", "-4.0", "bigger than or equal to 0"),
    "u1,1714557700000000,a,,,,": ("timestamp", "1714557700000000", "seconds or ms"),
    "u1,20240501,a,,,,": ("timestamp", "20240501", "without dashes; write RFC 3339"),
    "u1,202405011230,a,,,,": ("timestamp", "202405011230", "without dashes"),
    "u1,20240501123000.0,a,,,,": ("timestamp", "20240501123000.0", "without dashes"),
    "u1,2024,a,,,,": ("timestamp", "2024", "without dashes"),
    "u1,2024-05-01,a": ("line", "u1,2024-05-01,a", "has 3 fields, the header 7"),
    'u1,2024-05-01,"a"b,,,,': ("line", "", "is no CSV"),
    "u1,2024-05-01,a," + "q" * 1001 + ",,,": ("query", "q" * 1000, "correct the row"),
    "u\udcff,2024-05-01,a,,,,": ("line", "u\\xff,2024-05-01,a,,,,", "is not UTF-8; save the file as UTF-8"),
}


def folder(path: Path, events: list[str], shown: str | None = None) -> Path:
    path.mkdir(exist_ok=True)
    (path / "items.csv").write_text(ITEMS)
    (path / "events.csv").write_bytes("\n".join([HEADER, *events, ""]).encode(errors="surrogateescape"))
    if shown is not None:
        (path / "impressions.csv").write_text(shown)
    return path


def test_rows_become_events(home: Path, tmp_path: Path) -> None:
    shown = "user_id,timestamp,impression_id,item_ids,query,place\nu1,2024-05-01T10:00:01Z,i1,b|a,blue mug,top\n"
    data = Own(folder(tmp_path / "shop", GOOD, shown))
    done, refusals = import_dataset(data, Online(), home)
    assert done.counts == {"item": 2, "search": 1, "browse": 4, "impression": 1}
    assert (done.rejected, refusals.examples) == (0, [])
    items = {row["item_id"]: row for row in history.read_items(home).to_pylist()}
    assert (items["a"]["title"], items["a"]["category"], items["a"]["brand"]) == ("Mug, blue", "mugs", "Alder")
    assert json.loads(items["a"]["attributes"]) == {"volume": "3 dl", "colour": "blue"}
    assert items["b"]["brand"] is None
    stored = history.read_sequences(home)
    mine = stored.of(stored.user_ids.index("u1"))
    assert mine["kind"].tolist() == [KIND_SEARCH, KIND_BROWSE, KIND_BROWSE]
    assert mine["item"].tolist() == [0, entity_id("a"), entity_id("b")]
    assert mine["query"].tolist() == [entity_id("blue mug")] * 2 + [0]
    assert mine["dwell"].tolist() == [0, 12, 0]
    assert mine["time"].tolist() == [1_714_557_600_000, 1_714_557_605_000, 1_714_557_700_000]
    last = stored.of(stored.user_ids.index("u2"))["time"][1]
    assert last == datetime(2024, 5, 2, 8, tzinfo=UTC).timestamp() * 1000  # no zone: UTC
    (impression,) = history.read_impressions(home).to_pylist()
    assert [x % (1 << 64) for x in impression["items"]] == [entity_id("b"), entity_id("a")]
    assert (impression["positions"], impression["place"]) == ([0, 1], "top")


@pytest.mark.parametrize("row", BAD)
def test_a_bad_row_says_what_is_wrong(tmp_path: Path, row: str) -> None:
    (message,) = Own(folder(tmp_path / "shop", [row])).behaviour()
    with pytest.raises(Invalid) as bad:
        parse(message)  # type: ignore[arg-type]
    field, value, words = BAD[row]
    assert (bad.value.field, bad.value.value) == (field, value)
    assert words in bad.value.reason


@pytest.mark.parametrize(
    ("told", "ms"),
    [(99_999_999, 99_999_999_000), (874_724_710, 874_724_710_000), (1_714_557_700, 1_714_557_700_000), ("1e10", 10**13)],
)
def test_a_number_that_is_no_date_is_seconds(told: object, ms: int) -> None:
    assert moment("timestamp", told) == ms


def test_no_row_is_lost_and_a_corrected_one_is_taken_back(home: Path, tmp_path: Path) -> None:
    rows = [x for pair in zip(GOOD, BAD, strict=False) for x in pair]
    shop, online = folder(tmp_path / "shop", rows), Online()
    for _ in range(2):
        done, refusals = import_dataset(Own(shop), online, home)
        assert done.counts["browse"] + done.counts["search"] + done.rejected == len(rows)
        letters = letters_in_file(home)
        assert [x.origin for x in letters] == sorted(
            f"import:{Own(shop).name}/events.csv/0/{line}" for line in (2, 4, 6, 8, 10)
        )
    assert len(refusals.examples) == 5
    assert refusals.examples[0].startswith("events.csv line 3: timestamp: 'yesterday' is no time; write RFC 3339")
    assert len(history.read_sequences(home).records) == len(GOOD)
    assert compare(online, home)["edit_distance"] == 0
    rows[1] = "u1,2024-05-03,a,,,,"
    _, refusals = import_dataset(Own(folder(shop, rows)), online, home)
    assert (len(letters_in_file(home)), refusals.taken_back) == (4, 1)
    assert len(history.read_sequences(home).records) == len(GOOD) + 1


def test_another_folder_of_the_same_name_takes_no_letter_back(home: Path, tmp_path: Path) -> None:
    online, bad = Online(), list(BAD)[:2]
    for month, rows in (("jan", bad), ("feb", GOOD)):
        (tmp_path / month).mkdir()
        _, refusals = import_dataset(Own(folder(tmp_path / month / "shop", rows)), online, home)
        assert refusals.taken_back == 0
    assert len(letters_in_file(home)) == len(bad)


def test_a_quote_that_is_not_closed_takes_no_good_row_silently(tmp_path: Path) -> None:
    found = list(Own(folder(tmp_path / "shop", [GOOD[0], 'u1,2024-05-01,a,"tea,,,', *GOOD[1:]])).behaviour())
    assert [bool(x.problem) for x in found] == [False, True]  # type: ignore[union-attr]
    with pytest.raises(Invalid, match=r"lines: '3 to 7' are one quoted field \(unexpected end of data\)"):
        parse(found[1])  # type: ignore[arg-type]


def test_parquet_says_the_same(tmp_path: Path) -> None:
    shop = folder(tmp_path / "shop", GOOD)
    csv = [parse(message).data for message in dataset_messages(Own(shop))]
    names = HEADER.split(",")
    rows = [dict(zip(names, (x or None for x in row.split(",")), strict=True)) for row in GOOD]
    for row in rows:
        row["dwell_s"] = float(row["dwell_s"]) if row["dwell_s"] else None  # type: ignore[assignment]
    rows[0]["timestamp"] = rows[0]["timestamp"] or ""
    pq.write_table(pa.Table.from_pylist(rows), shop / "events.parquet")
    with pytest.raises(SeminarError, match="leave one of them"):
        Own(shop)
    (shop / "events.csv").unlink()
    assert [parse(message).data for message in dataset_messages(Own(shop))] == csv


def test_files_that_broke_off_are_named(tmp_path: Path) -> None:
    shop = folder(tmp_path / "shop", GOOD)
    (shop / "events.csv").unlink()
    (shop / "events.parquet").write_bytes(b"PAR1 and no end")
    with pytest.raises(SeminarError, match=r"events\.parquet.*is no whole parquet file"):
        list(Own(shop).behaviour())
    packed = tmp_path / "reviews.jsonl.gz"
    packed.write_bytes(gzip.compress(b'{"a": 1}\n' * 5000)[:-9])
    with pytest.raises(SeminarError, match=r"reviews\.jsonl\.gz.*is no whole gzip file"):
        list(read_json_lines(packed))


def test_the_check_passes_and_fails_with_lines(tmp_path: Path) -> None:
    def check(rows: list[str]) -> dict[str, tuple[str, list[str]]]:
        messages = dataset_messages(Own(folder(tmp_path / "shop", rows)))
        found = validate(from_file(messages), tmp_path, Limits.parse(["lost_searches=1", "disorder=1"]))
        return {c["name"]: (c["status"], c["examples"]) for c in found["checks"]}

    assert Counter(status for status, _ in check(GOOD).values()).keys() == {"PASS", "SKIP"}
    found = check([*GOOD, GOOD[2], "u1,yesterday,a,,,,", "u3,2024-05-01,c,,,,"])
    assert {name for name, (status, _) in found.items() if status == "FAIL"} == {"schema", "duplicates", "unknown_items"}
    assert found["schema"][1][0].startswith("events.csv line 8: timestamp 'yesterday' is no time; write RFC 3339")
    assert found["duplicates"][1][0].startswith("events.csv line 7: ")
    assert found["unknown_items"][1][0].startswith("events.csv line 9: ")


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("events.csv", "user,timestamp\nu,1\n", "user_id.*is missing.*user, timestamp"),
        ("events.csv", "user_id;timestamp\nu;1\n", "separate columns by commas"),
        ("items.csv", "item_id,title,title\na,b,c\n", "title.*is there twice"),
        ("items.csv", "", "is missing.*nothing"),
    ],
)
def test_a_wrong_header_is_refused(tmp_path: Path, name: str, text: str, words: str) -> None:
    shop = folder(tmp_path / "shop", GOOD)
    (shop / name).write_text(text)
    with pytest.raises(SeminarError, match=words):
        list(dataset_messages(Own(shop)))


def test_headers_are_looked_at_before_anything_is_read(tmp_path: Path) -> None:
    shop = folder(tmp_path / "shop", GOOD)
    (shop / "events.csv").write_text('"user_id","timestamp","item_id","rat,ing"\nu,2024-05-01,a,5\n')
    assert Own(shop).ignored() == ["events.csv: rat,ing"]
    (shop / "events.csv").write_text("user_id,item_id\nu,a\n")
    with pytest.raises(SeminarError, match=r"events\.csv column: 'timestamp' is missing"):
        Own(shop)


def test_numbers_of_rows_are_no_attribute(tmp_path: Path) -> None:
    shop = folder(tmp_path / "shop", GOOD)
    (shop / "items.csv").write_text(",item_id,title\n0,a,A\n")
    assert Own(shop).ignored() == ["items.csv: ''"]
    (item,) = Own(shop).items()
    assert parse(item).data["attributes"] == {}  # type: ignore[arg-type]


def test_the_check_says_which_of_two_rows_holds(home: Path, tmp_path: Path) -> None:
    shop = folder(tmp_path / "shop", GOOD)
    (shop / "items.csv").write_text("item_id,title\na,Tea\na,Mug\nb,Pot\nb,Pot\n")
    assert Own(shop).ambiguous() == ["'a' differs on lines 2, 3: the greater holds, line 2"]
    import_dataset(Own(shop), Online(), home)
    assert {row["item_id"]: row["title"] for row in history.read_items(home).to_pylist()} == {"a": "Tea", "b": "Pot"}


def test_a_missing_file_and_columns_that_are_not_read(tmp_path: Path) -> None:
    shop = folder(tmp_path / "shop", GOOD)
    (shop / "events.csv").write_text("user_id,timestamp,item_id,rating\nu,2024-05-01,a,5\n")
    assert Own(shop).ignored() == ["events.csv: rating"]
    (shop / "events.csv").unlink()
    with pytest.raises(SeminarError, match=r"has no events\.csv"):
        Own(shop)
