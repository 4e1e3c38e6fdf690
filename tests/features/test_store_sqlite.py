import multiprocessing
import sqlite3
from pathlib import Path

import numpy as np

from features.online import Online
from features.record import RECORD, Records, encode, union
from features.repository import open_store
from features.store_sqlite import SLACK


def make(times: list[int], item: int = 1) -> Records:
    records = np.zeros(len(times), RECORD)
    records["time"] = times
    records["item"] = item
    return records


def test_append_is_a_union_whatever_the_order_and_the_repeats(home: Path) -> None:
    online, rng = Online(), np.random.default_rng(0)
    sent: list[Records] = []
    for _ in range(60):
        delta = make(list(rng.integers(0, 400, rng.integers(1, 30))), int(rng.integers(1, 3)))
        sent.append(delta)
        online.append({"u": delta})
        if rng.random() < 0.3:
            online.append({"u": sent[int(rng.integers(len(sent)))]})
    found = online.sequence("u")
    assert found is not None
    assert found[0].tobytes() == union(*sent).tobytes()
    assert online.sequence("nobody") is None


def test_a_row_that_only_repeats_does_not_grow(home: Path) -> None:
    online, delta = Online(), make(list(range(100)))
    for _ in range(SLACK // 50):
        online.append({"u": delta})
    with sqlite3.connect(home / "online.db") as connection:
        (stored,) = connection.execute("select records from seminar_user_sequence_head").fetchone()
    assert stored <= 100 + SLACK
    found = online.sequence("u")
    assert found is not None
    assert found[0].tobytes() == delta.tobytes()


def test_the_cap_of_the_view_keeps_the_newest(home: Path) -> None:
    online = Online()
    cap = 100_000
    online.append({"u": make(list(range(60_000)))})
    online.append({"u": make(list(range(60_000, cap + 5_000)))})
    found = online.sequence("u")
    assert found is not None
    assert found[0]["time"].tolist() == list(range(5_000, cap + 5_000))


def test_a_fence_in_a_delta_forgets_older_records_for_good(home: Path) -> None:
    online = Online()
    online.append({"u": make([1, 2, 3, 4])})
    store = open_store()
    import pandas as pd

    frame = pd.DataFrame(
        {
            "user_id": ["u"],
            "sequence": [encode(make([5]), fence=3)],
            "event_timestamp": [pd.Timestamp("2026-01-01", tz="UTC")],
        }
    )
    store.write_to_online_store("user_sequence", frame)
    online.append({"u": make([1, 2])})
    found = online.sequence("u")
    assert found is not None
    assert found[0]["time"].tolist() == [3, 4, 5]
    assert found[1] == 3


def _append(home: str, writer: int, rounds: int) -> None:
    import os

    os.environ["SEMINAR_HOME"] = home
    online = Online()
    for i in range(rounds):
        online.append({"u": make([i], item=writer + 1)})


def test_two_writing_processes_lose_nothing(home: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_append, args=(str(home), w, 150)) for w in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
        assert writer.exitcode == 0
    found = Online().sequence("u")
    assert found is not None
    assert len(found[0]) == 300


def test_stock_reads_see_the_sequence(home: Path) -> None:
    online, store = Online(), open_store()
    online.append({"u": make([2, 1])})
    row = {"user_id": "u", "item": 1, "query": 2}
    answer = store.get_online_features(store.get_feature_service("ctr_v1"), [row]).to_dict()
    assert answer["sequence"] == [encode(make([1, 2]))]
    assert answer["title"] == [None]


def test_teardown_removes_every_row(home: Path) -> None:
    Online().append({"u": make([1])})
    open_store().teardown()
    assert not (home / "online.db").exists()
