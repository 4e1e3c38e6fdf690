"""Dead letters redriven: those that are applied are taken back, the others stay; from Kafka and from a file."""

import json
from pathlib import Path

import pytest

from features import history
from features.errors import SeminarError
from features.online import Online
from streaming.apply import Applier
from streaming.deadletters import FileSink, KafkaSink, letters_in_file, letters_in_kafka
from streaming.events import Message
from streaming.redrive import Box, read_repaired, redrive, write_letters

from .conftest import event


def bad(offset: int, **changes: object) -> Message:
    good = event(0)
    body = json.dumps({**good.data, **changes}).encode()
    return Message("seminar.search", 1, offset, good.key.encode(), body, dict(good.headers()))


@pytest.fixture(params=["kafka", "file"])
def box(request: pytest.FixtureRequest, home: Path) -> object:
    if request.param == "file":
        yield FileSink(home), lambda: letters_in_file(home)
        return
    bootstrap = request.getfixturevalue("bootstrap")
    sink = KafkaSink(bootstrap)
    yield sink, lambda: letters_in_kafka(bootstrap)
    sink.close()


def test_repaired_letters_are_applied_and_taken_back(box: tuple[Box, object], home: Path, tmp_path: Path) -> None:
    sink, letters = box
    Applier(Online(), home, sink).apply([bad(0, query=""), bad(1, query=5), bad(2, user_id="other")])
    assert [x.field for x in letters()] == ["query", "query", "key"]
    file = tmp_path / "letters.jsonl"
    assert write_letters(letters(), file) == 3
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    lines[0]["data"]["query"] = "shoes"
    file.write_text("\n".join(json.dumps(line) for line in lines[:2]))
    repaired = dict(read_repaired(file, letters()))
    chosen = [(x, sink) for x in letters() if x.key in repaired]
    done = redrive(chosen, Online(), home, repaired)
    assert (done["redriven"], [x["field"] for x in done["refused"]]) == (1, ["query"])
    assert [x.origin for x in letters()] == ["seminar.search/1/1", "seminar.search/1/2"]
    stored = history.read(home, history.EVENTS)
    assert stored["offset"].to_pylist() == [0]
    served = Online().sequence("user-0")
    assert served
    assert len(served[0]) == 1


def test_all_letters_as_they_came(box: tuple[Box, object], home: Path) -> None:
    """What was refused by a rule that holds no more, say a clock that was a day slow, is taken now."""
    sink, letters = box
    good = bad(7)
    Applier(Online(), home, sink).apply([bad(3, query="")])
    from streaming.events import Invalid

    sink.send([(good, Invalid("ce_time", "x", "was in the future"))])
    done = redrive([(x, sink) for x in letters()], Online(), home)
    assert (done["redriven"], len(done["refused"])) == (1, 1)
    assert [x.origin for x in letters()] == ["seminar.search/1/3"]
    assert redrive([(x, sink) for x in letters()], Online(), home)["redriven"] == 0


def test_a_line_without_its_letter_is_named(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "letters.jsonl"
    file.write_text('{"key": "a/0/1#00", "data": {}}\n')
    with pytest.raises(SeminarError, match="is no dead letter"):
        dict(read_repaired(file, []))
    file.write_text("{}\n")
    with pytest.raises(SeminarError, match="has no `key`"):
        dict(read_repaired(file, []))


def test_bytes_that_are_no_text_come_back_from_the_file(home: Path) -> None:
    raw = Message("import:f", 0, 3, b"\xffkey", b"\xfe\x00body", {"ce_id": b"\x80"})
    Applier(Online(), home, FileSink(home)).apply([raw])
    (letter,) = letters_in_file(home)
    assert letter.message == raw
