"""Whose store it is: new ones are paired, an emptied or foreign one is refused; watermarks."""

from datetime import UTC, datetime, tzinfo
from pathlib import Path

import pytest

from features.online import Online
from features.repository import apply
from features.state import (
    IdentityLost,
    Pairing,
    Watermark,
    check_identity,
    ensure_identity,
    expected_identity,
    restore_identity,
    watermarks,
    write_watermarks,
)


def empty_the_store(home: Path) -> Online:
    for file in home.glob("online.db*"):
        file.unlink()
    apply()
    return Online()


def test_a_new_store_and_a_new_history_are_paired_once(home: Path) -> None:
    first = ensure_identity(Online(), home)
    assert first == ensure_identity(Online(), home) == check_identity(Online(), home) == expected_identity(home)


def test_an_emptied_store_is_refused_until_it_is_restored(home: Path) -> None:
    ensure_identity(Online(), home)
    (home / "history" / "events" / "date=2020-01-01").mkdir()
    (home / "history" / "events" / "date=2020-01-01" / "a.parquet").touch()
    online = empty_the_store(home)
    for look in (check_identity, ensure_identity):
        with pytest.raises(IdentityLost, match="seminar replay --from history"):
            look(online, home)
    restore_identity(online, home)
    assert check_identity(online, home) == expected_identity(home)


def test_the_store_of_another_history_is_refused(home: Path) -> None:
    online = Online()
    ensure_identity(online, home)
    (home / "history" / "IDENTITY").write_text("another\n")
    with pytest.raises(IdentityLost, match="belongs to another history"):
        ensure_identity(online, home)
    (home / "history" / "IDENTITY").unlink()
    with pytest.raises(IdentityLost, match="belongs to another history"):
        ensure_identity(online, home)


def test_watermarks_of_several_members(home: Path) -> None:
    online = Online()
    assert watermarks(online) == {}
    write_watermarks(online, {"t/0": Watermark(5, 1000)})
    write_watermarks(online, {"t/1": Watermark(0, 7)})
    write_watermarks(online, {"t/0": Watermark(9, 2000)})
    assert watermarks(online) == {"t/0": Watermark(9, 2000), "t/1": Watermark(0, 7)}


def test_watermarks_of_partitions_that_are_gone_go(home: Path) -> None:
    online, mark = Online(), Watermark(5, 1000)
    write_watermarks(online, {f"{topic}/{i}": mark for topic in ("t", "u") for i in range(3)})
    write_watermarks(online, {"t/0": mark}, {"t": 2})
    assert sorted(watermarks(online)) == ["t/0", "t/1", "u/0", "u/1", "u/2"]


def test_a_reader_learns_that_its_store_was_emptied_or_swapped(home: Path) -> None:
    online = Online()
    assert Pairing(online, home, 0).trouble() == "", "nothing was ever applied"
    ensure_identity(online, home)
    pairing = Pairing(online, home, 0)
    assert pairing.trouble() == ""
    (home / "history" / "IDENTITY").write_text("another\n")
    assert "belongs to another history" in pairing.trouble()
    empty_the_store(home)
    assert "was emptied" in pairing.trouble()


def test_a_writer_with_a_clock_that_is_ahead_holds_no_later_one_back(home: Path) -> None:
    online = Online()

    class Ahead(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> "Ahead":  # type: ignore[override]
            return cls.fromtimestamp(datetime.now(UTC).timestamp() + 3600, tz)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("features.online.datetime", Ahead)
        write_watermarks(online, {"t/0": Watermark(5, 1000)})
    write_watermarks(online, {"t/0": Watermark(6, 1001)})
    write_watermarks(online, {"t/0": Watermark(7, 1002)})
    assert watermarks(online)["t/0"].offset == 7
