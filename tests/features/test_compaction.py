"""Compaction changes nothing that is read, whoever runs beside it and wherever it dies."""

import multiprocessing
import os
import signal
import time
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features import garbage, history, versions
from features.compaction import compact
from features.erasure import erase_queries
from features.errors import SeminarError
from features.fences import raise_fence, user_hash
from features.record import entity_id
from tests.features.rows import DAY, T0, events, records, row, table_of

SPAWN = multiprocessing.get_context("spawn")


def everything(home: Path) -> list[Any]:
    """What all readers say, of all time and of cuts through the middle of a day."""
    found: list[Any] = []
    for until in (None, T0 + DAY // 2, T0 + DAY + 5):
        sequences = history.read_sequences(home, until)
        found += [sequences.user_ids, sequences.offsets.tolist(), sequences.records.tobytes()]
        found += [history.read_items(home, until), history.read_queries(home, until)]
        found += [history.read_impressions(home, until_ms=until), history.read_impressions(home, since_ms=until)]
        found += [history.read_clicks(home, until_ms=until), history.read_labels(home, since_ms=until)]
    return [*found, history.read_sequences(home, cap=3, users=["user-1"]).records.tobytes()]


def loose(home: Path) -> list[str]:
    return sorted(f.name for f in home.glob("history/*/date=*/*.parquet") if not f.name.startswith("compact-"))


def compacted(home: Path) -> list[Path]:
    return sorted(home.glob("history/*/date=*/compact-*.parquet"))


TIMES = st.sampled_from([0, 1, DAY // 2 - 1, DAY // 2, DAY - 1, DAY, DAY + 4, DAY + 5])
ROWS = st.tuples(st.sampled_from(sorted(history.SCHEMAS)), st.integers(0, 4), TIMES, st.sampled_from(["", "a", "b"]))
BATCHES = st.lists(st.one_of(st.lists(ROWS, min_size=1, max_size=12), st.just("compact")), min_size=2, max_size=8)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=BATCHES, limit=st.sampled_from([None, 2]))
def test_whatever_is_written_and_compacted_is_read_as_if_it_were_not(tmp_path: Path, batches: Any, limit: int) -> None:
    here, there = tmp_path / uuid.uuid4().hex, tmp_path / uuid.uuid4().hex
    offset = 0
    for number, batch in enumerate([*batches, "compact"]):
        if batch == "compact":
            compact(here, grace_s=0, rows_per_file=limit)
            continue
        for name in history.SCHEMAS:
            mine = [(key, ms, word) for table, key, ms, word in batch if table == name]
            if mine:
                rows = table_of(name, [row(name, key, ms, offset + i, word) for i, (key, ms, word) in enumerate(mine)])
                offset += len(mine)
                history.write(here, name, rows, f"batch-{number}")
                history.write(there, name, rows, f"batch-{number}")
    assert everything(here) == everything(there)
    assert loose(here) == []


def test_repeated_rows_go_and_the_first_arrival_stays(tmp_path: Path) -> None:
    for name in history.SCHEMAS:
        for again in range(3):
            word = "x" if again < 2 else "y"
            history.write(tmp_path, name, table_of(name, [row(name, 1, 5, 10 - again, word)]), f"b{again}")
    done = compact(tmp_path)
    assert {name: (x["rows_in"], x["rows"]) for name, x in done["tables"].items()} == {
        "events": (3, 1),
        "items": (3, 2),  # two contents: every distinct version stays
        "queries": (3, 1),
        "impressions": (3, 1),
        "clicks": (3, 1),
        "labels": (3, 1),  # the one written last
    }
    (event,) = history.read(tmp_path, "events").to_pylist()
    assert event["offset"] == 8


def test_a_late_event_of_a_compacted_date_does_not_rewrite_the_date(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    many = records(sorted(rng.integers(0, DAY, 20_000).tolist()))
    many["digest"] = rng.integers(0, 2**32, len(many))
    history.write(tmp_path, "events", events("u", many), "first")
    compact(tmp_path, grace_s=0)
    (large,) = compacted(tmp_path)
    for i in range(1, 13):
        history.write(tmp_path, "events", events("u", records([i])), f"late-{i}")
        assert len(history.read_sequences(tmp_path).records) == 20_000 + i
        compact(tmp_path, grace_s=0)
        assert len(history.read_sequences(tmp_path).records) == 20_000 + i
        assert large in compacted(tmp_path)
        assert len(compacted(tmp_path)) <= 4
    assert loose(tmp_path) == []


def test_files_are_sorted_by_user_and_cut_into_ranges_of_users(tmp_path: Path) -> None:
    for user in ("c", "a", "b"):
        history.write(tmp_path, "events", events(user, records([3, 1, 2])), user)
    compact(tmp_path, rows_per_file=4)
    found = [pq.read_table(file, columns=["user_id", "event_timestamp"]).to_pylist() for file in compacted(tmp_path)]
    for rows in found:
        assert rows == sorted(rows, key=lambda row: (row["user_id"], row["event_timestamp"]))
    assert sorted("".join(row["user_id"] for row in rows) for rows in found) == ["aaabbb", "ccc"]
    assert history.read_sequences(tmp_path, users=["b"]).of(0)["time"].tolist() == [T0 + 1, T0 + 2, T0 + 3]


def test_a_batch_that_is_written_again_after_it_was_absorbed_loses_nothing(tmp_path: Path) -> None:
    """A repeated batch has the same name, and may hold more: what lay too far in the future is valid now."""
    history.write(tmp_path, "events", events("u", records([1])), "batch")
    compact(tmp_path)
    assert loose(tmp_path) == ["batch.parquet"]  # until the grace period ends
    history.write(tmp_path, "events", events("u", records([1, 2])), "batch")
    assert len(history.read_sequences(tmp_path).records) == 2
    versions_before = versions.names(tmp_path)
    assert garbage.collect(tmp_path, grace_s=0)["loose"] == 0
    assert len(history.read_sequences(tmp_path).records) == 2
    compact(tmp_path, grace_s=0)
    assert versions.names(tmp_path) != versions_before
    assert (loose(tmp_path), len(history.read_sequences(tmp_path).records)) == ([], 2)


def test_without_loose_files_no_version_is_made(tmp_path: Path) -> None:
    assert compact(tmp_path)["version"] is None
    history.write(tmp_path, "events", events("u", records([1])), "a")
    assert compact(tmp_path)["version"] == "v000001"
    again = compact(tmp_path)
    assert (again["version"], again["published"]) == ("v000001", False)


def test_garbage_stays_for_the_grace_period(tmp_path: Path) -> None:
    for i in range(3):
        history.write(tmp_path, "events", events("u", records([i])), f"b{i}")
        compact(tmp_path, grace_s=3600)
    assert versions.names(tmp_path) == ["v000001", "v000002", "v000003"]
    assert (len(loose(tmp_path)), len(compacted(tmp_path))) == (3, 3)
    assert compact(tmp_path, grace_s=0)["removed"] == {"loose": 3, "compacted": 2, "temporary": 0, "versions": 2}
    assert len(history.read_sequences(tmp_path).records) == 3


def test_what_users_had_forgotten_is_in_no_new_file(tmp_path: Path) -> None:
    for user in ("gone", "kept"):
        history.write(tmp_path, "events", events(user, records([1, DAY - 1])), user)
    rows = table_of("impressions", [row("impressions", 0, 1, 0), row("impressions", 0, DAY - 1, 1)])
    history.write(tmp_path, "impressions", rows, "i")
    raise_fence(tmp_path, user_hash("gone"), T0 + 100)

    def step(name: str) -> None:  # while the first attempt is at it
        if name == "files":
            raise_fence(tmp_path, user_hash("user-0"), T0 + 100)

    done = compact(tmp_path, grace_s=0, step=step)
    assert (done["lost"], done["version"]) == (1, "v000001")
    tables = [pq.read_table(file, columns=["user_id", "event_timestamp"]) for file in compacted(tmp_path)]
    left = sorted((r["user_id"], int(r["event_timestamp"].timestamp() * 1000) - T0) for t in tables for r in t.to_pylist())
    assert left == [("gone", DAY - 1), ("kept", 1), ("kept", DAY - 1), ("user-0", DAY - 1)]


def test_a_torn_file_is_named_and_nothing_is_published(tmp_path: Path) -> None:
    history.write(tmp_path, "events", events("u", records([1])), "good")
    (bad,) = history.write(tmp_path, "events", events("u", records([2])), "bad")
    bad.write_bytes(bad.read_bytes()[:-300])
    for attempt in (lambda: compact(tmp_path), lambda: history.read_sequences(tmp_path)):
        with pytest.raises(SeminarError, match=r"bad\.parquet' is torn.*parity --repair") as refused:
            attempt()
        assert refused.value.value == bad
    assert (versions.names(tmp_path), compacted(tmp_path)) == ([], [])
    bad.rename(bad.with_suffix(".torn"))
    compact(tmp_path)
    assert len(history.read_sequences(tmp_path).records) == 1


def test_a_version_never_names_a_file_that_was_cleared_away(tmp_path: Path) -> None:
    """Another compactor without any grace takes the new files for garbage before they are published."""
    history.write(tmp_path, "events", events("u", records([1])), "a")
    times = iter([True])

    def step(name: str) -> None:
        if name == "files" and next(times, False):
            assert garbage.collect(tmp_path, grace_s=0)["compacted"] == 1

    assert compact(tmp_path, grace_s=0, step=step)["lost"] == 1
    assert len(history.read_sequences(tmp_path).records) == 1


def test_a_file_that_its_compactor_discards_while_it_is_collected_is_not_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    history.write(tmp_path, "events", events("u", records([1])), "a")
    compact(tmp_path)
    (kept,) = compacted(tmp_path)
    (kept.parent / "compact-second.parquet").write_bytes(kept.read_bytes())
    unlink = Path.unlink

    def second(file: Path, missing_ok: bool = False) -> None:
        if file.name == "compact-second.parquet":
            unlink(file)  # by who wrote it, a moment before
        unlink(file, missing_ok)

    monkeypatch.setattr(Path, "unlink", second)
    assert garbage.collect(tmp_path, grace_s=0)["compacted"] == 0
    assert compacted(tmp_path) == [kept]


def test_who_is_second_discards_its_files_and_starts_again(tmp_path: Path) -> None:
    history.write(tmp_path, "events", events("u", records([1])), "a")
    times = iter([True])

    def step(name: str) -> None:
        if name == "files" and next(times, False):
            history.write(tmp_path, "events", events("u", records([2])), "b")
            assert compact(tmp_path)["version"] == "v000001"

    done = compact(tmp_path, step=step)
    assert (done["version"], done["published"], done["lost"]) == ("v000001", False, 1)
    assert len(compacted(tmp_path)) == 1
    assert len(history.read_sequences(tmp_path).records) == 2


def test_a_query_text_that_is_erased_meanwhile_does_not_come_back(tmp_path: Path) -> None:
    rows = table_of("queries", [row("queries", key, 5, key) for key in (1, 2)])
    history.write(tmp_path, "queries", rows, "a")
    times = iter([True])

    def step(name: str) -> None:
        if name == "files" and next(times, False):
            assert erase_queries(tmp_path, {entity_id("query 1")}).files == 2  # the unpublished file too

    assert compact(tmp_path, step=step)["lost"] == 1
    assert history.read_queries(tmp_path)["text"].to_pylist() == ["query 2"]


# --- processes -------------------------------------------------------------------------------------------------------


def die_at(home: Path, gap: str) -> None:
    """A compactor that is killed at a step, or while a file is half written."""

    def die(name: str) -> None:
        if name == gap:
            os.kill(os.getpid(), signal.SIGKILL)

    if gap == "half a file":
        import features.merging

        features.merging.sync = lambda file: die(gap)
    compact(home, grace_s=0, step=die)


@pytest.mark.parametrize("gap", ["plan", "half a file", "merge", "files", "manifest", "garbage"])
def test_a_compactor_killed_anywhere_loses_nothing_and_leaves_nothing(tmp_path: Path, gap: str) -> None:
    home, control = tmp_path / "home", tmp_path / "control"
    for i in range(6):
        for name in history.SCHEMAS:
            rows = table_of(name, [row(name, k, (i * 7 + k) * DAY // 20, 10 * i + k, "x") for k in range(5)])
            for place in (home, control):
                history.write(place, name, rows, f"b{i}")
        if i == 2:
            compact(home, grace_s=0)
    child = SPAWN.Process(target=die_at, args=(home, gap))
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    assert everything(home) == everything(control)
    assert versions.names(home)[-1] == ("v000002" if gap in ("manifest", "garbage") else "v000001")
    compact(home, grace_s=0)
    assert everything(home) == everything(control)
    newest = versions.newest(home)
    assert newest
    assert versions.names(home) == ["v000002"]
    named = {home / "history" / table / name for table, part in newest.tables.items() for name in part.files}
    assert {f for f in home.glob("history/*/date=*/*") if f.is_file()} == named
    assert not list(home.glob("history/**/.*.tmp"))


def compact_on(home: Path, stop: Any, published: Any) -> None:
    while not stop.is_set():
        if compact(home, grace_s=0)["published"]:
            published.value += 1


def write_on(home: Path, batches: int, acknowledged: Any) -> None:
    """Writes batches of 3 events, every fifth of them twice, and a growing one under one name, over and over."""
    for i in range(batches):
        rows = events("u", records([3 * i, 3 * i + 1, 3 * i + 2 + (i % 2) * DAY], i + 1))
        for _ in range(2 if i % 5 == 0 else 1):
            history.write(home, "events", rows, f"b{i}")
        history.write(home, "events", events("v", records(list(range(i + 1)))), "growing")
        acknowledged.value = i + 1


def test_readers_never_see_less_than_was_acknowledged(tmp_path: Path) -> None:
    """A writer, two compactors without any grace, and a reader that looks all the time."""
    batches, stop, acknowledged = 60, SPAWN.Event(), SPAWN.Value("i", 0)
    counts = [SPAWN.Value("i", 0) for _ in range(2)]
    compactors = [SPAWN.Process(target=compact_on, args=(tmp_path, stop, count)) for count in counts]
    writer = SPAWN.Process(target=write_on, args=(tmp_path, batches, acknowledged))
    for process in (*compactors, writer):
        process.start()
    try:
        deadline, looks = time.monotonic() + 100, 0
        while acknowledged.value < batches:
            assert time.monotonic() < deadline
            assert writer.is_alive() or acknowledged.value == batches
            least = acknowledged.value
            found = history.read_sequences(tmp_path)
            sizes = {user: len(found.of(i)) for i, user in enumerate(found.user_ids)}
            assert sizes.get("u", 0) >= 3 * least
            assert sizes.get("v", 0) >= least
            looks += 1
        assert looks > 5
    finally:
        stop.set()
        for process in (*compactors, writer):
            process.join(30)
            process.kill()
    assert [process.exitcode for process in (*compactors, writer)] == [0, 0, 0]
    assert min(count.value for count in counts) > 0
    compact(tmp_path, grace_s=0)
    # Each number was taken once: no version was published over another.
    assert versions.names(tmp_path)[-1] <= f"v{sum(count.value for count in counts) + 1:06d}"
    assert int(versions.names(tmp_path)[-1][1:]) >= sum(count.value for count in counts)
    assert [len(history.read_sequences(tmp_path).of(i)) for i in (0, 1)] == [3 * batches, batches]
    assert loose(tmp_path) == []
