"""How fast the consumer is, beside a bare poll loop of the same client over the same topics.

    python -m benchmarks.consume --json [--events 200000] [--rounds 3] [--stores sqlite,redis] [--members 1,2]

A broker of its own (KAFKA_HOME), 4 partitions a topic. Each run is a process of its own; runs of the poll loop and of the
stores alternate; figures are medians of events a second, wall clock from connecting to the last commit (poll loop: to the
last record). Nothing is left out: validation, fsync, dead letters of the bad share, watermarks. `ratio_to_poll` is the
median of the ratios within each round. The poll loop is bare kafka-python, whose checksum is pure Python; `poll_fast` is the
same loop with the package crc32c, which the consumer uses: `ratio_to_poll_fast` is the stricter comparison.
"""

import argparse
import contextlib
import functools
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.harness import kafka_broker, redis_server
from benchmarks.harness.kafka_broker import KafkaBroker
from benchmarks.harness.load import message
from benchmarks.harness.redis_server import RedisServer
from features.children import die_with_parent
from features.errors import SeminarError
from features.settings import REPOSITORY

USERS, ITEMS, QUERIES, BAD = 2_000, 50_000, 20_000, 0.01
HOURS = 3


def fill(bootstrap: str, events: int) -> dict[str, Any]:
    """Send distinct events of the last hours, a share of them no events; sizes."""
    from streaming import clients, topics

    topics.apply(bootstrap)
    producer = clients.producer(bootstrap, linger_ms=20, batch_size=1 << 18)
    dice, now, size, bad = random.Random(0), int(time.time() * 1000), 0, 0
    for number in range(events):
        kind = 2 if number % 3 else 1
        event: dict[str, Any] = {"id": f"{number:012x}", "source": "bench", "user": f"user-{dice.randrange(USERS)}"}
        event |= {"kind": kind, "time": now - dice.randrange(HOURS * 3_600_000), "item": None, "query": None, "dwell": 0}
        if kind == 1 or dice.random() < 0.3:
            event["query"] = f"words of query {int(dice.paretovariate(0.6)) % QUERIES}"
        if kind == 2:
            event |= {"item": f"item-{dice.randrange(ITEMS)}", "dwell": dice.randrange(300)}
        topic, key, body, headers = message(event)
        if dice.random() < BAD:
            body, bad = body[:-1], bad + 1
        size += len(key) + len(body) + sum(len(name) + len(value) for name, value in headers)
        producer.send(topic, key=key, value=body, headers=headers)
    producer.flush(300)
    producer.close()
    return {"events": events, "bad": bad, "bytes_an_event": round(size / events), "users": USERS}


def poll_loop(bootstrap: str, group: str, expected: int) -> dict[str, Any]:
    """A child: read everything with the consumer's own client settings, and do nothing with it."""
    from streaming import clients
    from streaming.topics import EVENT_TOPICS

    begin, count, cpu = time.perf_counter(), 0, time.process_time()
    consumer = clients.consumer(
        bootstrap,
        group_id=group,
        group_instance_id="poll",
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        max_poll_records=5000,
        fetch_max_wait_ms=100,
    )
    consumer.subscribe(list(EVENT_TOPICS))
    while count < expected:
        count += sum(len(records) for records in consumer.poll(timeout_ms=50, max_records=5000).values())
    seconds = time.perf_counter() - begin
    facts = {"seconds": seconds, "cpu_us_an_event": 1e6 * (time.process_time() - cpu) / expected, "count": count}
    consumer.close()
    return facts


def consume(bootstrap: str, group: str, expected: int, instance: str = "one") -> dict[str, Any]:
    """A child: `streaming.consumer.run` until the group has nothing left."""
    from features.online import Online
    from features.settings import settings
    from streaming import consumer
    from streaming.metrics import Metrics

    stop, metrics, online, last = threading.Event(), Metrics(), Online(), 0.0

    def step(name: str) -> None:
        nonlocal last
        if name == "commit":
            last = time.perf_counter()

    def watch() -> None:
        while not stop.wait(0.1):
            alone = expected and applied(metrics) >= expected
            if alone or (not expected and last and not sum(consumer.lag(bootstrap, group).values())):
                stop.set()

    threading.Thread(target=watch, daemon=True).start()
    begin, cpu, started = time.perf_counter(), time.process_time(), time.time()
    run_ = functools.partial(consumer.run, group=group, instance=instance, metrics=metrics, step=step)
    found = run_(bootstrap, online, settings().home, stop)
    count = sum(found["events"].values()) + found["rejected"]
    facts = {"seconds": last - begin, "began": started, "ended": started + last - begin, "count": count}
    return {**facts, "steps_s": found["steps_s"], "cpu_us_an_event": 1e6 * (time.process_time() - cpu) / max(1, count)}


def applied(metrics: Any) -> float:
    """Messages that a consumer's metrics have counted."""
    names = {"seminar_events_total", "seminar_dead_letters_total"}
    samples = (sample for family in metrics.registry.collect() for sample in family.samples)
    return sum(float(sample.value) for sample in samples if sample.name in names)


class Bench:
    """The runs over one filled broker."""

    def __init__(self, folder: Path, bootstrap: str, events: int, redis: RedisServer | None) -> None:
        self._folder, self._bootstrap, self._events, self._redis = folder, bootstrap, events, redis
        self._number = 0

    def poll(self, what: str = "poll") -> dict[str, Any]:
        """One run of the poll loop (or "poll_fast")."""
        (found,) = self._run(what, "", 1)
        return found

    def store(self, store: str, members: int = 1) -> dict[str, Any]:
        """One run into a store that is empty, by one or more members; events/s over the time of all."""
        found = self._run("consume", store, members)
        seconds = found[0]["seconds"]
        if members > 1:
            seconds = max(x["ended"] for x in found) - min(x["began"] for x in found)
        return {**found[0], "seconds": seconds, "count": sum(x["count"] for x in found)}

    def _run(self, what: str, store: str, members: int) -> list[dict[str, Any]]:
        self._number += 1
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "SEMINAR_HOME": str(self._folder / str(self._number))}
        if store == "redis" and self._redis:
            self._redis.kill()
            for file in self._redis.folder.rglob("*.aof*"):
                file.unlink()
            self._redis.start()
            environment["SEMINAR_ONLINE_STORE"] = str(self._redis.store())
        here = [sys.executable, "-W", "ignore", "-m", "benchmarks.consume"]
        if what == "poll":  # bare: as `pip install kafka-python` leaves it; it looks for the package when it is imported
            bare = "import sys; sys.modules['crc32c'] = None; from benchmarks.consume import main; main()"
            here = [sys.executable, "-W", "ignore", "-c", bare]
        if what == "consume":
            apply = [sys.executable, "-W", "ignore", "-m", "cli.main", "apply"]
            subprocess.run(apply, env=environment, check=True, stdout=subprocess.DEVNULL)
        expected = str(self._events if members == 1 else 0)
        children = [
            subprocess.Popen(
                [*here, "--child", what, self._bootstrap, f"g{self._number}", expected, f"member-{number}"],
                env=environment,
                stdout=subprocess.PIPE,
                preexec_fn=die_with_parent(),
            )
            for number in range(members)
        ]
        outputs = [child.communicate()[0] for child in children]
        if any(child.returncode for child in children):
            raise SeminarError("benchmark", what, "ended with an error", "see what it printed")
        return [json.loads(output.splitlines()[-1]) for output in outputs]


def run(events: int, rounds: int, stores: list[str], members: list[int]) -> dict[str, Any]:
    """The whole bench; see the module."""
    if reason := kafka_broker.why_not():
        raise SeminarError("KAFKA_HOME", os.environ.get("KAFKA_HOME"), reason, "name a Kafka distribution; install Java 17")
    if "redis" in stores and redis_server.why_not():
        stores = [x for x in stores if x != "redis"]
    polls: list[dict[str, Any]] = []
    fast: list[dict[str, Any]] = []
    found: dict[str, list[dict[str, Any]]] = {store: [] for store in stores}
    by_members: dict[int, list[dict[str, Any]]] = {count: [] for count in members if count > 1}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        broker = stack.enter_context(KafkaBroker(folder / "kafka"))
        redis = stack.enter_context(RedisServer(folder / "redis")) if "redis" in stores else None
        sizes = fill(broker.bootstrap, events)
        bench = Bench(folder, broker.bootstrap, events, redis)
        for number in range(rounds):
            polls.append(bench.poll())
            fast.append(bench.poll("poll_fast"))
            order = stores if number % 2 else stores[::-1]
            for store in order:
                found[store].append(bench.store(store))
            for count, runs in by_members.items():
                runs.append(bench.store(stores[0], count))
    rates = {store: [x["count"] / x["seconds"] for x in runs] for store, runs in found.items()}
    poll_rates = [x["count"] / x["seconds"] for x in polls]
    fast_rates = [x["count"] / x["seconds"] for x in fast]
    summary = {
        store: {
            "events_per_s": round(statistics.median(rates[store])),
            "ratio_to_poll": round(statistics.median(a / b for a, b in zip(rates[store], poll_rates, strict=True)), 3),
            "ratio_to_poll_fast": round(statistics.median(a / b for a, b in zip(rates[store], fast_rates, strict=True)), 3),
            "cpu_us_an_event": round(statistics.median(x["cpu_us_an_event"] for x in runs), 1),
            "steps_s": {name: round(seconds, 2) for name, seconds in runs[-1]["steps_s"].items()},
        }
        for store, runs in found.items()
    }
    slowest = min(summary.values(), key=lambda x: x["events_per_s"])
    return {
        "events_per_s": slowest["events_per_s"],
        "poll_events_per_s": round(statistics.median(poll_rates)),
        "ratio_to_poll": slowest["ratio_to_poll"],
        "poll_fast_events_per_s": round(statistics.median(fast_rates)),
        "ratio_to_poll_fast": slowest["ratio_to_poll_fast"],
        "poll_cpu_us_an_event": round(statistics.median(x["cpu_us_an_event"] for x in polls), 1),
        "stores": summary,
        "members": {
            "1": summary[stores[0]]["events_per_s"],
            **{
                str(count): round(statistics.median(x["count"] / x["seconds"] for x in runs))
                for count, runs in by_members.items()
            },
        },
        "rounds": rounds,
        "partitions": 4,
        **sizes,
        **machine(),
    }


def machine() -> dict[str, Any]:
    """What a figure depends on."""
    names = ("kafka-python", "crc32c", "feast", "pyarrow", "redis", "numpy")
    return {
        "cores": os.cpu_count(),
        "threads": int(os.environ.get("OMP_NUM_THREADS") or 0),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in names},
    }


def main() -> None:
    """Read the arguments and print one JSON line."""
    if sys.argv[1:2] == ["--child"]:
        what, bootstrap, group, expected, instance = sys.argv[2:]
        given = (bootstrap, group, int(expected))
        print(json.dumps(consume(*given, instance) if what == "consume" else poll_loop(*given)))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--stores", default="sqlite,redis", help="sqlite, redis")
    parser.add_argument("--members", default="1,2", help="numbers of members to try, of the first store")
    parser.add_argument("--json", action="store_true", help="as always: one JSON object on the last line")
    given_ = parser.parse_args()
    members = [int(count) for count in given_.members.split(",")]
    print(json.dumps(run(given_.events, given_.rounds, given_.stores.split(","), members)))


if __name__ == "__main__":
    main()
