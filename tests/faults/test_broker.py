"""The broker killed -9 and started again while producer and consumer go on."""

import time

import pytest

from benchmarks.harness.kafka_broker import KafkaBroker
from benchmarks.harness.stand import Stand, finish
from benchmarks.harness.waiting import until

from .conftest import assert_each_once


@pytest.mark.parametrize("times", [1, pytest.param(3, marks=pytest.mark.long)])
def test_the_broker_is_killed_and_started_again_under_load(broker: KafkaBroker, stand: Stand, times: int) -> None:
    pid = stand.member()
    load = stand.load(3000 + 9000 * (times - 1), rate=500, bad=0.01)
    for _ in range(times):
        before = len(stand.steps(pid))
        until(lambda before=before: len(stand.steps(pid)) > before + 6, 60, "nothing is consumed")  # type: ignore[misc]
        broker.kill()
        time.sleep(0.5)
        broker.start()
    finish(load)
    stand.settle()
    stand.stop(pid)
    assert_each_once(stand.judge())
