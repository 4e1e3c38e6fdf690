"""Members that join, leave and take over from a killed one, under load."""

import os
import random
import signal
import subprocess
import time

import pytest
from kafka.errors import KafkaError

from benchmarks.harness.stand import Stand, finish
from benchmarks.harness.waiting import until
from streaming import clients

from .conftest import assert_each_once

IMPATIENT = {"session_timeout_ms": 2000, "heartbeat_interval_ms": 300}


def batches(stand: Stand, pid: int) -> int:
    """How many batches a member has committed."""
    return sum(step == "commit" for _, _, step in stand.steps(pid))


def grows(stand: Stand, pid: int, load: subprocess.Popen[bytes]) -> None:
    """Wait until a member has committed one batch more; what a load that has ended no longer sends is sent here."""
    before = batches(stand, pid)

    def more() -> bool:
        if batches(stand, pid) > before:
            return True
        if load.poll() is not None:
            stand.send(100)
        return False

    until(more, 60, f"member {pid} commits nothing")


def test_a_member_joins_leaves_and_takes_over_from_a_killed_one(stand: Stand) -> None:
    load = stand.load(6000, rate=600, bad=0.01)
    one = stand.member("one", options=IMPATIENT, events=100)
    grows(stand, one, load)
    two = stand.member("two", options=IMPATIENT, events=100)
    grows(stand, two, load)
    stand.stop(one)
    grows(stand, two, load)
    three = stand.member("three", options=IMPATIENT, events=100)
    grows(stand, three, load)
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


def test_a_batch_in_hand_survives_a_rebalance_that_takes_and_gives_back_its_partitions(stand: Stand) -> None:
    """The client keeps the position of a partition that stays: what was read before is not read again."""
    away, patient = stand.folder / "away", {"session_timeout_ms": 20_000, "heartbeat_interval_ms": 200}
    members = [stand.member(name, options=patient, away=str(away), seconds=0.05) for name in ("a", "b")]
    until(lambda: state(stand) == ("Stable", 2), 60, "the group does not form")
    away.touch()
    stand.send(400)
    until(lambda: failing(stand) == set(members), 60, "no batch is in hand")
    os.kill(members[1], signal.SIGSTOP)  # the group waits for it with every change
    members.append(stand.member("c", options=patient, seconds=0.05))
    until(lambda: state(stand)[0] == "PreparingRebalance", 60, "no rebalance began")
    time.sleep(1)  # "a" has heard of it by its heartbeat
    committed = batches(stand, members[0])
    away.unlink()
    until(lambda: batches(stand, members[0]) > committed, 60, "the batch is not made up for")
    os.kill(members[1], signal.SIGCONT)
    stand.settle()
    for pid in members:
        stand.stop(pid)
    assert_each_once(stand.judge())


def failing(stand: Stand) -> set[int]:
    """The members that have a batch in hand which fails."""
    lines = stand.members.errors.read_text().splitlines()
    return {int(line.split()[2]) for line in lines if "batch of" in line} & set(stand.alive)


def state(stand: Stand) -> tuple[str, int]:
    """The group's state and the number of its members."""
    admin = clients.admin(stand.bootstrap)
    try:
        group = admin.describe_groups([stand.group])[stand.group]
        return group["group_state"], len(group["members"])
    except KafkaError:
        return "unknown", 0
    finally:
        admin.close()


@pytest.mark.long
def test_members_that_come_and_go_all_the_time_lose_nothing(stand: Stand) -> None:
    """Batches that span rebalances: what a member holds while its partitions are taken and given back must not be lost."""
    dice, load, alive = random.Random(1), stand.load(16_000, rate=400), list[int]()
    names = iter(range(100))
    while load.poll() is None:
        while len(alive) < 2 + dice.randrange(3):
            alive.append(stand.member(f"m{next(names)}", options=IMPATIENT, events=400, seconds=dice.choice((0.05, 0.4))))
            time.sleep(dice.uniform(0.3, 1.0))
        gone = alive.pop(dice.randrange(len(alive)))
        if dice.random() < 0.5:
            stand.kill(gone)
        else:
            stand.stop(gone)
    finish(load)
    stand.settle()
    for pid in alive:
        stand.stop(pid)
    assert_each_once(stand.judge())
