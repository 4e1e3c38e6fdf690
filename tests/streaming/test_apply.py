"""The one function that applies batches: its steps, and that repeats and orders change nothing."""

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features import history
from features.online import Online
from features.parity import compare
from features.record import KIND_BROWSE, KIND_SEARCH, entity_id, event_digest
from features.repository import apply as register
from streaming.apply import Applied, Applier
from streaming.events import BROWSE, IMPRESSION, ITEM, SEARCH, Event, Message, build

from .conftest import T0, KeptLetters, message


def messages(*events: Event) -> list[Message]:
    return [event.message("t", 0, i) for i, event in enumerate(events)]


def test_records_entities_and_history_of_a_batch(home: Path, kept: KeptLetters) -> None:
    online = Online()
    batch = messages(
        build(SEARCH, {"user_id": "u", "query": " Red  SHOES "}, T0, "s", "1"),
        build(BROWSE, {"user_id": "u", "item_id": "i", "dwell_s": 80_000, "query": "red shoes"}, T0 + 1, "s", "2"),
        build(BROWSE, {"user_id": "v", "item_id": "j"}, T0 + 2, "s", "3"),
        build(IMPRESSION, {"user_id": "u", "impression_id": "x", "items": [{"item_id": "i", "position": 3}]}, T0, "s"),
        build(ITEM, {"item_id": "i", "title": "Shoe", "attributes": {"c": "é"}, "text_vector": [0.5]}, T0, "s"),
    )
    result = Applier(online, home, kept).apply(batch)
    assert result.counts == {SEARCH: 1, BROWSE: 2, IMPRESSION: 1, ITEM: 1}
    assert (result.accepted, result.rejected) == (5, 0)

    red = entity_id("red shoes")
    records, _ = online.sequence("u") or pytest.fail("u has no sequence")
    assert records.tolist() == [
        (T0, 0, red, event_digest("s", "1"), 0, KIND_SEARCH, 0),
        (T0 + 1, entity_id("i"), red, event_digest("s", "2"), 65535, KIND_BROWSE, 0),
    ]
    assert online.queries([red]) == ["red shoes"]
    (item,) = online.items([entity_id("i")])
    assert item
    assert (item["title"], json.loads(item["attributes"])) == ("Shoe", {"c": "é"})
    assert np.frombuffer(item["text_vector"], np.float32).tolist() == [0.5]
    (shown,) = history.read_impressions(home).to_pylist()
    assert (shown["impression_id"], shown["positions"], shown["query"]) == ("x", [3], 0)
    assert history.read_queries(home)["text"].to_pylist() == ["red shoes"]
    assert compare(online, home)["edit_distance"] == 0


def test_bad_messages_are_set_aside_and_the_others_applied(home: Path, kept: KeptLetters) -> None:
    batch = [message(0), Message("t", 0, 1, b"u", b"{}", {}), Message("t", 0, 2, None, None, {}), message(3)]
    result = Applier(Online(), home, kept).apply(batch)
    assert (result.accepted, result.rejected) == (2, 2)
    assert [letter.offset for letter, _ in kept.letters] == [1, 2]
    assert [invalid.field for _, invalid in kept.letters] == ["ce_type", "ce_type"]


def test_nothing_is_written_before_dead_letters_are_safe(home: Path) -> None:
    class Away:
        def send(self, rejected: Any) -> None:
            raise OSError("the broker is away")

    with pytest.raises(OSError, match="away"):
        Applier(Online(), home, Away()).apply([message(0), Message("t", 0, 1, None, None, {})])
    assert len(history.read(home, history.EVENTS)) == 0
    assert Online().sequence(message(0).key.decode()) is None  # type: ignore[union-attr]


def test_the_steps_come_in_their_order(home: Path, kept: KeptLetters) -> None:
    online, seen = Online(), list[tuple[str, int, bool]]()
    user = message(0).key.decode()  # type: ignore[union-attr]

    def step(name: str) -> None:
        seen.append((name, len(history.read(home, history.EVENTS)), online.sequence(user) is not None))

    Applier(online, home, kept, step).apply([message(0)])
    assert seen == [
        ("validate", 0, False),
        ("dead_letters", 0, False),
        ("entities", 0, False),
        ("history", 1, False),
        ("online", 1, True),
    ]


@pytest.mark.parametrize("gap", ["validate", "dead_letters", "entities", "history", "online"])
def test_a_batch_that_failed_in_any_gap_is_made_up_for(home: Path, kept: KeptLetters, gap: str) -> None:
    online, failures = Online(), iter([True])

    def step(name: str) -> None:
        if name == gap and next(failures, False):
            raise OSError("away")

    applier = Applier(online, home, kept, step)
    batch = [message(i) for i in range(50)]
    with pytest.raises(OSError, match="away"):
        applier.apply(batch)
    applier.apply(batch)
    assert len(history.read_sequences(home).records) == 50
    assert compare(online, home)["edit_distance"] == 0
    texts = set(history.read_queries(home)["text"].to_pylist())
    assert texts == {f"query {i % 7}" for i in range(0, 50, 3)}
    assert set(online.queries([entity_id(text) for text in texts])) == texts


def test_a_batch_read_again_lands_in_the_same_files(home: Path, kept: KeptLetters) -> None:
    batch = [message(i) for i in range(50)]
    Applier(Online(), home, kept).apply(batch)
    files = sorted(home.glob("history/*/*/*.parquet"))
    Applier(Online(), home, kept).apply(batch[::-1])
    assert sorted(home.glob("history/*/*/*.parquet")) == files


def test_the_name_of_a_batch_does_not_depend_on_the_clock(home: Path, kept: KeptLetters, monkeypatch: Any) -> None:
    """A time that is too far ahead now is valid when the batch is read again tomorrow."""
    batch = [message(0), message(3)]
    monkeypatch.setattr("streaming.events.SKEW_MS", T0 + 1500 - int(time.time() * 1000))
    Applier(Online(), home, kept).apply(batch)
    assert len(kept.letters) == 1
    monkeypatch.undo()
    monkeypatch.setenv("SEMINAR_HOME", str(home))
    Applier(Online(), home, kept).apply(batch)
    Applier(Online(), home, kept).apply(batch)
    assert len(list(home.glob("history/events/*/*.parquet"))) == 1


def test_every_version_of_an_item_is_in_history_and_the_newest_online(home: Path, kept: KeptLetters) -> None:
    online = Online()
    versions = [build(ITEM, {"item_id": "i", "title": f"v{t}"}, T0 + t, "s") for t in (2, 0, 1)]
    Applier(online, home, kept).apply(messages(*versions))
    (item,) = online.items([entity_id("i")])
    assert item
    assert item["title"] == "v2"
    titles = [history.read_items(home, until_ms=T0 + t + 1)["title"].to_pylist() for t in (0, 1, 2)]
    assert titles == [["v0"], ["v1"], ["v2"]]


def test_a_query_is_written_once(home: Path, kept: KeptLetters) -> None:
    applier = Applier(Online(), home, kept)
    for i in range(4):
        event = build(SEARCH, {"user_id": "u", "query": "a"}, T0 + i, "s", str(i))
        applier.apply([event.message("t", 0, i)])
    assert len(history.read(home, history.QUERIES)) == 1


def test_sums() -> None:
    total = Applied({SEARCH: 1}, 1, {"validate": 0.5})
    total += Applied({SEARCH: 2, ITEM: 3}, 1, {"validate": 0.5, "online": 1})
    assert total == Applied({SEARCH: 3, ITEM: 3}, 2, {"validate": 1.0, "online": 1})


def contents(home: Path, online: Online) -> tuple[Any, ...]:
    """All that readers can see, without arrival times."""
    stored = history.read_sequences(home)
    served = [online.sequence(user) for user in stored.user_ids]
    queries: pa.Table = history.read_queries(home)
    return (
        stored.user_ids,
        stored.records.tobytes(),
        [found[0].tobytes() for found in served if found],
        queries.select(["query", "text"]).to_pydict(),
        online.queries([entity_id(text) for text in queries["text"].to_pylist()]),
    )


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_cut_order_and_repetition_of_batches_gives_the_same(data: st.DataObject, monkeypatch: Any) -> None:
    stream = [message(i) for i in range(40)]
    bounds = st.tuples(st.integers(0, 39), st.integers(1, 40))
    batches = [stream[a : a + n] for a, n in data.draw(st.lists(bounds, max_size=5))]
    batches += [stream[i : i + 10] for i in range(0, 40, 10)]  # at least once each
    results = []
    for plan in ([stream], data.draw(st.permutations(batches))):
        with tempfile.TemporaryDirectory() as folder:
            monkeypatch.setenv("SEMINAR_HOME", folder)
            register()
            online, kept = Online(), KeptLetters()
            appliers = [Applier(online, Path(folder), kept) for _ in range(2)]  # two members of a group
            for n, batch in enumerate(plan):
                appliers[n % 2].apply(batch)
            results.append(contents(Path(folder), online))
    assert results[0] == results[1]
