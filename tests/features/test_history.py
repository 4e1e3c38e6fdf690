from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from features import history
from features.record import RECORD, Records, entity_id, signed, union

DAY = 86_400_000


def events(user: str, records: Records) -> pa.Table:
    n = len(records)
    return pa.table(
        {
            "user_id": [user] * n,
            "event_timestamp": pa.array(records["time"].astype("int64") * 1000, pa.timestamp("us", "UTC")),
            "sequence": pa.array([r.tobytes() for r in records], pa.binary(32)),
            "topic": ["t"] * n,
            "partition": pa.array([0] * n, pa.int32()),
            "offset": list(range(n)),
            "arrived": [datetime.now(UTC)] * n,
        },
        schema=history.SCHEMAS["events"],
    )


def some(rng: np.random.Generator, n: int) -> Records:
    records = np.zeros(n, RECORD)
    records["time"] = rng.integers(0, 5 * DAY, n)
    records["item"] = rng.integers(1, 5, n)
    return records


def test_reading_is_the_union_of_overlapping_files(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    parts = {user: [some(rng, 50) for _ in range(3)] for user in ("b", "a", "c")}
    for user, pieces in parts.items():
        for i, piece in enumerate(pieces):
            history.write(tmp_path, "events", events(user, piece), f"{user}{i}")
            history.write(tmp_path, "events", events(user, piece[:20]), f"{user}{i}-again")
    found = history.read_sequences(tmp_path)
    assert found.user_ids == ["a", "b", "c"]
    for i, user in enumerate(found.user_ids):
        assert found.of(i).tobytes() == union(*parts[user]).tobytes()
    cut = history.read_sequences(tmp_path, until_ms=2 * DAY, users=["a"])
    assert cut.user_ids == ["a"]
    whole = union(*parts["a"])
    assert cut.of(0).tobytes() == whole[whole["time"] < 2 * DAY].tobytes()
    assert len(history.read_sequences(tmp_path, cap=10).of(1)) == 10


def test_partitions_are_the_events_dates_and_a_batch_lands_in_the_same_files(tmp_path: Path) -> None:
    records = np.zeros(3, RECORD)
    records["time"] = [0, DAY - 1, DAY]
    first = history.write(tmp_path, "events", events("u", records), "batch")
    again = history.write(tmp_path, "events", events("u", records), "batch")
    assert first == again
    assert [f.parent.name for f in first] == ["date=1970-01-01", "date=1970-01-02"]
    assert not list((tmp_path / "history" / "events").rglob(".*"))
    assert len(history.read(tmp_path, "events")) == 3


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "history" / "events" / "date=1970-01-01"
    (folder / "batch.parquet").mkdir(parents=True)  # a rename onto a folder fails
    with pytest.raises(OSError, match=r"batch\.parquet"):
        history.write(tmp_path, "events", events("u", np.zeros(1, RECORD)), "batch")
    assert [p.name for p in folder.iterdir()] == ["batch.parquet"]


def test_empty_history_reads_as_empty(tmp_path: Path) -> None:
    assert history.read_sequences(tmp_path).user_ids == []
    assert len(history.read_items(tmp_path)) == 0


def test_the_newest_version_of_an_item_wins_whatever_the_order_of_files(tmp_path: Path) -> None:
    def item(title: str, day: int, offset: int) -> pa.Table:
        row = {
            "item": signed(entity_id("i")),
            "event_timestamp": datetime(2026, 1, day, tzinfo=UTC),
            "item_id": "i",
            "title": title,
            "topic": "t",
            "partition": 0,
            "offset": offset,
            "arrived": datetime(2026, 1, 1, tzinfo=UTC),
        }
        return pa.Table.from_pylist([row], schema=history.SCHEMAS["items"])

    for title, day, offset, name in [("new", 3, 1, "a"), ("old", 2, 5, "b"), ("newer", 3, 2, "c")]:
        history.write(tmp_path, "items", item(title, day, offset), name)
    assert history.read_items(tmp_path)["title"].to_pylist() == ["newer"]
