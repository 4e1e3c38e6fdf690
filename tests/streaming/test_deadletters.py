"""Dead letters keep the message, its origin and the reason; none of them can block its partition."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from features.settings import REPOSITORY
from streaming.broker import EmbeddedBroker
from streaming.deadletters import FileSink, KafkaSink, dates, letters_in_file, read_all
from streaming.events import Invalid, Message, parse


def test_a_letter_comes_back_with_its_origin_and_reason(bootstrap: str) -> None:
    sink = KafkaSink(bootstrap)
    message = Message("seminar.search", 3, 7, b"u", b"\xffbody", {"ce_id": b"1"})
    sink.send([(message, Invalid("data", message.value, "is not JSON"))])
    sink.close()
    (letter,) = read_all(bootstrap)
    assert letter["origin"] == "seminar.search/3/7"
    assert (letter["field"], letter["reason"], letter["key"]) == ("data", "is not JSON", "u")
    assert letter["body"].endswith("body")


@pytest.mark.parametrize(
    "message",
    [
        Message("t", 0, 0, None, None, {}),
        Message("t", 0, 0, b"\xff" * 5000, b"", {"ce_id": None}),  # type: ignore[dict-item]
        Message("t", 0, 0, b"u", b"x" * 1_040_000, {}),
        Message("t", 0, 0, b"u", b"x" * 900_000, {f"h{i}": b"y" * 1000 for i in range(100)}),
    ],
)
def test_whatever_came_can_be_sent(bootstrap: str, message: Message) -> None:
    sink = KafkaSink(bootstrap)
    with pytest.raises(Invalid) as caught:
        parse(message)
    sink.send([(message, caught.value), (message, Invalid("a\ud800" * 9999, "\ud800", "\ud800" * 9999))])
    sink.close()
    letters = list(read_all(bootstrap))
    assert len(letters) == 1, "one message has one letter: the last"
    size, kept = len(message.value or b""), len(letters[0]["body"])
    assert letters[0]["reason"].startswith("\\ud800")
    assert kept == size or (kept >= 500_000 and letters[0]["truncated_from"] == size)


def test_none_and_no_topic(bootstrap: str, tmp_path: Path) -> None:
    assert list(read_all(bootstrap)) == []
    with EmbeddedBroker(tmp_path / "bare") as bare:
        assert list(read_all(bare.bootstrap)) == []


def test_a_line_that_was_torn_costs_no_other(tmp_path: Path) -> None:
    sink = FileSink(tmp_path)
    rejected = [(Message("t", 0, i, b"k", b"body", {}), Invalid("query", "", "is empty")) for i in range(3)]
    sink.send(rejected[:1])
    with sink.path.open("a") as file:
        file.write('{"key": "t/0/1#00", "dl_or')  # a writer was killed
    assert [x.message.offset for x in letters_in_file(tmp_path)] == [0]
    sink.send(rejected[2:])
    assert [x.message.offset for x in letters_in_file(tmp_path)] == [0, 2]


FULL = """
import resource, sys
from pathlib import Path
from streaming.deadletters import FileSink
from streaming.events import Invalid, Message
sink = FileSink(Path(sys.argv[1]))
size = sink.path.stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 50, size + 50))
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
sink.send([(Message("t", 0, 1, b"k", b"body", {}), Invalid("query", "", "is empty"))])
"""


def test_a_full_disk_leaves_no_half_a_line(tmp_path: Path) -> None:
    sink = FileSink(tmp_path)
    sink.send([(Message("t", 0, 0, b"k", b"body", {}), Invalid("query", "", "is empty"))])
    before = sink.path.read_bytes()
    ran = subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, cwd=REPOSITORY)
    assert "File too large" in ran.stderr
    assert sink.path.read_bytes() == before


def test_a_time_that_utc_does_not_have_is_of_no_date(tmp_path: Path) -> None:
    headers = {"ce_time": b"0001-01-01T00:00:00+08:00"}
    FileSink(tmp_path).send([(Message("t", 0, 0, b"k", b"{}", headers), Invalid("ce_time", "", "is before 1970"))])
    assert dates(tmp_path, None) == {}


def test_a_file_takes_letters_without_a_broker(tmp_path: Path) -> None:
    sink = FileSink(tmp_path)
    for offset in range(2):
        sink.send([(Message("import:f", 0, offset, None, b"\xff", {}), Invalid("x", "\ud800", "is bad"))])
    lines = [json.loads(line) for line in sink.path.read_text().splitlines()]
    assert [line["dl_origin"] for line in lines] == ["import:f/0/0", "import:f/0/1"]
    assert lines[0]["dl_reason"] == "is bad"
