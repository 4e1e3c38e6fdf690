from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from features.fences import user_hash
from features.record import RECORD
from features.requests import KEEP_DAYS, Logged, Writer, digest, erase, read

DAY_MS = 86_400_000


def logged(user: str, scored_ms: int) -> Logged:
    return Logged(
        scored_ms=scored_ms,
        version="v000001",
        user=user,
        query=None,
        candidates=["a"],
        time_ms=scored_ms,
        method="auto",
        length=0,
        digest=digest(np.empty(0, RECORD)),
        degraded=[],
        rates=[0.5, None],
        total_ms=1.0,
    )


def test_what_is_written_is_read_and_a_torn_line_is_not(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    for day in range(3):
        writer.write(logged(f"u{day}", 1_700_000_000_000 + day * DAY_MS))
    file = sorted((tmp_path / "requests").glob("*/*.jsonl"))[-1]
    file.write_bytes(file.read_bytes() + file.read_bytes()[:20])
    assert [found.user for found in read(tmp_path)] == ["u0", "u1", "u2"]
    assert [found.user for found in read(tmp_path, 1_700_000_000_000 + DAY_MS)] == ["u1", "u2"]


def test_old_days_go(tmp_path: Path) -> None:
    for day in (0, KEEP_DAYS, KEEP_DAYS + 1):
        Writer(tmp_path).write(logged("u", 1_700_000_000_000 + day * DAY_MS))
    days = [datetime.fromtimestamp(1_700_000_000 + d * 86_400, UTC).date() for d in (KEEP_DAYS, KEEP_DAYS + 1)]
    assert sorted(x.name for x in (tmp_path / "requests").iterdir()) == [f"date={day}" for day in days]


def test_a_forgotten_user_goes_and_a_writer_goes_on(tmp_path: Path) -> None:
    writer, now = Writer(tmp_path), 1_700_000_000_000
    for user in ("one", "two", "one"):
        writer.write(logged(user, now))
    assert erase(tmp_path, {user_hash("one"): now + 1}) == 2
    writer.write(logged("one", now + 2))
    assert [found.user for found in read(tmp_path)] == ["two", "one"]
