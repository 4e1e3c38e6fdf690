"""The benches of the scorer run whole, on a small world: real servers, a client on another core."""

from pathlib import Path

import pytest

from benchmarks import score, swap
from benchmarks.harness import world

pytestmark = pytest.mark.long


@pytest.fixture
def given(tmp_path: Path) -> world.World:
    return world.untrained(tmp_path / "bundles", 32, 3_000)


def test_both_searches_are_measured_in_both_loops(given: world.World) -> None:
    found = score.run(given, (100, 1_000), (10, 100), ("sqlite",), 5, 2, 50, (1_000,), memory=False)
    assert {(case["method"], case["loop"]) for case in found["cases"]} == {
        (method, loop) for method in score.METHODS for loop in ("closed", "open")
    }
    for case in found["cases"]:
        assert 0 < case["p50_ms"] <= case["p99_ms"]
        assert case["requests"] == 10
        assert set(case["stages_ms"]) == {"sequence", "encode", "search", "attention", "tiers", "head", "total", "http"}


def test_bundles_change_under_requests(given: world.World) -> None:
    requests = 4_000  # as many as are answered while workers look for a new pointer several times
    found = swap.run(given, requests, 6, 1)
    assert (found["requests"], found["swaps"], found["failed"], found["mixed"]) == (requests, 6, 0, 0)
    assert found["corrupt_refused"]
    assert found["corrupt_answers"] == 0
    assert len(found["answers_by_version"]) == 3
