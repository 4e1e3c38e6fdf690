from pathlib import Path

import pytest

from benchmarks.harness import days
from features import history, labels, quality
from features.compaction import compact
from features.errors import SeminarError
from tests.dags import shop


def test_three_days_of_backfill_give_the_same_history_as_the_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from features.online import Online
    from features.parity import compare
    from streaming.deadletters import FileSink
    from streaming.importer import import_events

    monkeypatch.setenv("SEMINAR_HOME", "")
    last = shop.yesterday()
    since = last - 2 * days.DAY_MS
    whole = [event for i in range(3) for event in days.day(since + i * days.DAY_MS, users=6)]
    limits = quality.Limits(repeats=0.5, late=1.0)  # some comes twice, and days after it happened
    found = []
    for name in ("streamed", "backfilled"):
        shop.make(home := tmp_path / name, since, length=4, users=6)
        if name == "streamed":
            for i in range(0, len(whole), 7):
                shop.stream(home, whole[i : i + 7])
                if i % 21 == 0:
                    compact(home, grace_s=0)
        else:  # in another order, some of it twice, a date at a time
            import_events("days", [*whole[::-1], *whole[:20]], Online(), home, FileSink(home))
        for i in range(3):
            date = quality.date_of(since + i * days.DAY_MS)
            quality.refuse(quality.check(home, date, closed=True, limits=limits))
            day = since + i * days.DAY_MS
            labels.publish(home, day, day + days.DAY_MS, watermark_ms=last + 3 * days.DAY_MS)
        version = compact(home, grace_s=0)["version"]
        sequences = history.read_sequences(home, version=version)
        rows = [
            table.select([x for x in table.column_names if x not in ("topic", "partition", "offset", "arrived")])
            for table in (
                history.read_items(home, version=version),
                history.read_queries(home, version=version).drop_columns(["event_timestamp"]),
                history.read_impressions(home, version=version),
                history.read_labels(home, version=version),
            )
        ]
        found.append([sequences.user_ids, sequences.offsets.tolist(), sequences.records.tobytes(), *rows])
        assert compare(Online(), home)["faults"] == 0
    assert found[0] == found[1]
    assert len(found[0][-1]) == 18  # labels: a user and day


def test_limits_are_a_table_of_the_homes_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEMINAR_HOME", "")
    date = quality.date_of(shop.yesterday())
    shop.make(tmp_path, shop.yesterday(), length=4, users=4)
    shop.stream(tmp_path, days.day(shop.yesterday(), users=4, poison="duplicated"))
    with pytest.raises(SeminarError, match=rf"repeats 0\.5 \(limit 0\.2\).*history accept {date} --reason WHY"):
        quality.refuse(quality.check(tmp_path, date))
    assert quality.refused(tmp_path) == [date]
    (tmp_path / "settings.toml").write_text("[quality]\nrepeats = 0.6\n")
    quality.refuse(quality.check(tmp_path, date))
    assert quality.refused(tmp_path) == []
    (tmp_path / "settings.toml").write_text("[quality]\nrepeat = 0.6\n")
    with pytest.raises(SeminarError, match="'repeat' is not known"):
        quality.check(tmp_path, date)


def test_a_replay_is_no_repeat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEMINAR_HOME", "")
    date, events = quality.date_of(shop.yesterday()), days.day(shop.yesterday(), users=4)
    shop.make(tmp_path, shop.yesterday(), length=4, users=4)
    shop.stream(tmp_path, events)
    before = quality.measure(tmp_path, date)
    for i in range(0, len(events), 9):  # other batches, so other files
        shop.stream(tmp_path, events[i : i + 9])
    assert quality.measure(tmp_path, date) == before
    assert before["repeats"] == 0


def test_a_date_that_was_closed_stays_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One late event is looked at again, without what was expected of the whole date being forgotten."""
    monkeypatch.setenv("SEMINAR_HOME", "")
    date, events = quality.date_of(shop.yesterday()), days.day(shop.yesterday(), users=4)
    shop.make(tmp_path, shop.yesterday(), length=4, users=4)
    shop.stream(tmp_path, events[:-1])
    limits = quality.Limits(least=10_000)
    assert quality.check(tmp_path, date, limits=limits)["passed"]
    assert not quality.check(tmp_path, date, closed=True, limits=limits)["passed"]
    shop.stream(tmp_path, events[-1:])
    assert not quality.check(tmp_path, date, limits=limits)["passed"]
    assert quality.refused(tmp_path) == [date]


def test_many_refused_messages_are_a_fault_of_their_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEMINAR_HOME", "")
    from streaming.deadletters import FileSink, dates
    from streaming.events import Invalid

    shop.make(tmp_path, shop.yesterday(), length=4, users=4)
    events = days.day(shop.yesterday(), users=4)
    shop.stream(tmp_path, events)
    letters = [(shop.message(event, 1000 + i), Invalid("query", "", "is empty")) for i, event in enumerate(events[:3])]
    FileSink(tmp_path).send(letters)
    date = quality.date_of(shop.yesterday())
    assert dates(tmp_path, None) == {date: 3}
    found = quality.check(tmp_path, date, bad=dates(tmp_path, None)[date])
    assert [x["name"] for x in found["checks"] if not x["passed"]] == ["bad"]
