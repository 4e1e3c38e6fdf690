import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from features import history, parity, versions
from features.compaction import compact
from features.errors import SeminarError
from features.fences import raise_fence, user_hash
from features.online import Online
from features.record import Records, entity_id
from features.state import IdentityLost, Watermark, ensure_identity, write_watermarks
from tests.features.conftest import Place
from tests.features.rows import DAY, T0, events, records, row, table_of


@pytest.fixture
def online(home: Path) -> Online:
    found = Online()
    ensure_identity(found, home)
    return found


def both(online: Online, home: Path, user: str, stored: Records, served: Records, **origin: Any) -> None:
    """A user's records in history, and those online."""
    history.write(home, "events", events(user, stored, **origin), f"{user}-{origin.get('offset', 0)}")
    online.append({user: served})


def counts(report: dict[str, Any]) -> tuple[int, int, int, int]:
    return report["missing"], report["extra"], report["lag"], report["faults"]


def times(served: Sequence[Any]) -> list[list[int]]:
    return [(found[0]["time"] - T0).tolist() for found in served]


def test_missing_and_extra_records_are_counted_and_repaired(online: Online, home: Path) -> None:
    both(online, home, "same", records([1, 2, 3]), records([3, 2, 1]))
    both(online, home, "torn", records([1, 2, 3, 4]), records([1, 2, 9]))
    report = parity.compare(online, home)
    assert counts(report) == (2, 1, 0, 3)
    assert (report["users"], report["equal"], report["edit_distance"], report["differing"]) == (2, 1, 3, ["torn"])
    fixed = parity.repair(online, home)
    assert (counts(fixed), fixed["equal"], counts(fixed["repaired"])) == ((0, 0, 0, 0), 2, (2, 1, 0, 3))
    assert times(online.sequences(["same", "torn"])) == [[1, 2, 3], [1, 2, 3, 4, 9]]
    assert len(history.read_sequences(home).of(1)) == 5
    made = [r for r in history.read(home, "events").to_pylist() if r["topic"] == "repair"]
    assert [r["event_timestamp"].timestamp() * 1000 - T0 for r in made] == [9]


def test_users_that_history_has_lost_are_seen_and_come_back(place: Place) -> None:
    online = Online()
    ensure_identity(online, place.home)
    both(online, place.home, "kept", records([1]), records([1]))
    online.append({"lost:{}*": records([2, 3])})
    online.forget("forgotten", T0)
    report = parity.compare(online, place.home)
    assert (counts(report), report["differing"]) == ((0, 2, 0, 2), ["lost:{}*"])
    assert counts(parity.repair(online, place.home)) == (0, 0, 0, 0)
    assert history.read_sequences(place.home).user_ids == ["kept", "lost:{}*"]
    assert online.users() == {"kept", "lost:{}*", "forgotten"}


def test_what_the_stream_has_not_applied_yet_is_lag(online: Online, home: Path) -> None:
    write_watermarks(online, {"t/0": Watermark(12, 0), "other/0": Watermark(1, 0)})
    both(online, home, "u", records([1, 2, 3, 4]), records([1]), topic="t", offset=10)  # offsets 10 and 11 are applied
    assert counts(parity.compare(online, home)) == (1, 0, 2, 1)
    both(online, home, "u", records([3]), records([2]), topic="import:x", offset=99)  # no stream: it must be online
    assert counts(parity.compare(online, home)) == (1, 0, 1, 1)
    fixed = parity.repair(online, home)
    assert (counts(fixed), times(online.sequences(["u"]))) == ((0, 0, 1, 0), [[1, 2, 3]])


def test_a_partition_of_a_stream_that_has_no_watermark_yet_has_applied_nothing(online: Online, home: Path) -> None:
    both(online, home, "u", records([1]), records([]), topic="t")
    assert counts(parity.compare(online, home)) == (1, 0, 0, 1)  # no stream at all: an import
    write_watermarks(online, {"t/1": Watermark(5, 0)})
    assert counts(parity.compare(online, home)) == (0, 0, 1, 0)


def test_only_what_both_could_keep_is_compared(online: Online, home: Path) -> None:
    both(online, home, "u", records([1, 2, 3, 4, 5]), records([3, 4, 5]))
    assert counts(parity.compare(online, home, cap=3)) == (0, 0, 0, 0)
    assert counts(parity.compare(online, home, cap=4)) == (1, 0, 0, 1)
    both(online, home, "v", records([2, 4, 5]), records([1, 2, 5]))
    assert counts(parity.compare(online, home, cap=3)) == (1, 0, 0, 1)  # 4 is missing; 1 is older than history's third


def test_what_a_user_had_forgotten_is_compared_no_more(online: Online, home: Path) -> None:
    both(online, home, "u", records([1, 2, 500]), records([1, 3, 500]))
    raise_fence(home, user_hash("u"), T0 + 100)
    assert counts(parity.compare(online, home)) == (0, 0, 0, 0)
    both(online, home, "gone", records([1]), records([]))
    raise_fence(home, user_hash("gone"), T0 + 100)
    assert counts(parity.repair(online, home)["repaired"]) == (0, 0, 0, 0)


def test_items_and_queries_are_compared_and_repaired(online: Online, home: Path) -> None:
    newer, older = row("items", 1, 20, 2, "newer"), row("items", 1, 10, 1, "older")
    history.write(home, "items", table_of("items", [older, newer, row("items", 2, 5, 3, "only")]), "a")
    history.write(home, "queries", table_of("queries", [row("queries", 1, 5, 0)]), "a")
    online.write_items(table_of("items", [older]))
    lost = table_of("items", [row("items", 3, 5, 0, "lost")])
    online.write_items(lost)  # some record names it: it came through the stream
    online.write_queries(table_of("queries", [row("queries", 3, 5, 0)]))
    named = records([1, 2])
    named["item"], named["query"] = entity_id("item-3"), entity_id("query 3")
    both(online, home, "u", named, named)
    faults = {"items": 3, "queries": 2, "missing": 2, "outdated": 1, "lost": 2}
    assert parity.compare(online, home)["entities"] == faults
    fixed = parity.repair(online, home)
    assert fixed["entities"] == faults | {"missing": 0, "outdated": 0, "lost": 0}
    assert (fixed["faults"], fixed["repaired"]["faults"]) == (0, 5)
    ids = [entity_id(f"item-{i}") for i in (1, 2, 3)]
    assert [item["title"] for item in online.items(ids) if item] == ["newer", "only", "lost"]
    assert online.queries([entity_id("query 1")]) == ["query 1"]
    assert set(history.read_items(home)["title"].to_pylist()) == {"newer", "only", "lost"}
    assert set(history.read_queries(home)["text"].to_pylist()) == {"query 1", "query 3"}


def test_of_equal_times_history_and_store_take_the_same_version(online: Online, home: Path) -> None:
    rows = [row("items", 1, 5, offset, word) for offset, word in ((3, "b"), (7, ""), (5, "a"), (9, ""))]
    for offset, one in enumerate(rows):
        history.write(home, "items", table_of("items", [one]), f"{offset}")
    for one in (rows[0], rows[2], rows[1]):
        online.write_items(table_of("items", [one]))
    assert history.read_items(home)["title"].to_pylist() == ["b"]
    assert parity.compare(online, home)["faults"] == 0
    before = history.read_items(home)
    compact(home, grace_s=0)
    assert history.read_items(home) == before


def test_a_torn_file_is_named_moved_aside_and_its_rows_come_back(online: Online, home: Path) -> None:
    both(online, home, "u", records([1, 2]), records([1, 2, 3]))
    (torn,) = history.write(home, "events", events("u", records([3])), "b")
    torn.write_bytes(torn.read_bytes()[:40])
    with pytest.raises(SeminarError, match=r"b\.parquet.*parity --repair"):
        parity.compare(online, home)
    torn.rename(torn.with_suffix(".torn"))
    assert counts(parity.compare(online, home)) == (0, 1, 0, 1)
    assert counts(parity.repair(online, home)) == (0, 0, 0, 0)
    assert len(history.read_sequences(home).of(0)) == 3


def test_a_torn_compacted_file_costs_what_it_held_and_no_other_day(online: Online, home: Path) -> None:
    days = records([1, 2, 3 + DAY])
    both(online, home, "u", days, days[1:])
    history.write(home, "impressions", table_of("impressions", [row("impressions", 0, DAY, 1)]), "shown")
    for _ in range(2):  # the second takes the loose files away
        compact(home, grace_s=0)
    torn = min(home.glob("history/events/date=*/compact-*"), key=lambda file: file.parent.name)
    torn.rename(torn.with_suffix(".torn"))
    for attempt in (lambda: parity.compare(online, home), lambda: compact(home, grace_s=0)):
        history.write(home, "events", events("u", days[2:]), "late")
        with pytest.raises(SeminarError, match=rf"{torn.name}.*parity --repair"):
            attempt()
    fixed = parity.repair(online, home)
    assert (counts(fixed), fixed["stand_ins"]) == ((0, 0, 0, 0), [str(torn.relative_to(home))])
    for _ in range(2):
        compact(home, grace_s=0)
        assert (
            times(online.sequences(["u"])) == [(history.read_sequences(home).of(0)["time"] - T0).tolist()] == [[2, 3 + DAY]]
        )
        assert len(history.read_impressions(home)) == 1
    versions.pin(home, versions.last(home) or "", "someone")


def test_a_sample_is_compared_and_many_users_in_parts(online: Online, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parity, "ROWS", 7)
    rng = np.random.default_rng(0)
    for i in range(20):
        mine = records(sorted(rng.choice(50, 1 + i % 4, replace=False).tolist()))
        both(online, home, f"u{i}", mine, mine[: len(mine) - (i == 13)])
    assert parity.compare(online, home, sample=5)["users"] == 5
    report = parity.compare(online, home)
    assert (report["users"], report["equal"], report["differing"]) == (20, 19, ["u13"])


def test_few_users_are_read_at_once(online: Online, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    users, read, real = [f"u{i}" for i in range(50)], list[int](), online.sequences
    for user in users:
        history.write(home, "events", events(user, records([1])), user)
    online.append(dict.fromkeys(users, records([1])))
    monkeypatch.setattr(online, "sequences", lambda some: read.append(len(some)) or real(some))
    assert parity.compare(online, home)["equal"] == 50
    assert read == [20, 20, 10]  # whoever scores meanwhile waits for one of these, not for all


def test_a_store_of_another_history_is_not_repaired(home: Path) -> None:
    online = Online()
    both(online, home, "u", records([1]), records([2]))
    with pytest.raises(IdentityLost):
        parity.repair(online, home)
    assert times(online.sequences(["u"])) == [[2]]


def test_a_stream_that_runs_meanwhile_is_no_fault(online: Online, home: Path) -> None:
    """The order of a batch is history, online, watermark; comparing reads them the other way round."""

    def stream() -> None:
        for i in range(150):
            mine = records([i])
            history.write(home, "events", events("u", mine, offset=i), f"b{i}")
            online.append({"u": mine})
            write_watermarks(online, {"t/0": Watermark(i + 1, 0)})

    write_watermarks(online, {"t/0": Watermark(0, 0)})
    thread = threading.Thread(target=stream)
    thread.start()
    looks = []
    while thread.is_alive():
        looks.append(parity.compare(online, home))
    thread.join()
    assert [report for report in looks if report["faults"]] == []
    assert len(looks) > 3
    assert counts(parity.compare(online, home)) == (0, 0, 0, 0)


def test_a_batch_that_comes_between_reading_online_and_history_is_lag(
    online: Online, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def batch(i: int) -> None:
        history.write(home, "events", events("u", records([i]), offset=i), f"b{i}")
        online.append({"u": records([i])})
        write_watermarks(online, {"t/0": Watermark(i + 1, 0)})

    def served(users: Sequence[str]) -> Any:
        found = reading(users)
        batch(1)
        return found

    batch(0)
    reading = online.sequences
    monkeypatch.setattr(online, "sequences", served)
    assert counts(parity.compare(online, home)) == (0, 0, 1, 0)
    monkeypatch.undo()
    assert counts(parity.compare(online, home)) == (0, 0, 0, 0)
