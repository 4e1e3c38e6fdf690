"""The Redis store killed -9 and started again on its append-only file, under load; members killed in every gap over it."""

import time

import pytest

from benchmarks.harness.redis_server import RedisServer
from benchmarks.harness.stand import Stand, finish
from benchmarks.harness.waiting import until

from .conftest import assert_each_once
from .test_kills import kill_in_gaps


@pytest.mark.parametrize("times", [2, pytest.param(10, marks=pytest.mark.long)])
def test_redis_is_killed_and_started_again_under_load(redis: RedisServer, redis_stand: Stand, times: int) -> None:
    pid = redis_stand.member(events=200)
    load = redis_stand.load(1500 * times, rate=500, bad=0.01)
    for _ in range(times):
        before = len(redis_stand.steps(pid))
        until(lambda before=before: len(redis_stand.steps(pid)) > before + 6, 60, "nothing is consumed")  # type: ignore[misc]
        redis.kill()
        time.sleep(0.7)
        redis.start()
    finish(load)
    redis_stand.settle()
    redis_stand.stop(pid)
    assert_each_once(redis_stand.judge())


@pytest.mark.parametrize("times", [1, pytest.param(5, marks=pytest.mark.long)])
def test_killed_in_each_gap_over_redis(redis_stand: Stand, times: int) -> None:
    load = redis_stand.load(400 + 2400 * (times - 1), bad=0.05)
    kill_in_gaps(redis_stand, times)
    pid = redis_stand.member()
    finish(load)
    redis_stand.settle()
    redis_stand.stop(pid)
    found = redis_stand.judge()
    assert_each_once(found)
    assert found["repeats_online"] > 0, "a kill after `online` repeats the batch: the rows must show it"
