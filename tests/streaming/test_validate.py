"""`seminar validate`: each check passes on good events, and fails on the ones that it is for, with an example."""

import json
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli import streams
from features.errors import SeminarError
from features.online import Online
from streaming import validate as validation
from streaming.apply import Applier
from streaming.events import BROWSE, IMPRESSION, ITEM, SEARCH, Event, Message, build
from streaming.importer import read_jsonl
from streaming.producer import Producer
from streaming.validate import Limits, from_file, from_topics, validate

from .conftest import T0, KeptLetters


def search(i: int, user: str = "u", at: int = T0, source: str = "shop") -> Event:
    return build(SEARCH, {"user_id": user, "query": "red shoes"}, at, source, f"s{i}")


def browse(i: int, user: str = "u", at: int = T0 + 1000, item: str = "i", **more: Any) -> Event:
    return build(BROWSE, {"user_id": user, "item_id": item, **more}, at, "shop", f"b{i}")


def good(count: int = 50) -> list[Event]:
    """Searches, impressions and browses that join, and their items."""
    found = [build(ITEM, {"item_id": "i", "title": "Shoe"}, T0, "shop", "item")]
    for i in range(count):
        user, at = f"u{i % 7}", T0 + i * 10_000
        shown = {"user_id": user, "impression_id": f"p{i}", "items": [{"item_id": "i", "position": 0}]}
        found += [
            search(i, user, at),
            build(IMPRESSION, shown, at + 1, "shop", f"i{i}"),
            browse(i, user, at + 2, search_id=f"s{i}", impression_id=f"p{i}"),
        ]
    return found


def check(
    home: Path, events: list[Event], limits: Limits | None = None, stamps: int | None = None, **options: Any
) -> dict[str, dict[str, Any]]:
    messages = [
        (event.message("import:x", 0, i), None if stamps is None else event.time_ms + stamps)
        for i, event in enumerate(events)
    ]
    found = validate(messages, home, limits or Limits(), **options)
    assert found["messages"] == len(events)
    assert found["passed"] == all(c["status"] != "FAIL" for c in found["checks"])
    return {c["name"]: c for c in found["checks"]}


def failing(found: dict[str, dict[str, Any]]) -> list[str]:
    return [name for name, c in found.items() if c["status"] == "FAIL"]


def test_good_events_pass_every_check(tmp_path: Path) -> None:
    found = check(tmp_path, good(), stamps=500)
    assert {name: c["status"] for name, c in found.items()} == dict.fromkeys(found, "PASS")
    assert len(found) == 11
    assert all(c["examples"] == [] for c in found.values())
    assert (found["searched"]["found"], found["searched"]["of"]) == (50, 50)
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"


NOW = int(time.time() * 1000)


@pytest.mark.parametrize(
    ("more", "name", "words"),
    [
        ([search(0, "u0", T0 + 5)], "conflicts", "s0 of u0 has the source and id of an event with other content"),
        ([search(0, "u0"), search(0, "u0"), search(0, "u0"), search(0, "u0")], "duplicates", "s0 of u0 was there before"),
        ([search(100 + i, "u0", T0 + 9) for i in range(20)], "disorder", "489.993 s older than one before it"),
        ([search(100, "u", NOW + 6 * 3_600_000)], "ahead", "s ahead of now"),
        ([browse(100 + i, item="x") for i in range(3)], "unknown_items", "item x was not described"),
        ([browse(100 + i, search_id="none") for i in range(3)], "lost_searches", "search_id none is of no search"),
        ([browse(100 + i, search_id="s1") for i in range(3)], "lost_searches", "search_id s1 is of user u1"),
        ([browse(100 + i, impression_id="q") for i in range(3)], "lost_impressions", "impression_id q is of no impression"),
        ([browse(100 + i, impression_id="p2") for i in range(3)], "lost_impressions", "impression_id p2 is of user u2"),
    ],
)
def test_every_check_fails_on_what_it_is_for(tmp_path: Path, more: list[Event], name: str, words: str) -> None:
    found = check(tmp_path, good() + more)
    assert failing(found) == [name]
    assert any(words in example for example in found[name]["examples"]), found[name]["examples"]
    assert found[name]["examples"][0].startswith("line ")


def test_clocks_are_compared_with_kafkas(tmp_path: Path) -> None:
    assert failing(check(tmp_path, good(), stamps=90_000_000)) == ["late"]
    assert failing(check(tmp_path, good(), Limits(late_s=100_000), stamps=90_000_000)) == []
    assert failing(check(tmp_path, good(), stamps=-301_000)) == ["ahead"]
    assert failing(check(tmp_path, good(), Limits(ahead_s=400), stamps=-301_000)) == []
    assert check(tmp_path, good())["late"]["status"] == "SKIP"


def test_limits(tmp_path: Path) -> None:
    events = [*good(), browse(100, item="x", search_id="none")]
    assert failing(check(tmp_path, events)) == ["unknown_items", "lost_searches"]
    assert failing(check(tmp_path, events, Limits.parse(["unknown_items=0.02", "lost_searches=0.02"]))) == []
    assert failing(check(tmp_path, events, Limits.parse(["unknown_items=1", "lost_searches=1", "searched=0.99"]))) == [
        "searched"
    ]
    for wrong in ("nothing=1", "late", "late=2", "late=x", "late=-1", "late_s=-1"):
        with pytest.raises(SeminarError, match="limit"):
            Limits.parse([wrong])


def test_messages_that_are_no_events(tmp_path: Path) -> None:
    other = search(1000)
    messages = [
        *(event.message("import:x", 0, i) for i, event in enumerate(good())),
        Message("seminar.search", 2, 7, b"another", other.value(), dict(other.headers())),
        Message("seminar.search", 2, 8, b"u", b"{}", dict(other.headers())),
        Message("seminar.search", 2, 9, b"u", b"{", {}),
    ]
    found = {c["name"]: c for c in validate(from_file(messages), tmp_path, Limits())["checks"]}
    assert failing(found) == ["schema", "keys"]
    assert found["schema"]["found"] == 2
    assert found["keys"]["examples"] == ["seminar.search/2/7: key \"b'another'\" is not the user_id 'u'"]
    assert [example.split(":")[0] for example in found["schema"]["examples"]] == ["seminar.search/2/8", "seminar.search/2/9"]


def test_what_history_and_the_online_store_know_counts(home: Path) -> None:
    """Searches, impressions and items of earlier days are not in what is validated."""
    before, after = good(), [browse(500, "u1", T0 + 100_000, search_id="s1", impression_id="p1", query="x")]
    assert {c["status"] for name, c in check(home, after).items() if name in ("unknown_items", "lost_searches")} == {"SKIP"}
    Applier(Online(), home, KeptLetters()).apply([event.message("seminar.search", 0, i) for i, event in enumerate(before)])
    found = check(home, after)
    assert failing(found) == []
    assert {found[name]["status"] for name in ("unknown_items", "lost_searches", "lost_impressions", "searched")} == {"PASS"}
    assert found["searched"]["found"] == 1
    strangers = [browse(501, "u2", T0 + 100_000, search_id="s1", impression_id="p1")]
    assert failing(check(home, strangers)) == ["lost_searches", "lost_impressions"]
    for folder in (home / "history" / "items").iterdir():
        for file in folder.iterdir():
            file.unlink()
    assert check(home, after)["unknown_items"]["status"] == "SKIP"
    assert check(home, after, online=Online())["unknown_items"]["status"] == "PASS"
    assert failing(check(home, [browse(502, item="x"), *after], online=Online())) == ["unknown_items"]


def test_topics(bootstrap: str, tmp_path: Path) -> None:
    with Producer(bootstrap, "shop") as producer:
        for event in good():
            producer.send(event)
        producer.send(browse(100, item="x"))
    topics = ["seminar.search", "seminar.browse", "seminar.item", "seminar.impression"]
    limits = Limits(late=1)
    found = validate(from_topics(bootstrap, topics, "last=1h"), tmp_path, limits)
    assert [c["name"] for c in found["checks"] if c["status"] == "FAIL"] == ["unknown_items"]
    (example,) = next(c["examples"] for c in found["checks"] if c["name"] == "unknown_items")
    assert example.startswith("seminar.browse/")
    assert found["messages"] == 152
    late = next(c for c in found["checks"] if c["name"] == "late")
    assert late["found"] == late["of"] == 152
    found = validate(from_topics(bootstrap, ["seminar.browse"], "earliest"), tmp_path, limits)
    skipped = {c["name"]: c["note"] for c in found["checks"] if c["status"] == "SKIP"}
    assert "--topic seminar.search" in skipped["lost_searches"]
    with pytest.raises(SeminarError, match="were read"):
        validate(from_topics(bootstrap, topics, "last=0s"), tmp_path, limits)
    with pytest.raises(SeminarError, match="no-topic"):
        validate(from_topics(bootstrap, ["no-topic"], "earliest"), tmp_path, limits)


def test_memory_does_not_grow_with_the_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's own memory; the queries' is bounded by their engine."""
    monkeypatch.setattr(validation, "BATCH", 500)

    def peak(count: int) -> int:
        def events() -> Iterator[Message]:
            for i in range(count):
                yield browse(i, f"u{i}", item=f"i{i % 10}").message("import:x", 0, i)

        tracemalloc.start()
        validate(from_file(events()), tmp_path, Limits())
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(8_000) < 1.3 * peak(4_000)


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("SEMINAR_HOME", str(tmp_path / "var"))
    file = tmp_path / "events.jsonl"
    lines = [
        {
            "type": f"seminar.{e.type}.v1",
            "source": e.source,
            "id": e.id,
            "time": dict(e.headers())["ce_time"].decode(),
            "data": e.data,
        }
        for e in [*good(), browse(100, item="x")]
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert len(list(read_jsonl(file))) == 152
    with pytest.raises(SeminarError, match="'unknown_items' failed"):
        streams.validate(file, limit=["lost_searches=0.5"], as_json=True)
    out, err = capsys.readouterr()
    assert "line 152: event b100 of u: item x was not described" in err
    assert json.loads(out)["passed"] is False
    streams.validate(file, limit=["unknown_items=0.05"])
    out, _ = capsys.readouterr()
    assert "PASS" in out
    assert "FAIL" not in out
    for wrong in ({"file": None}, {"file": file, "topic": ["seminar.search"]}):
        with pytest.raises(SeminarError, match="exactly one is needed"):
            streams.validate(**wrong)
