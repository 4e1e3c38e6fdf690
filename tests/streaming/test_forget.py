"""Forgetting: raw bytes of every file are searched, and Kafka is read again from the beginning afterwards."""

import struct
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from features import history
from features.fences import fences, pending, raise_fence, user_hash
from features.online import Online
from features.parity import compare
from features.record import entity_id, query_text
from streaming import forget as forgets
from streaming.apply import Applier
from streaming.deadletters import FileSink, KafkaSink, letters_in_file, letters_in_kafka
from streaming.events import BROWSE, IMPRESSION, ITEM, SEARCH, Event, Message, build
from streaming.positions import Position
from streaming.producer import Producer
from streaming.replay import from_history, from_kafka
from streaming.topics import topic_of

from .conftest import T0, KeptLetters, caught_up, consuming, wait

NEVER = T0 + 10**12
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


def test_a_crash_before_the_row_online_is_finished_later(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    online = fill(home)
    monkeypatch.setattr(Online, "forget", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        forgets.forget("ann", online, home, None)
    assert len(pending(home)) == 1
    served = online.sequence("ann")
    assert served
    assert len(served[0]) == 302
    forgets.finish(online, home, None)
    served, other = online.sequence("ann"), online.sequence("bob")
    assert served
    assert other
    assert (len(served[0]), served[1], len(other[0])) == (0, fences(home).of("ann"), 302)
    assert found_in(home, traces(home, "ann")) == set()


def test_two_that_finish_at_once_leave_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One notes which texts its rows named just before the other, done with its own, throws the notes away."""
    online, rare = fill(home), "an even rarer illness"
    rows = [x.message(topic_of(x.type), 3, i) for i, x in enumerate(events("cid", rare))]
    Applier(online, home, FileSink(home)).apply(rows)
    begun, gap, noted = threading.Event(), threading.Event(), threading.Event()
    erase_rows, unused = forgets.erase_rows, forgets.unused

    def erasing(*given: Any) -> Any:
        if threading.current_thread() is second:
            begun.set()
            gap.wait(2)
            found = erase_rows(*given)
            noted.set()
            return found
        raise_fence(home, user_hash("cid"), NEVER)
        second.start()
        begun.wait(2)
        return erase_rows(*given)

    def looking(*given: Any) -> Any:
        if threading.current_thread() is not second:
            gap.set()
            noted.wait(2)
        return unused(*given)

    monkeypatch.setattr(forgets, "erase_rows", erasing)
    monkeypatch.setattr(forgets, "unused", looking)
    second = threading.Thread(target=lambda: forgets.finish(Online(), home, None))
    raise_fence(home, user_hash("ann"), NEVER)
    forgets.finish(online, home, None)
    second.join(60)
    assert pending(home) == {}
    assert rare not in history.read_queries(home)["text"].to_pylist()
    assert online.queries([entity_id(rare)]) == [None]


def test_a_text_is_written_again_after_a_forget_event_through_the_same_consumer(home: Path) -> None:
    online, sink = Online(), FileSink(home)
    applier = Applier(online, home, sink)
    applier.apply([x.message(topic_of(x.type), 0, i) for i, x in enumerate(events("ann"))])
    applier.apply([build("forget", {"user_id": "ann"}, T0 + 1000, "test").message("seminar.forget", 0, 0)])
    forgets.finish(online, home, None)
    again = build(SEARCH, {"user_id": "cid", "query": SECRET}, T0, "test")
    applier.apply([again.message("seminar.search", 2, 0)])
    assert online.queries([entity_id(SECRET)]) == [SECRET]
    assert SECRET in history.read_queries(home)["text"].to_pylist()


def test_refusals_of_another_time_or_of_items_stay(home: Path, kept: KeptLetters) -> None:
    """A user who was forgotten and came back: what was refused since is theirs to repair; item 7 is not user 7."""
    online = Online()
    raise_fence(home, user_hash("7"), T0)

    def refused(kind: str, ms: int, key: bytes, offset: int) -> Message:
        headers = (
            dict(build(kind, {"user_id": "7", "query": "x"}, ms, "test").headers())
            if kind == SEARCH
            else {**dict(build(SEARCH, {"user_id": "7", "query": "x"}, ms, "test").headers()), "ce_type": kind.encode()}
        )
        return Message("import:shop", 0, offset, key, b"{}", headers)

    batch = [refused(SEARCH, T0 - 5, b"7", 0), refused(SEARCH, T0 + 5, b"7", 1), refused(ITEM, T0 - 5, b"7", 2)]
    done = Applier(online, home, kept).apply(batch)
    assert ([letter.offset for letter, _ in kept.letters], done.forgotten) == ([1, 2], 1)
    FileSink(home).send(kept.letters)
    raise_fence(home, user_hash("7"), T0 + 10)
    forgets.finish(online, home, None)
    assert [letter.message.offset for letter in letters_in_file(home)] == [2]


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
