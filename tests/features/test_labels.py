from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from features import history, labels
from features.compaction import compact
from features.fences import raise_fence, user_hash
from features.record import KIND_BROWSE, RECORD

T0 = int(datetime(2025, 3, 3, tzinfo=UTC).timestamp() * 1000)
HOUR = 3_600_000
DAY = 24 * HOUR


def origin(ms: int) -> dict[str, Any]:
    moment = datetime.fromtimestamp(ms / 1000, UTC)
    return {"event_timestamp": moment, "topic": "t", "partition": 0, "offset": ms % 997, "arrived": moment}


def put(home: Path, table: str, *rows: dict[str, Any]) -> None:
    name = f"b{sum(1 for _ in home.rglob('*.parquet'))}"
    history.write(home, table, pa.Table.from_pylist(list(rows), schema=history.SCHEMAS[table]), name)


def show(home: Path, name: str, ms: int, *items: int, user: str = "u") -> None:
    row = {"user_id": user, "impression_id": name, "query": 0, "items": items, "positions": range(len(items)), "place": None}
    put(home, history.IMPRESSIONS, {**row, **origin(ms)})


def browse(home: Path, ms: int, item: int, impression: str | None = None, user: str = "u") -> None:
    record = np.zeros(1, RECORD)
    record["time"], record["item"], record["kind"], record["digest"] = ms, item, KIND_BROWSE, ms % 4096
    put(home, history.EVENTS, {"user_id": user, "sequence": record.tobytes(), **origin(ms)})
    if impression:
        put(home, history.CLICKS, {"user_id": user, "impression_id": impression, "item": item, **origin(ms)})


def found(home: Path, watermark: int = T0 + 9 * DAY) -> dict[str, tuple[list[int], bool]]:
    rows = labels.join(home, T0, T0 + DAY, watermark).to_pylist()
    return {row["impression_id"]: (row["clicked"], row["complete"]) for row in rows}


def test_a_click_is_of_the_impression_that_it_names(tmp_path: Path) -> None:
    show(tmp_path, "first", T0, 1, 2)
    show(tmp_path, "second", T0 + HOUR, 1, 2)
    browse(tmp_path, T0 + 2 * HOUR, 1, "second")
    assert found(tmp_path) == {"first": ([], True), "second": ([1], True)}


def test_every_browse_that_names_an_impression_is_of_it_alone(tmp_path: Path) -> None:
    show(tmp_path, "first", T0, 1, 2)
    show(tmp_path, "second", T0 + HOUR, 1, 2)
    for minute in (0, 5, 5):  # opened twice, and once more delivered
        browse(tmp_path, T0 + 2 * HOUR + minute * 60_000, 1, "second")
    assert found(tmp_path) == {"first": ([], True), "second": ([1], True)}


def test_one_that_names_none_counts_for_all_whose_window_it_lies_in(tmp_path: Path) -> None:
    show(tmp_path, "first", T0, 1, 2)
    show(tmp_path, "second", T0 + HOUR, 2, 3)
    browse(tmp_path, T0 + 2 * HOUR, 2)
    browse(tmp_path, T0 + HOUR // 2, 3)  # before it was shown
    browse(tmp_path, T0 + DAY + 1, 1)  # a ms too late
    browse(tmp_path, T0 + HOUR, 1, user="another")
    assert found(tmp_path) == {"first": ([2], True), "second": ([2], True)}


def test_a_click_on_what_was_not_shown_is_none(tmp_path: Path) -> None:
    show(tmp_path, "first", T0, 1, 2)
    browse(tmp_path, T0 + HOUR, 7, "first")
    assert found(tmp_path) == {"first": ([], True)}


def test_a_label_waits_for_its_window_and_late_clicks_correct_it(tmp_path: Path) -> None:
    show(tmp_path, "first", T0 + HOUR, 1, 2)
    done = labels.publish(tmp_path, T0, T0 + DAY, watermark_ms=T0 + 2 * HOUR)
    assert (done["written"], done["complete"], done["clicks"]) == (1, 0, 0)
    done = labels.publish(tmp_path, T0, T0 + DAY, watermark_ms=T0 + 2 * DAY)
    assert (done["written"], done["complete"], done["corrected"]) == (1, 1, 0)
    browse(tmp_path, T0 + 3 * HOUR, 2, "first")  # in time, but it came late
    done = labels.publish(tmp_path, T0, T0 + DAY, watermark_ms=T0 + 3 * DAY)
    assert (done["written"], done["corrected"], done["clicks"]) == (1, 1, 1)
    again = labels.publish(tmp_path, T0, T0 + DAY, watermark_ms=T0 + 4 * DAY)
    assert (again["written"], again["clicks"]) == (0, 1)
    version = compact(tmp_path, grace_s=0)["version"]
    for named in (None, version):
        (row,) = history.read_labels(tmp_path, version=named).to_pylist()
        assert (row["clicked"], row["complete"]) == ([2], True)
        assert labels.clicked(tmp_path, T0, T0 + DAY, named) == {("u", "first"): [2]}


def test_a_version_holds_the_labels_that_it_was_made_with(tmp_path: Path) -> None:
    show(tmp_path, "first", T0 + HOUR, 1, 2)
    labels.publish(tmp_path, T0, T0 + DAY, watermark_ms=T0 + 2 * DAY)
    version = compact(tmp_path)["version"]
    browse(tmp_path, T0 + 3 * HOUR, 2, "first")
    labels.publish(tmp_path, T0, T0 + DAY, watermark_ms=T0 + 3 * DAY)
    assert labels.clicked(tmp_path, T0, T0 + DAY, version) == {("u", "first"): []}
    assert labels.clicked(tmp_path, T0, T0 + DAY) == {("u", "first"): [2]}


def test_what_a_user_had_forgotten_is_no_label(tmp_path: Path) -> None:
    show(tmp_path, "first", T0, 1)
    show(tmp_path, "theirs", T0, 1, user="another")
    labels.publish(tmp_path, T0, T0 + DAY, watermark_ms=T0 + 3 * DAY)
    raise_fence(tmp_path, user_hash("u"), T0 + DAY)
    assert history.read_labels(tmp_path)["user_id"].to_pylist() == ["another"]
    assert set(labels.clicked(tmp_path, T0, T0 + DAY)) == {("another", "theirs")}


def test_a_date_is_closed_once_but_again_by_the_run_that_was_killed(tmp_path: Path) -> None:
    def close(date: str, version: str, run: str) -> bool:
        found = labels.close(tmp_path, date, version, run, {"written": 0})
        return found is not None and found["closed"][date] == [version, run]

    assert close("2025-03-03", "v000001", "first")
    assert close("2025-03-03", "v000001", "first")  # it was killed before anybody heard of it
    assert not close("2025-03-03", "v000001", "second")
    assert [close(f"2025-03-0{day}", f"v00000{day}", "backfill") for day in (4, 5)] == [True, True]
    assert not any(close(f"2025-03-0{day}", "v000005", "backfill again") for day in (3, 4, 5))
    assert close("2025-03-04", "v000006", "what came late")
