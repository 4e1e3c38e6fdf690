"""Kills under load, judged by an oracle: nothing acknowledged may be lost or doubled.

    python -m benchmarks.faults --rounds N --json [--store sqlite|redis] [--rate 400]

A round kills the consumer -9 once after each step of a batch (it kills itself there; its log proves it) and four times at
random moments, so also inside a step, while a producer goes on; every fifth round the broker, and with `--store redis` the
store, is killed -9 and started again. At the end every acknowledged event is compared with history, with the raw rows of
the store and with what is served.
"""

import argparse
import json
import os
import random
import signal
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.consume import machine
from benchmarks.harness import kafka_broker
from benchmarks.harness.kafka_broker import KafkaBroker
from benchmarks.harness.members import STEPS, Members
from benchmarks.harness.redis_server import RedisServer
from benchmarks.harness.stand import Stand
from benchmarks.harness.waiting import until
from features.errors import SeminarError
from streaming import topics

RANDOM_KILLS, OTHERS_EVERY = 4, 5


def run(rounds: int, store: str = "sqlite", rate: float = 400, seed: int = 0) -> dict[str, Any]:
    """The figures of so many rounds; SeminarError without a broker."""
    if reason := kafka_broker.why_not():
        raise SeminarError("KAFKA_HOME", os.environ.get("KAFKA_HOME"), reason, "name a Kafka distribution; install Java 17")
    dice, begin = random.Random(seed), time.monotonic()
    exact, anywhere, others = dict.fromkeys(STEPS, 0), 0, {"broker": 0, "redis": 0}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        broker = stack.enter_context(KafkaBroker(folder / "kafka"))
        redis = stack.enter_context(RedisServer(folder / "redis")) if store == "redis" else None
        members = stack.enter_context(Members(folder / "errors.log"))
        topics.apply(broker.bootstrap)
        stand = stack.enter_context(Stand(folder / "stand", broker.bootstrap, members, redis))
        for number in range(rounds):
            load = stand.load(round(rate * 12), rate=rate, bad=0.01)
            for step in dice.sample(STEPS, len(STEPS)):
                pid = stand.member(die_at=step, die_after=dice.randrange(3), events=50, seconds=0.05)
                feed(stand, partial(_ended, stand, pid))
                if stand.ended(pid) != -signal.SIGKILL or stand.steps(pid)[-1][2] != step:
                    raise SeminarError("benchmark", step, "was not where the kill fell", "see the log of steps")
                exact[step] += 1
            for _ in range(RANDOM_KILLS):
                pid = stand.member(events=300, seconds=0.05)
                feed(stand, partial(_works, stand, pid))
                time.sleep(dice.uniform(0, 0.5))  # anywhere in a batch
                stand.kill(pid)
                anywhere += 1
            if number % OTHERS_EVERY == OTHERS_EVERY - 1:
                pid = stand.member()
                broker.kill()
                others["broker"] += 1
                broker.start()
                if redis:
                    redis.kill()
                    others["redis"] += 1
                    redis.start()
                stand.settle()
                stand.stop(pid)
            load.wait()
        pid = stand.member()
        stand.settle()
        stand.stop(pid)
        found = stand.judge()
        last = stand.killed_after()
    return {
        "rounds": rounds,
        "kills": sum(exact.values()) + anywhere + sum(others.values()),
        **found,
        "kills_in_gaps": exact,
        "kills_anywhere": anywhere,
        "kills_of_others": others,
        "members_ended_after": last,
        "store": store,
        "rate": rate,
        "partitions": 4,
        "seconds": round(time.monotonic() - begin),
        **machine(),
    }


def _ended(stand: Stand, pid: int) -> bool:
    return not stand.runs(pid)


def _works(stand: Stand, pid: int) -> bool:
    return bool(stand.steps(pid))


def feed(stand: Stand, done: Callable[[], bool]) -> None:
    """Wait until it is done, and see meanwhile that there is something to consume: else no member comes to any step."""

    def fed() -> bool:
        if not done() and stand.idle():
            stand.load(400, bad=0.05).wait()
        return done()

    until(fed, 90, "a member consumes nothing; see the broker's log", 0.02)


def main() -> None:
    """Read the arguments and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--store", choices=("sqlite", "redis"), default="sqlite")
    parser.add_argument("--rate", type=float, default=400, help="events a second")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="as always: one JSON object on the last line")
    given = parser.parse_args()
    print(json.dumps(run(given.rounds, given.store, given.rate, given.seed)))


if __name__ == "__main__":
    main()
