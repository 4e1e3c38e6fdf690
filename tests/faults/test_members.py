"""Members that join, leave and take over from a killed one, under load."""

import signal

from benchmarks.harness.stand import Stand, finish, until

from .conftest import assert_each_once

IMPATIENT = {"session_timeout_ms": 2000, "heartbeat_interval_ms": 300}


def batches(stand: Stand, pid: int) -> int:
    """How many batches a member has committed."""
    return sum(step == "commit" for _, _, step in stand.steps(pid))


def grows(stand: Stand, pid: int) -> None:
    """Wait until a member has committed one batch more."""
    before = batches(stand, pid)
    until(lambda: batches(stand, pid) > before, 60, f"member {pid} commits nothing")


def test_a_member_joins_leaves_and_takes_over_from_a_killed_one(stand: Stand) -> None:
    load = stand.load(6000, rate=600, bad=0.01)
    one = stand.member("one", options=IMPATIENT, events=100)
    grows(stand, one)
    two = stand.member("two", options=IMPATIENT, events=100)
    grows(stand, two)
    stand.stop(one)
    grows(stand, two)
    three = stand.member("three", options=IMPATIENT, events=100)
    grows(stand, three)
    assert stand.kill(two) == -signal.SIGKILL
    finish(load)
    stand.settle()  # by the third alone, after the session of the killed one has ended
    stand.stop(three)
    assert_each_once(stand.judge())


def test_a_producer_killed_while_it_sends_and_started_again_doubles_nothing(stand: Stand) -> None:
    pid = stand.member()
    load = stand.load(3000, rate=1000)
    until(lambda: stand.acknowledged[0].stat().st_size > 20_000, 60, "nothing was acknowledged")
    load.kill()
    load.wait()
    before = stand.acknowledged[0].read_bytes().count(b"\n")
    assert 0 < before < 3000
    stand.send(3000, first=0)
    stand.settle()
    stand.stop(pid)
    found = stand.judge()
    assert_each_once(found)
    assert found["acknowledged"] == 3000
    assert found["sent_again"] >= before - 1  # a last line may have been cut off
