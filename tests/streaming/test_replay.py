"""An online store that was lost comes back from history; Kafka read again changes nothing."""

import shutil
import time
from pathlib import Path

import pytest

from features import history
from features.errors import SeminarError
from features.online import Online
from features.parity import compare
from features.record import entity_id, query_text
from features.repository import apply
from features.state import IdentityLost
from streaming.apply import Applier
from streaming.deadletters import KafkaSink, read_all
from streaming.events import ITEM, build
from streaming.positions import Position
from streaming.producer import Producer
from streaming.replay import from_history, from_kafka

from .conftest import T0, KeptLetters, caught_up, consuming, event, message, wait


def lose_the_store(home: Path) -> Online:
    for file in home.glob("online.db*"):
        file.unlink()
    apply()
    return Online()


def test_a_lost_store_comes_back_equal_with_items_and_texts(home: Path, kept: KeptLetters) -> None:
    versions = [build(ITEM, {"item_id": "item-1", "title": f"Shoe {i}"}, T0 + i, "test") for i in (2, 1)]
    Applier(Online(), home, kept).apply([message(i) for i in range(300)])
    Applier(Online(), home, kept).apply([x.message("seminar.item", 0, i) for i, x in enumerate(versions)])
    before = Online().sequences([f"user-{i}" for i in range(5)])
    online = lose_the_store(home)
    with pytest.raises(IdentityLost, match="replay --from history"):
        Applier(online, home, kept)
    built = from_history(online, home)
    assert built == {"users": 5, "records": 300, "items": 1, "queries": 7}
    for was, now in zip(before, online.sequences([f"user-{i}" for i in range(5)]), strict=True):
        assert was
        assert now
        assert was[0].tobytes() == now[0].tobytes()
    row = online.items([entity_id("item-1")])[0]
    assert row
    assert row["title"] == "Shoe 2"
    assert online.queries([entity_id(query_text("query 3"))]) == ["query 3"]
    Applier(online, home, kept).apply([message(i) for i in range(290, 310)])
    assert compare(online, home)["edit_distance"] == 0


def test_a_store_of_another_history_is_not_filled(home: Path, kept: KeptLetters) -> None:
    Applier(Online(), home, kept).apply([message(1)])
    (home / "history" / "IDENTITY").write_text("another\n")
    with pytest.raises(SeminarError, match="belongs to another history"):
        from_history(Online(), home)


def test_the_store_is_lost_under_a_running_consumer(bootstrap: str, home: Path) -> None:
    """It stops without a commit, and goes on after a replay: nothing is missing."""
    with Producer(bootstrap, "test") as producer:
        for i in range(100):
            producer.send(event(i))
    with pytest.raises(IdentityLost):
        lose_it_under_a_consumer(bootstrap, home)
    assert not caught_up(bootstrap)()
    from_history(Online(), home)
    with consuming(bootstrap, home):
        wait(caught_up(bootstrap))
    assert len(history.read_sequences(home).records) == 200
    assert compare(Online(), home)["edit_distance"] == 0


def lose_it_under_a_consumer(bootstrap: str, home: Path) -> None:
    with consuming(bootstrap, home) as result:
        wait(caught_up(bootstrap))
        lose_the_store(home)
        with Producer(bootstrap, "test") as producer:
            for i in range(100, 200):
                producer.send(event(i))
        wait(lambda: "failed" in result)


def test_reading_kafka_again_changes_nothing(bootstrap: str, home: Path) -> None:
    with Producer(bootstrap, "test") as producer:
        for i in range(120):
            producer.send(event(i))
        producer.send_raw("seminar.search", b"u", b"not json", event(0).headers())
    with consuming(bootstrap, home):
        wait(caught_up(bootstrap))
        sink = KafkaSink(bootstrap)
        total = from_kafka(bootstrap, Position(), Online(), home, sink)
        sink.close()
    assert (total.accepted, total.rejected) == (120, 1)
    assert len(history.read_sequences(home).records) == 120
    assert compare(Online(), home)["edit_distance"] == 0
    assert len(list(read_all(bootstrap))) == 1


def test_backup_and_restore_as_the_documents_say(bootstrap: str, home: Path, tmp_path: Path) -> None:
    """A copy of history taken while events flow, and Kafka from a little before it."""
    with Producer(bootstrap, "test") as producer:
        for i in range(100):
            producer.send(event(i))
    with consuming(bootstrap, home):
        wait(caught_up(bootstrap))
        began = int(time.time() * 1000) - 60_000
        with Producer(bootstrap, "test") as producer:
            for i in range(100, 200):
                producer.send(event(i))
                if i == 150:
                    producer.flush()
                    shutil.copytree(home / "history", tmp_path / "backup", ignore=shutil.ignore_patterns("*.tmp"))
        wait(caught_up(bootstrap))
    before = Online().sequences([f"user-{i}" for i in range(5)])
    shutil.rmtree(home / "history")
    shutil.copytree(tmp_path / "backup", home / "history")
    online = lose_the_store(home)
    from_history(online, home)
    sink = KafkaSink(bootstrap)
    from_kafka(bootstrap, Position(began), online, home, sink)
    sink.close()
    assert len(history.read_sequences(home).records) == 200
    assert compare(online, home)["edit_distance"] == 0
    after = online.sequences([f"user-{i}" for i in range(5)])
    assert [x and x[0].tobytes() for x in before] == [x and x[0].tobytes() for x in after]
