"""Bulk import: the same `apply`, no broker; a repeated import changes nothing."""

import json
from pathlib import Path

import pytest

from features import history
from features.errors import SeminarError
from features.online import Online
from features.parity import compare
from streaming.deadletters import FileSink
from streaming.importer import import_events, read_jsonl

from .conftest import event


def test_an_import_can_be_repeated(home: Path) -> None:
    online, done = Online(), list[int]()
    for _ in range(2):
        events = (event(i) for i in range(25))
        total = import_events("test", events, online, home, FileSink(home), batch=10, on_batch=done.append)
        assert (total.accepted, total.rejected) == (25, 0)
    assert done == [10, 10, 5] * 2
    assert len(history.read(home, history.EVENTS)) == len(history.read_sequences(home).records) == 25
    assert set(history.read(home, history.EVENTS)["topic"].to_pylist()) == {"import:test"}
    assert sorted(history.read(home, history.EVENTS)["offset"].to_pylist()) == list(range(25))
    assert compare(online, home)["edit_distance"] == 0


def structured(**changes: object) -> str:
    data = {"user_id": "u", "query": "a"}
    time = "2017-05-01T00:00:00Z"
    return json.dumps({"type": "seminar.search.v1", "source": "s", "id": "1", "time": time, "data": data} | changes)


def test_lines_of_a_file(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    bad = ["{not json", "[1]", "[" * 200_000, structured(id=None), structured(data=[]), structured(data={"user_id": 5})]
    bad += [structured(source="\ud800"), structured(data={"user_id": "\ud800", "query": "a"}), structured(time="now")]
    item = {"item_id": "i", "title": "Shoe"}
    good = [structured(), structured(type="seminar.item.v1", data=item)]
    file.write_text("\n\n".join([*bad, *good]) + "\n")
    sink = FileSink(home)
    total = import_events(file.name, read_jsonl(file), Online(), home, sink)
    letters = [json.loads(line) for line in sink.path.read_text().splitlines()]
    assert (total.counts, len(letters)) == ({"search": 1, "item": 1}, total.rejected)
    assert total.rejected == len(bad)
    assert {letter["dl_origin"].split("/")[0] for letter in letters} == {"import:events.jsonl"}


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(SeminarError, match="is no file"):
        list(read_jsonl(tmp_path / "none"))
