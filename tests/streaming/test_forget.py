"""Forgetting: raw bytes of every file are searched, and Kafka is read again from the beginning afterwards."""

import struct
import threading
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from features import history
from features.fences import fences, pending
from features.online import Online
from features.parity import compare
from features.record import entity_id, query_text
from streaming import forget as forgets
from streaming.apply import Applier
from streaming.deadletters import FileSink, KafkaSink, letters_in_file, letters_in_kafka
from streaming.events import BROWSE, IMPRESSION, SEARCH, Event, build
from streaming.positions import Position
from streaming.producer import Producer
from streaming.replay import from_history, from_kafka
from streaming.topics import topic_of

from .conftest import T0, KeptLetters, caught_up, consuming, wait

SECRET, SHARED = "a rare illness", "brown shoes"


def events(user: str, query: str = SECRET) -> list[Event]:
    shown = [{"item_id": "pill", "position": 0}]
    return [
        build(SEARCH, {"user_id": user, "query": query}, T0, "test"),
        build(SEARCH, {"user_id": user, "query": SHARED}, T0 + 1, "test"),
        *[build(BROWSE, {"user_id": user, "item_id": f"pill-{user}-{i}"}, T0 + 2 + i, "test") for i in range(300)],
        build(IMPRESSION, {"user_id": user, "impression_id": f"imp-{user}", "items": shown}, T0 + 3, "test"),
    ]


def traces(home: Path, user: str) -> list[bytes]:
    """What of a user must be in no file: items, texts, ids of the user's own behaviour as they lie in records."""
    items = [struct.pack("<Q", entity_id(f"pill-{user}-{i}")) for i in range(300)]
    return [SECRET.encode(), struct.pack("<Q", entity_id(query_text(SECRET))), f"imp-{user}".encode(), *items]


def found_in(home: Path, needles: list[bytes]) -> set[str]:
    hits = set()
    for file in home.rglob("*"):
        if file.is_file():
            raw = file.read_bytes()
            if file.suffix == ".parquet":  # its pages are compressed: what a reader sees counts, and so do the statistics
                table = history.pq.read_table(file, partitioning=None)
                raw += (
                    repr(table.to_pylist()).encode() + b"".join(x for x in table["sequence"].to_pylist())
                    if "sequence" in table.column_names
                    else repr(table.to_pylist()).encode()
                )
            hits |= {str(file.relative_to(home)) for needle in needles if needle in raw}
    return hits


def fill(home: Path) -> Online:
    online = Online()
    applier = Applier(online, home, FileSink(home))
    every = [*events("ann"), *events("bob", "red shoes")]
    applier.apply([x.message(topic_of(x.type), 0, i) for i, x in enumerate(every)])
    bad = build(SEARCH, {"user_id": "ann", "query": SECRET}, T0, "test").message("seminar.search", 0, 9999)
    applier.apply([type(bad)(bad.topic, 0, 9999, b"nobody", bad.value, bad.headers)])
    return online


def test_raw_bytes_of_every_file(home: Path) -> None:
    online = fill(home)
    (home / "lists").mkdir()
    for user in ("ann", "bob"):
        np.savez(home / "lists" / f"search-{user}.npz", user=np.array([user]), items=np.array([entity_id(f"pill-{user}-1")]))
    assert len(found_in(home, traces(home, "ann"))) >= 5, "database, events, queries, impressions, dead letters, lists"
    receipt = forgets.forget("ann", online, home, None)
    assert (receipt["rows"], receipt["query_texts"], receipt["dead_letters"]) == (303, 1, 1)
    assert found_in(home, traces(home, "ann")) == set()
    assert [file.name for file in (home / "lists").iterdir()] == ["search-bob.npz"]
    assert online.queries([entity_id(SECRET), entity_id(SHARED)]) == [None, SHARED], "a text that others issued stays"
    served, other = online.sequence("ann"), online.sequence("bob")
    assert served
    assert other
    assert (len(served[0]), served[1]) == (0, fences(home).of("ann"))
    assert len(other[0]) == 302
    assert letters_in_file(home) == []
    assert pending(home) == {}
    assert history.read_sequences(home).user_ids == ["bob"]
    assert history.read_impressions(home)["user_id"].to_pylist() == ["bob"]
    assert compare(online, home)["edit_distance"] == 0


def test_nothing_comes_back_by_any_way(home: Path) -> None:
    online = fill(home)
    forgets.forget("ann", online, home, None)
    applier = Applier(online, home, FileSink(home))
    done = applier.apply([x.message(topic_of(x.type), 0, i) for i, x in enumerate(events("ann"))])
    assert (done.forgotten, done.accepted) == (303, 0)
    from_history(online, home)
    assert found_in(home, traces(home, "ann")) == set()
    fence = fences(home).of("ann")
    online.append({"ann": history.read_sequences(home).of(0)})  # a zombie's append of older records
    served = online.sequence("ann")
    assert served
    assert len(served[0]) == 0
    assert served[1] == fence


def test_a_text_that_was_erased_is_written_again_for_somebody_else(home: Path) -> None:
    online = fill(home)
    applier = Applier(online, home, FileSink(home))
    applier.apply([x.message(topic_of(x.type), 1, i) for i, x in enumerate(events("ann"))])
    forgets.forget("ann", online, home, None)
    again = build(SEARCH, {"user_id": "cid", "query": SECRET}, T0, "test")
    applier.apply([again.message("seminar.search", 2, 0)])
    assert online.queries([entity_id(SECRET)]) == [SECRET]
    assert SECRET in history.read_queries(home)["text"].to_pylist()


def test_a_batch_in_hand_is_waited_for(home: Path) -> None:
    """It read its fences before; what it writes afterwards is erased all the same."""
    online, held, release = Online(), threading.Event(), threading.Event()

    def step(name: str) -> None:
        if name == "validate":
            held.set()
            release.wait(30)

    messages = [x.message(topic_of(x.type), 0, i) for i, x in enumerate(events("ann"))]
    batch = threading.Thread(target=lambda: Applier(online, home, FileSink(home), step).apply(messages))
    batch.start()
    assert held.wait(30)
    asked = threading.Thread(target=lambda: forgets.forget("ann", Online(), home, None))
    asked.start()
    asked.join(0.3)
    assert asked.is_alive()
    release.set()
    batch.join(30)
    asked.join(30)
    assert found_in(home, traces(home, "ann")) == set()


def test_a_crash_in_the_middle_is_finished_later(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    online = fill(home)
    monkeypatch.setattr(forgets, "erase_queries", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        forgets.forget("ann", online, home, None)
    monkeypatch.undo()
    monkeypatch.setenv("SEMINAR_HOME", str(home))
    assert len(pending(home)) == 1
    forgets.finish(Online(), home, None)
    assert pending(home) == {}
    assert found_in(home, traces(home, "ann")) == set()


def test_a_forget_event_and_a_replay_from_the_beginning(bootstrap: str, home: Path) -> None:
    with Producer(bootstrap, "test") as producer:
        for x in [*events("ann"), *events("bob", "red shoes")]:
            producer.send(x)
        producer.send_raw("seminar.search", b"ann", b'{"user_id": "ann", "query": ""}', events("ann")[0].headers())
    with consuming(bootstrap, home):
        wait(caught_up(bootstrap))
        assert len(letters_in_kafka(bootstrap)) == 1
        with Producer(bootstrap, "test") as producer:
            producer.forget("ann", datetime.now(UTC))
        wait(lambda: bool(pending(home)) and caught_up(bootstrap)())
        served = Online().sequence("ann")
        assert served
        assert len(served[0]) == 0
        receipt = forgets.finish(Online(), home, bootstrap)
        assert receipt["dead_letters"] == 1
    assert letters_in_kafka(bootstrap) == []
    sink = KafkaSink(bootstrap)
    total = from_kafka(bootstrap, Position(), Online(), home, sink)
    sink.close()
    assert (total.forgotten, total.rejected) == (304, 0)
    assert {file for file in found_in(home, traces(home, "ann")) if not file.startswith("broker")} == set()
    assert compare(Online(), home)["edit_distance"] == 0


def test_a_tombstone_forgets(home: Path, kept: KeptLetters) -> None:
    applier = Applier(Online(), home, kept)
    asked = build("forget", {"user_id": "ann"}, T0 + 1000, "test").message("seminar.forget", 0, 0)
    tombstone = type(asked)(asked.topic, 0, 0, asked.key, None, asked.headers)
    applier.apply([*[x.message(topic_of(x.type), 0, i) for i, x in enumerate(events("ann"))], tombstone])
    assert kept.letters == []
    served = Online().sequence("ann")
    assert served
    assert len(served[0]) == 0
    assert len(pending(home)) == 1
