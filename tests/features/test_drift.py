from pathlib import Path

import numpy as np
import pytest

from benchmarks.harness import days
from features import quality
from features.drift import drift, psi
from tests.dags import shop


def test_the_index_by_hand() -> None:
    assert psi(np.array([50.0, 50.0]), np.array([500.0, 500.0])) == 0
    p, q = np.array([0.9, 0.1]), np.array([0.5, 0.5])
    expected = ((p - q) * np.log(p / q)).sum()
    assert psi(1e6 * p, 1e6 * q) == pytest.approx(expected, abs=1e-3)
    assert psi(np.zeros(3), np.ones(3)) == 0  # nothing to compare


def test_what_chance_alone_gives_is_no_drift() -> None:
    rng = np.random.default_rng(0)
    shares = np.full(20, 0.05)
    found = [
        psi(rng.multinomial(400, shares).astype(float), rng.multinomial(4000, shares).astype(float)) for _ in range(200)
    ]
    assert np.mean(found) < 0.02


def test_a_day_like_the_others_and_one_at_another_hour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEMINAR_HOME", "")
    last = shop.yesterday()
    shop.make(tmp_path, last, length=6, users=20)
    shop.stream(tmp_path, days.day(last, users=20))
    usual = drift(tmp_path, quality.date_of(last))
    assert usual["events"] > 0 < usual["before"]
    assert max(usual["psi"].values()) < 0.25
    shop.make(other := tmp_path / "other", last, length=6, users=20)
    events = days.day(last, users=20)
    shop.stream(other, events[: len(events) // 3])  # the first hours only
    assert drift(other, quality.date_of(last))["psi"]["hour"] > 0.25
