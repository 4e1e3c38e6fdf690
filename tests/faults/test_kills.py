"""The consumer killed -9 in every gap between the steps of a batch, and at any moment under load."""

import random
import signal
import time

import pytest

from benchmarks.harness.members import STEPS
from benchmarks.harness.stand import Stand, finish

from .conftest import assert_each_once


def kill_in_gaps(stand: Stand, times: int) -> None:
    """Kill a member after each step, `times` times each; the log must prove that it died there."""
    for round_ in range(times):
        for step in STEPS:
            pid = stand.member(die_at=step, die_after=round_ % 3, events=20, seconds=0.05)
            assert stand.ended(pid) == -signal.SIGKILL
            assert stand.steps(pid)[-1][1:] == (round_ % 3 + 1, step)


@pytest.mark.parametrize("times", [1, pytest.param(10, marks=pytest.mark.long)])
def test_killed_in_each_gap(stand: Stand, times: int) -> None:
    load = stand.load(400 + 2400 * (times - 1), bad=0.05)
    kill_in_gaps(stand, times)
    pid = stand.member()
    finish(load)
    stand.settle()
    stand.stop(pid)
    found = stand.judge()
    assert_each_once(found)
    assert found["repeats_online"] > 0, "a kill after `online` repeats the batch: the pages must show it"


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_hundred_kills_under_load(stand: Stand) -> None:
    """At random moments, so also inside of steps; the next member starts at once, under the same name."""
    dice, load, kills = random.Random(0), stand.load(36_000, rate=400, bad=0.01), 0
    while kills < 100:
        pid = stand.member(events=300)
        time.sleep(dice.uniform(0.2, 1.2))
        assert stand.kill(pid) == -signal.SIGKILL
        kills += 1
    assert len(stand.killed_after()) >= 3, "kills that all fall into one gap prove little"
    pid = stand.member()
    finish(load)
    stand.settle()
    stand.stop(pid)
    assert_each_once(stand.judge())
