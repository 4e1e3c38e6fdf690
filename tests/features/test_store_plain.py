"""The contract of plain views, the same for every online store: the newest version stays, whatever the order of writes."""

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Int64List, Value

from features import history
from features.errors import SeminarError
from features.online import Online
from features.repository import open_store
from features.rows import pack, unpack
from tests.features.conftest import Place, in_processes

T = datetime(2026, 1, 1, 12, tzinfo=UTC)
US = timedelta(microseconds=1)


def item(title: str | None, moment: datetime = T, number: int = 1, **others: Any) -> dict[str, Any]:
    row = dict.fromkeys(history.SCHEMAS["items"].names)
    return row | {"item": number, "event_timestamp": moment, "item_id": f"i{number}", "title": title} | others


def write(online: Online, *rows: dict[str, Any]) -> None:
    online.write_items(pa.Table.from_pylist(list(rows), schema=history.SCHEMAS["items"]))


def title(online: Online, number: int = 1) -> Any:
    found = online.items([number])[0]
    return found and found["title"]


def test_an_older_version_never_replaces_a_newer_one(place: Place) -> None:
    online = Online()
    assert online.items([1]) == [None]
    write(online, item("b", T))
    write(online, item("c", T - US))
    assert title(online) == "b"
    write(online, item("a", T + US))
    assert title(online) == "a"
    write(online, item("d", T), item("e", T + 2 * US), item("f", T + US))
    assert title(online) == "e"


def test_of_equal_times_the_greater_content_wins_in_any_order(place: Place) -> None:
    versions = [
        item("t"),
        item("t", brand=""),
        item("t", brand="b", image_vector=b"\xff"),
        item("t", brand="b", image_vector=b"\xff\0"),
        item("t", brand="b", image_vector=b"\xff\0\0"),
        item("t", brand="b", image_vector=b"\xff\1"),
        item("s", brand="é", attributes="{}"),
        item("t", brand="é", attributes="{}"),
        item("ta", brand="é", attributes="{}"),
        item("a", brand="a", attributes="{}" * 100),
    ]
    table = pa.Table.from_pylist(versions, schema=history.SCHEMAS["items"])
    assert history.newest_items(table)["title"].to_pylist() == ["a"]
    online, number = Online(), 0
    for pair in itertools.combinations(versions, 2):
        (expected,) = history.newest_items(pa.Table.from_pylist(list(pair), schema=history.SCHEMAS["items"])).to_pylist()
        for order in (pair, pair[::-1]):
            number += 1
            for version in order:
                write(online, version | {"item": number})
            (found,) = online.items([number])
            assert found == {name: expected[name] for name in found or {}}


def test_replays_in_any_order_end_as_history_does(place: Place) -> None:
    online, rng = Online(), np.random.default_rng(3)
    moments = [T + int(i) * US for i in rng.integers(0, 4, 40)]
    rows = [item(f"{rng.integers(5)}", m, int(rng.integers(1, 6))) for m in moments]
    newest = history.newest_items(pa.Table.from_pylist(rows, schema=history.SCHEMAS["items"]))
    for _ in range(3):
        rng.shuffle(rows)  # type: ignore[arg-type]
        for part in np.array_split(np.arange(40), 7):
            write(online, *(rows[i] for i in part))
        assert [title(online, n) for n in newest["item"].to_pylist()] == newest["title"].to_pylist()


def test_null_and_empty_values_stay_apart(place: Place) -> None:
    online = Online()
    write(online, item("", text_vector=b"", image_vector=None))
    found = online.items([1])[0]
    assert found is not None
    assert (found["title"], found["text_vector"], found["image_vector"], found["brand"]) == ("", b"", None, None)


def test_reads_give_the_event_time_and_answer_stock_requests(place: Place) -> None:
    online, store = Online(), open_store()
    write(online, item("a", T + 7 * US))
    view, provider = store.get_feature_view("item_content"), store._get_provider()
    found = provider.online_read(store.config, view, [_key(1), _key(2)])
    assert found[0][0] == T + 7 * US
    assert found[1] == (None, None)
    answer = store.get_online_features(["item_content:title", "item_content:brand"], [{"item": 1}, {"item": 2}]).to_dict()
    assert answer == {"item": [1, 2], "title": ["a", None], "brand": [None, None]}


def test_rows_are_deleted_one_by_one(place: Place) -> None:
    online, store = Online(), open_store()
    write(online, *(item(f"t{n}", number=n) for n in range(1, 5)))
    provider = store._get_provider()
    provider.online_store.delete_rows(store.config, store.get_feature_view("item_content"), [_key(2), _key(3), _key(9)])
    assert [title(online, n) for n in range(1, 5)] == ["t1", None, None, "t4"]
    write(online, item("again", T - US, 2))
    assert title(online, 2) == "again"
    with pytest.raises(SeminarError, match="fence"):
        provider.online_store.delete_rows(store.config, store.get_feature_view("user_sequence"), [_key(2)])


def _versions(writer: int, rounds: int) -> None:
    online = Online()
    for i in np.random.default_rng(writer).permutation(rounds):
        write(online, item(f"v{int(i):03}-{writer}", T + int(i) * US), item(f"w{writer}", T, 2))


def test_writing_processes_leave_the_newest(place: Place) -> None:
    in_processes(place, _versions, 3, 60)
    online = Online()
    assert title(online) == "v059-2"
    assert title(online, 2) == "w2"


@pytest.mark.parametrize(
    "value",
    [
        Value(),
        Value(string_val="a\0\0é"),
        Value(bytes_val=bytes(range(256)) + b"\0"),
        Value(int64_val=-1),
        Value(double_val=0.5),
        Value(int64_list_val=Int64List(val=[0, 1, 2])),
    ],
)
@pytest.mark.parametrize(
    "moment", [T + 3 * US, datetime(1960, 5, 1, 0, 0, 0, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)]
)
def test_a_packed_row_reads_back(value: Value, moment: datetime) -> None:
    row = pack(moment, {"b": value, "a": Value(string_val="x")})
    assert unpack(row) == (moment, {"a": Value(string_val="x"), "b": value})
    assert pack(moment.replace(tzinfo=None), {"b": value, "a": Value(string_val="x")}) == row
    assert pack(moment + US, {}) > row > pack(moment - US, {"b": value, "a": Value(string_val="y")})


def _key(number: int) -> EntityKey:
    return EntityKey(join_keys=["item"], entity_values=[Value(int64_val=number)])
