"""`seminar trace`: one event through Kafka, history, the online store and the dead letters, on real ones."""

import json
from pathlib import Path

import pytest

from cli import streams
from features.compaction import compact
from features.errors import SeminarError
from features.online import Online
from streaming import clients
from streaming.deadletters import FileSink
from streaming.events import BROWSE, IMPRESSION, ITEM, SEARCH, Message, build
from streaming.forget import forget
from streaming.importer import import_events
from streaming.producer import Delivery, Producer
from streaming.trace import trace

from .conftest import T0, caught_up, consuming, wait

EVENTS = {
    "s": build(SEARCH, {"user_id": "ann", "query": "red shoes"}, T0, "shop", "s"),
    "b": build(BROWSE, {"user_id": "ann", "item_id": "shoe", "search_id": "s"}, T0 + 1000, "shop", "b"),
    "p": build(
        IMPRESSION,
        {"user_id": "ann", "impression_id": "p1", "items": [{"item_id": "shoe", "position": 0}]},
        T0 + 500,
        "shop",
        "p",
    ),
    "i": build(ITEM, {"item_id": "shoe", "title": "Red shoe"}, T0, "shop", "i"),
}


@pytest.fixture
def places(bootstrap: str, home: Path) -> dict[str | None, Delivery]:
    """The events and others of the same user, consumed; and one that is not valid. Where Kafka put them."""
    told: dict[str | None, Delivery] = {}
    with Producer(bootstrap, "shop", on_delivery=lambda x: told.setdefault(x.event_id, x) and None) as producer:
        for event in EVENTS.values():
            producer.send(event)
        for i in range(50):
            producer.send(build(SEARCH, {"user_id": f"u{i}", "query": "x"}, T0 + i, "shop", f"other{i}"))
        producer.send(build(SEARCH, {"user_id": "ann", "query": "x"}, T0, "another", "s"))
        bad = [(name, b"bad" if name == "ce_id" else value) for name, value in EVENTS["s"].headers()]
        producer.send_raw("seminar.search", b"ann", b'{"user_id": "ann"}', bad, "bad")
    with consuming(bootstrap, home):
        wait(caught_up(bootstrap))
    return told


def test_an_event_is_found_everywhere(bootstrap: str, home: Path, places: dict[str | None, Delivery]) -> None:
    for event_id, event in EVENTS.items():
        found = trace(event_id, home, bootstrap, source="shop")
        place = places[event_id]
        (seen,) = found.kafka
        assert (seen.topic, seen.partition, seen.offset, seen.event) == (place.topic, place.partition, place.offset, event)
        assert found.messages_read == 56
        (row,) = found.history
        assert row.origin == f"{place.topic}/{place.partition}/{place.offset}"
        assert (home / row.file).is_file()
        assert row.kind == event.type
        assert found.dead_letters == []
        if event_id == "p":
            assert (found.online, found.notes) == ([], ["not online: an impression never enters a sequence"])
        else:
            assert (len(found.online), found.notes) == (1, [])
    assert trace("b", home, bootstrap).online == ["in the sequence of ann, with 3 records"]


def test_a_key_names_its_partition(bootstrap: str, home: Path, places: dict[str | None, Delivery]) -> None:
    found = trace("b", home, bootstrap, user="ann")
    assert [x.offset for x in found.kafka] == [places["b"].offset]
    assert 4 <= found.messages_read < 40
    other = next(f"u{i}" for i in range(50) if places[f"other{i}"].partition != places["s"].partition)
    assert trace("s", home, bootstrap, user=other).kafka == []


def test_two_sources_may_use_one_id(bootstrap: str, home: Path, places: dict[str | None, Delivery]) -> None:
    assert len(places) == 55, "two events share an id"
    assert len(trace("s", home, bootstrap).kafka) == len(trace("s", home, bootstrap).history) == 2
    assert len(trace("s", home, bootstrap, source="another").kafka) == 1
    nothing = trace("s", home, bootstrap, source="a third")
    assert not nothing.anywhere
    assert "56 messages were read (every partition)" in nothing.notes[0]


def test_a_refused_event_is_among_the_dead_letters(bootstrap: str, home: Path, places: dict[str | None, Delivery]) -> None:
    found = trace("bad", home, bootstrap)
    (letter,) = found.dead_letters
    place = places["bad"]
    assert letter["origin"] == f"{place.topic}/{place.partition}/{place.offset}"
    assert (letter["where"], letter["field"]) == ("Kafka", "data")
    assert "query" in letter["reason"]
    assert "query" in found.kafka[0].problem
    assert found.history == []
    bad = Message("import:x", 0, 0, b"ann", b"{}", dict(EVENTS["s"].headers()) | {"ce_id": b"worse"})
    import_events("x", [bad], Online(), home, FileSink(home))
    assert [x["where"] for x in trace("worse", home, bootstrap).dead_letters] == ["file"]


def test_when_kafka_has_removed_it(bootstrap: str, home: Path, places: dict[str | None, Delivery]) -> None:
    """History and the online sequence are searched by the digest of source and id, before and after compaction."""
    admin = clients.admin(bootstrap)
    admin.delete_topics(["seminar.browse", "seminar.search"])
    admin.close()
    found = trace("b", home, bootstrap)
    assert not found.anywhere
    assert any("2 messages were read" in note and "retention" in note for note in found.notes)
    assert any("name the source" in note for note in found.notes)
    for step in (lambda: None, lambda: compact(home)):
        step()
        found = trace("b", home, bootstrap, source="shop")
        (row,) = found.history
        assert (row.user, row.kind, row.by) == ("ann", "browse", "digest")
        assert row.origin == f"{places['b'].topic}/{places['b'].partition}/{places['b'].offset}"
        assert (home / row.file).is_file()
        assert found.online == ["in the sequence of ann by its digest, with 3 records"]
    assert "compact" in row.file
    assert trace("b", home, None, source="shop", user="ann").history[0].by == "user and digest"
    assert not trace("b", home, None, source="shop", user="bob").history


def test_why_it_is_not_online(bootstrap: str, home: Path, places: dict[str | None, Delivery]) -> None:
    late = build(SEARCH, {"user_id": "ann", "query": "later"}, T0 + 9000, "shop", "late")
    with Producer(bootstrap, "shop") as producer:
        producer.send(late)
    notes = trace("late", home, bootstrap).notes
    assert any("group seminar has not come to it" in note for note in notes)
    assert any(note.startswith("not in history: no search of ann") for note in notes)
    assert any("group nobody has not come to it" in n for n in trace("late", home, bootstrap, group="nobody").notes)
    forget("ann", Online(), home, None)
    found = trace("b", home, bootstrap)
    assert found.online == found.history == []
    assert any("ann was forgotten up to" in note for note in found.notes)
    assert any(note.startswith("not in history") for note in found.notes)


def test_without_a_home(bootstrap: str, tmp_path: Path) -> None:
    with Producer(bootstrap, "shop") as producer:
        producer.send(EVENTS["s"])
    found = trace("s", tmp_path / "nothing", bootstrap)
    assert len(found.kafka) == 1
    assert any("neither history nor an online store" in note for note in found.notes)


def test_the_command(
    bootstrap: str, home: Path, places: dict[str | None, Delivery], capsys: pytest.CaptureFixture[str]
) -> None:
    streams.trace("b", bootstrap=bootstrap, as_json=True)
    facts = json.loads(capsys.readouterr().out)
    assert facts["history"][0]["file"].startswith("history/events/date=2017-07-14/")
    assert facts["kafka"][0]["offset"] == places["b"].offset
    with pytest.raises(SeminarError, match="'none' was found nowhere"):
        streams.trace("none", bootstrap=bootstrap)
    assert "56 messages of Kafka were read" in capsys.readouterr().out
