"""Versions: what is pinned stays as it was, and reading copes with what others do meanwhile."""

import multiprocessing
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from features import history, snapshot, versions
from features.compaction import compact
from features.errors import SeminarError
from features.fences import NONE
from features.lost import stand_in
from features.record import RECORD, entity_id, signed, union
from features.sequences import collect, unite
from tests.features.rows import DAY, T0, events, records, row, table_of


def in_child(work: Callable[[Path, Any], None], home: Path) -> Any:
    """What a new process puts into its queue."""
    context = multiprocessing.get_context("spawn")
    result = context.Queue()
    child = context.Process(target=work, args=(home, result))
    child.start()
    try:
        return result.get(timeout=120)
    finally:
        child.join(30)


def test_a_pinned_version_survives_and_reads_the_same(tmp_path: Path) -> None:
    def write(batch: int) -> None:
        history.write(tmp_path, "events", events("u", records([batch, batch + DAY])), f"b{batch}")
        for table in ("items", "queries", "impressions"):
            history.write(tmp_path, table, table_of(table, [row(table, batch, batch, batch, "x")]), f"b{batch}")

    def read(version: str | None) -> list[int]:
        tables = [history.read_items, history.read_queries, history.read_impressions]
        return [len(history.read_sequences(tmp_path, version=version).records)] + [
            len(read(tmp_path, version=version)) for read in tables
        ]

    write(0)
    compact(tmp_path, grace_s=0)
    pinned = history.version(tmp_path)
    assert pinned == "v000001"
    versions.pin(tmp_path, pinned, "ctr-run.1")
    write(1)
    assert (read(pinned), read(None)) == ([2, 1, 1, 1], [4, 2, 2, 2])
    for batch in (2, 3, 4):
        write(batch)
        compact(tmp_path, grace_s=0)
    assert versions.names(tmp_path) == ["v000001", "v000004"]
    assert versions.pins(tmp_path) == {"v000001": ["ctr-run.1"]}
    assert (read(pinned), read("v000004"), read(None)) == ([2, 1, 1, 1], [10, 5, 5, 5], [10, 5, 5, 5])
    versions.unpin(tmp_path, pinned, "ctr-run.1")
    compact(tmp_path, grace_s=0)
    with pytest.raises(SeminarError, match=r"v000001.*is not published.*newest: v000004"):
        read(pinned)
    with pytest.raises(SeminarError, match="not published"):
        versions.pin(tmp_path, pinned, "late")


def test_versions_are_kept_by_number_where_asked(tmp_path: Path) -> None:
    for batch in range(4):
        history.write(tmp_path, "events", events("u", records([batch])), f"b{batch}")
        compact(tmp_path, grace_s=0, keep=3)
    assert versions.names(tmp_path) == ["v000002", "v000003", "v000004"]
    assert [len(history.read_sequences(tmp_path, version=v).records) for v in versions.names(tmp_path)] == [2, 3, 4]


def test_a_number_is_published_once(tmp_path: Path) -> None:
    assert versions.publish(tmp_path, None, {})
    assert versions.publish(tmp_path, None, {}) is None
    assert versions.publish(tmp_path, "v000001", {})
    (versions.folder(tmp_path) / "v000001.json").unlink()
    assert versions.publish(tmp_path, None, {}) is None  # the number is free again, but its time has passed
    assert versions.names(tmp_path) == ["v000002"]


def test_a_torn_manifest_is_named(tmp_path: Path) -> None:
    versions.publish(tmp_path, None, {})
    (versions.folder(tmp_path) / "v000001.json").write_text('{"version"')
    with pytest.raises(SeminarError, match=r"v000001\.json.*is torn"):
        history.read_sequences(tmp_path)


def test_compacted_files_that_no_version_names_are_not_read(tmp_path: Path) -> None:
    (file,) = history.write(tmp_path, "events", events("u", records([1, 2])), "a")
    file.rename(file.with_name("compact-half.parquet"))
    assert snapshot.files(tmp_path, "events") == []


def test_a_compaction_in_the_middle_of_listing_hides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The manifest was read, then the loose files were absorbed and cleared away, then the folders are listed."""
    history.write(tmp_path, "events", events("u", records([1])), "a")
    listing, times = snapshot.loose, iter([True])

    def late(*arguments: Any) -> Any:
        if next(times, False):
            compact(tmp_path, grace_s=0)
        return listing(*arguments)

    monkeypatch.setattr(snapshot, "loose", late)
    assert len(history.read_sequences(tmp_path).records) == 1


def test_a_file_that_goes_between_listing_and_reading_is_looked_for_again(tmp_path: Path) -> None:
    history.write(tmp_path, "events", events("u", records([1])), "a")
    times = iter([True])

    def take(dataset: Any) -> int:
        if next(times, False):
            compact(tmp_path, grace_s=0)
        return int(dataset.to_table().num_rows)

    assert snapshot.scan(tmp_path, "events", history.SCHEMAS["events"], take) == 1


def test_a_version_without_its_files_is_named(tmp_path: Path) -> None:
    """As in a copy that took the manifest later than the files."""
    history.write(tmp_path, "events", events("u", records([1])), "a")
    compact(tmp_path)
    for file in tmp_path.glob("history/events/*/compact-*"):
        file.unlink()
    with pytest.raises(SeminarError, match=r"v000001\.json.*names a file that is not there.*parity --repair"):
        history.read_sequences(tmp_path)
    assert [file.name[:8] for file in stand_in(tmp_path)] == ["compact-"]
    assert len(history.read_sequences(tmp_path).records) == 1  # the loose files are there for the grace period
    compact(tmp_path, grace_s=0)
    compact(tmp_path, grace_s=0)
    assert len(history.read_sequences(tmp_path).records) == 1


def test_only_the_dates_of_a_range_are_looked_at(tmp_path: Path) -> None:
    history.write(tmp_path, "events", events("u", records([0, DAY, 2 * DAY])), "a")
    for _ in range(2):
        found = snapshot.files(tmp_path, "events", since_ms=T0 + DAY, until_ms=T0 + DAY + 1)
        assert [file.parent.name for file in found] == ["date=2025-06-16"]
        compact(tmp_path, grace_s=0)


def read_with_feast(home: Path, result: Any) -> None:
    import pandas as pd
    from feast import FeatureStore
    from feast.infra.offline_stores.duckdb import DuckDBOfflineStore

    store = FeatureStore(fs_yaml_file=home / "feature_store.yaml")
    asked = pd.DataFrame(
        {"item": [signed(entity_id("item-1"))], "event_timestamp": [pd.Timestamp(T0 + 8, unit="ms", tz="UTC")]}
    )
    titles = store.get_historical_features(asked, ["item_content:title"]).to_df()["title"].tolist()
    job = DuckDBOfflineStore.pull_all_from_table_or_query(
        config=store.config,
        data_source=store.get_feature_view("user_sequence").batch_source,
        join_key_columns=["user_id"],
        feature_name_columns=["sequence"],
        timestamp_field="event_timestamp",
    )
    result.put((titles, [(row.user_id, bytes(row.sequence)) for row in job.to_df().itertuples()]))


@pytest.mark.long
def test_stock_feast_reads_what_is_there_beside_hidden_and_compacted_files(home: Path) -> None:
    history.write(home, "events", events("u", records([1, 2])), "a")
    history.write(home, "items", table_of("items", [row("items", 1, 5, 0, "old"), row("items", 1, 9, 1, "new")]), "a")
    compact(home)
    history.write(home, "events", events("v", records([3])), "b")
    (home / "history" / "events" / "date=2025-06-15" / ".half.tmp").write_bytes(b"no parquet")
    titles, rows = in_child(read_with_feast, home)
    assert titles == ["old"]
    assert (len(rows), len(set(rows))) == (5, 3)  # a loose file and the one that absorbed it: readers take the union


def test_uniting_in_chunks_is_uniting_each_user(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    parts: dict[str, list[np.ndarray]] = {}
    tables = []
    for _ in range(60):
        mine = np.zeros(rng.integers(1, 40), RECORD)
        mine["time"], mine["item"] = rng.integers(0, 30, len(mine)), rng.integers(1, 3, len(mine))
        user = f"user-{rng.integers(0, 9)}"
        parts.setdefault(user, []).append(mine)
        tables.append(events(user, mine))
    monkeypatch.setattr("features.sequences.CHUNK", 50)
    found = unite(collect(batch for table in tables for batch in table.to_batches()), NONE, cap=25)
    assert found.user_ids == sorted(parts)
    for i, user in enumerate(found.user_ids):
        assert found.of(i).tobytes() == union(*parts[user], cap=25).tobytes()


def peak_of_reading(home: Path, result: Any) -> None:
    history.read_sequences(home, users=["nobody"])
    before = memory("VmRSS")
    found = history.read_sequences(home)
    result.put((found.records.nbytes, memory("VmHWM") - before))


def memory(name: str) -> int:
    """Bytes; VmHWM is the most there ever was."""
    (line,) = (x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(name))
    return int(line.split()[1]) * 1024


@pytest.mark.skipif(sys.platform != "linux", reason="measures by /proc")
def test_reading_holds_three_times_the_data_at_most(tmp_path: Path) -> None:
    rng, n, schema = np.random.default_rng(0), 100_000, history.SCHEMAS["events"]
    users = pa.array([f"user-{i}" for i in range(5000)])
    for batch in range(25):
        mine = np.zeros(n, RECORD)
        mine["time"] = T0 + batch % 4 * DAY + np.arange(n) * 800
        mine["digest"] = rng.integers(0, 2**32, n)
        moments = pa.array(mine["time"].astype("int64") * 1000, schema.field("arrived").type)
        columns = {
            "user_id": users.take(pa.array(rng.integers(0, 5000, n))),
            "event_timestamp": moments,
            "sequence": pa.Array.from_buffers(pa.binary(32), n, [None, pa.py_buffer(mine.tobytes())]),
            "topic": pa.array(["t"]).take(pa.array(np.zeros(n, np.int64))),
            "partition": pa.array(np.zeros(n, np.int32)),
            "offset": pa.array(np.arange(n)),
            "arrived": moments,
        }
        history.write(tmp_path, "events", pa.table(columns, schema=schema), f"b{batch}")
    size, peak = in_child(peak_of_reading, tmp_path)
    assert size == 25 * n * RECORD.itemsize
    assert peak < 3 * size + (32 << 20), peak / size  # and Arrow's buffers, whatever the size
