"""The consumer killed -9 in every gap between the steps of a batch, and at any moment under load."""

import random
import signal
import time

import pytest

from benchmarks.harness.members import STEPS
from benchmarks.harness.stand import Stand, finish
from benchmarks.harness.waiting import until

from .conftest import assert_each_once


def kill_in_gaps(stand: Stand, times: int) -> None:
    """Kill a member after each step, `times` times each; the log must prove that it died there."""
    for round_ in range(times):
        for step in STEPS:
            pid = stand.member(die_at=step, die_after=round_ % 3, events=20, seconds=0.05)
            assert stand.ended(pid) == -signal.SIGKILL
            assert stand.steps(pid)[-1][1:] == (round_ % 3 + 1, step)


@pytest.mark.parametrize("times", [1, pytest.param(5, marks=pytest.mark.long)])
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
    """At random moments: every fourth from its start on, so also while it joins, the others from its first step on, so also
    inside of steps; the next member starts at once, under the same name."""
    dice, load = random.Random(0), stand.load(36_000, rate=400, bad=0.01)
    for kill in range(100):
        pid = stand.member(events=300)
        if kill % 4:  # how long a start takes is the machine's affair
            until(lambda pid=pid: bool(stand.steps(pid)) or stand.idle(), 60, "the member did not begin")
        time.sleep(dice.uniform(0, 0.5))
        assert stand.kill(pid) == -signal.SIGKILL
    assert len(stand.killed_after()) >= 3, "kills that all fall into one gap prove little"
    pid = stand.member()
    finish(load)
    stand.settle()
    stand.stop(pid)
    assert_each_once(stand.judge())
