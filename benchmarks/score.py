"""What a request costs: a real server process with one worker on one core, a client process on another.

    python -m benchmarks.score --json

Users are drawn by Zipf from a population; before each request, one event is appended to the user, outside the clock. Nothing
of a user is cached. Every round asks the same requests by both methods, `ours` and `exact`, alternating which comes first.
Closed loop: one connection, the next request after the answer. Open loop: Poisson arrivals at half of the closed loop's
rate, timed from when a request was due, so that a wait behind others counts. Milliseconds at the client; stages as the
server says (`http`: what is left). cpu_ms: processor time of the worker a request, which other work of the machine
lengthens less than the clock. Only users that are drawn are written to the store.
"""

import argparse
import json
import os
import platform
import tempfile
import threading
import time
from collections import defaultdict
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np

from benchmarks.harness import redis_server, world
from benchmarks.harness.redis_server import RedisServer
from benchmarks.harness.serving import Server, Wire, home
from benchmarks.harness.world import World
from features.online import Online
from features.settings import settings

LENGTHS, CANDIDATES, STORES, METHODS = (100, 1_000, 10_000, 100_000), (10, 100, 500), ("sqlite", "redis"), ("ours", "exact")
Found = dict[str, list[Any]]


def run(
    given: World,
    lengths: tuple[int, ...] = LENGTHS,
    candidates: tuple[int, ...] = CANDIDATES,
    stores: tuple[str, ...] = STORES,
    requests: int = 60,
    rounds: int = 5,
    users: int = 2_000,
    open_lengths: tuple[int, ...] = (10_000,),
    memory: bool = True,
) -> dict[str, Any]:
    """Measure every case; requests a round and method."""
    cores = sorted(os.sched_getaffinity(0))
    here, there = {cores[-1]}, {cores[0]}
    cases, facts = [], {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.sched_setaffinity(0, here)
        try:
            for store in stores:
                server = RedisServer(folder / "redis-server", "everysec") if store == "redis" else None
                with server or nullcontext(), home(folder / store, given, server) as online:
                    for length in lengths:
                        draws = _draws(length, requests * rounds, users)
                        _fill(online, given, length, draws)
                        with Server(folder, 1, there) as running:
                            for count in candidates:
                                plan = _Plan(given, online, length, count, draws, requests, rounds)
                                loops = ("closed", "open") if length in open_lengths and count == 100 else ("closed",)
                                facts_of = {"length": length, "candidates": count, "store": store}
                                cases += [facts_of | case for loop in loops for case in plan.measure(running, loop)]
                    if memory and "memory" not in facts:
                        facts["memory"] = _memory(folder, there)
        finally:
            os.sched_setaffinity(0, set(cores))
    return {
        "bench": "score",
        "cases": cases,
        **facts,
        "world": given.name,
        "items": len(given.items),
        "users": users,
        "requests_a_case": requests * rounds,
        "rounds": rounds,
        "server_cores": len(there),
        "load_1min": round(os.getloadavg()[0], 2),
        "versions": {"python": platform.python_version()}
        | {package: version(package) for package in ("numpy", "torch", "numba", "fastapi", "uvicorn", "feast")},
    }


def _draws(length: int, count: int, users: int) -> list[str]:
    weights = 1 / np.arange(1, users + 1)
    ranks = np.random.default_rng(length).choice(users, count, p=weights / weights.sum())
    return [f"u{length}-{rank}" for rank in ranks.tolist()]


def _fill(online: Online, given: World, length: int, draws: list[str]) -> None:
    now = int(time.time() * 1000)
    for user in sorted(set(draws)):
        online.append({user: given.history(length, int(user.split("-")[1]), now - 60_000)})


class _Plan:
    """The requests of one case."""

    def __init__(
        self, given: World, online: Online, length: int, count: int, draws: list[str], requests: int, rounds: int
    ) -> None:
        self._given, self._online, self._draws = given, online, draws
        self._requests, self._rounds = requests, rounds
        self._rng = np.random.default_rng([length, count])
        self._candidates = [
            [given.candidates[i] for i in self._rng.choice(len(given.candidates), count, replace=False)] for _ in draws
        ]
        self._rate = dict.fromkeys(METHODS, 0.0)

    def measure(self, server: Server, loop: str) -> list[dict[str, Any]]:
        """Both methods in interleaved rounds."""
        found: dict[str, Found] = {method: defaultdict(list) for method in METHODS}
        run_round = self._closed if loop == "closed" else self._open
        for method in METHODS:
            self._closed(server, method, range(min(10, len(self._draws))))
        for turn in range(self._rounds):
            here = range(turn * self._requests, (turn + 1) * self._requests)
            for method in METHODS if turn % 2 else METHODS[::-1]:
                before = server.cpu()
                for name, values in run_round(server, method, here).items():
                    found[method][name] += values
                found[method]["cpu_s"].append(server.cpu() - before)
        cases = []
        for method in METHODS:
            case = _summary(found[method]) | {"loop": loop, "workers": 1, "cache": "none", "method": method}
            if loop == "closed":
                self._rate[method] = case["rps"]
            else:
                case["offered_rps"] = round(self._rate[method] / 2, 1)
            cases.append(case)
        return cases

    def _request(self, number: int, method: str) -> bytes:
        body: dict[str, Any] = {"user": self._draws[number], "candidates": self._candidates[number]}
        return Wire.request("POST", "/v1/score", body | ({"method": "exact"} if method == "exact" else {}))

    def _append(self, number: int) -> None:
        event = self._given.event(self._rng, int(time.time() * 1000))
        self._online.append({self._draws[number]: event})

    def _closed(self, server: Server, method: str, numbers: range) -> Found:
        found: Found = defaultdict(list)
        with Wire(server.port) as wire:
            for number in numbers:
                self._append(number)
                _timed(wire, self._request(number, method), found)
        found["s"].append(sum(found["ms"]) / 1000)
        return found

    def _open(self, server: Server, method: str, numbers: range) -> Found:
        found: Found = defaultdict(list)
        gaps = self._rng.exponential(2 / self._rate[method], len(numbers))
        begin = time.perf_counter() + 0.05
        due = (begin + np.cumsum(gaps)).tolist()
        waiting: SimpleQueue[tuple[bytes, float] | None] = SimpleQueue()

        def work() -> None:
            with Wire(server.port) as wire:
                while (job := waiting.get()) is not None:
                    _timed(wire, job[0], found, job[1])

        threads = [threading.Thread(target=work) for _ in range(16)]
        for thread in threads:
            thread.start()
        for number, moment in zip(numbers, due, strict=True):
            request = self._request(number, method)
            _until(moment - 0.005)
            self._append(number)
            _until(moment)
            waiting.put((request, moment))
        for _ in threads:
            waiting.put(None)
        for thread in threads:
            thread.join()
        found["s"].append(time.perf_counter() - begin)
        return found


def _until(moment: float) -> None:
    """Wait for a moment of `time.perf_counter`: an open loop sends when it is time, whatever came back."""
    while (wait := moment - time.perf_counter()) > 0:
        time.sleep(wait)


def _timed(wire: Wire, request: bytes, found: Found, due: float | None = None) -> None:
    begin = time.perf_counter() if due is None else due
    status, content = wire.send(request)
    took = 1000 * (time.perf_counter() - begin)
    if status != 200:
        raise RuntimeError(f"{status}: {content[:200]!r}")
    answer = json.loads(content)
    found["ms"].append(took)
    found["stages"].append(answer["milliseconds"] | {"http": took - answer["milliseconds"]["total"]})


def _summary(found: Found) -> dict[str, Any]:
    stages = {name: round(float(np.median([row[name] for row in found["stages"]])), 3) for name in found["stages"][0]}
    return {
        "p50_ms": round(float(np.percentile(found["ms"], 50)), 3),
        "p99_ms": round(float(np.percentile(found["ms"], 99)), 3),
        "rps": round(len(found["ms"]) / sum(found["s"]), 1),
        "requests": len(found["ms"]),
        "cpu_ms": round(1000 * sum(found["cpu_s"]) / len(found["ms"]), 3),
        "stages_ms": stages,
    }


def _memory(folder: Path, cores: set[int]) -> dict[str, Any]:
    """MB of a server with one worker and with two, after each worker has answered."""
    sizes = {}
    for workers in (1, 2):
        with Server(folder, workers, cores) as server:
            for _ in range(20 * workers):
                with Wire(server.port) as wire:
                    wire.ask("POST", "/v1/score", {"user": "nobody", "candidates": ["none"]})
            sizes[workers] = server.memory() / 1e6
    return {
        "one_worker_mb": round(sizes[1], 1),
        "two_workers_mb": round(sizes[2], 1),
        "second_worker_share": round((sizes[2] - sizes[1]) / sizes[1], 3),
    }


def worlds(name: str, folder: Path) -> World:
    """`trained` (SEMINAR_HOME's bundle), `hard`, or `auto`: the former where there is one."""
    found = world.trained(settings().home) if name in ("auto", "trained") else None
    return found or world.untrained(folder / "bundles")


def main() -> None:
    """Print one JSON line, and the figures as a table before it without --json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--world", choices=("auto", "trained", "hard"), default="auto")
    parser.add_argument("--quick", action="store_true", help="few requests, to see that everything runs")
    parser.add_argument("--requests", type=int, default=60, help="a round, case and method")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--lengths", default=",".join(map(str, LENGTHS)))
    parser.add_argument("--candidates", default=",".join(map(str, CANDIDATES)))
    parser.add_argument("--stores", default=",".join(STORES))
    parser.add_argument("--users", type=int, default=2_000)
    options = parser.parse_args()
    lengths, candidates = (tuple(int(x) for x in text.split(",")) for text in (options.lengths, options.candidates))
    stores = tuple(name for name in options.stores.split(",") if name != "redis" or redis_server.why_not() is None)
    with tempfile.TemporaryDirectory() as folder:
        given = worlds(options.world, Path(folder))
        if options.quick:
            result = run(given, (100, 1_000), (10, 100), stores[:1], 5, 2, 50, (1_000,), memory=False)
        else:
            sizes = (options.requests, options.rounds, options.users)
            result = run(given, lengths, candidates, stores, *sizes)
    if not options.json:
        for case in result["cases"]:
            named = f"{case['length']:>7} x {case['candidates']:>3} {case['store']:>6} {case['loop']:>6} {case['method']:>5}"
            took = (
                f"p50 {case['p50_ms']:8.2f} p99 {case['p99_ms']:8.2f} cpu {case['cpu_ms']:7.2f} ms, {case['rps']:7.1f} rps"
            )
            print(f"{named}: {took}  {case['stages_ms']}")
        print(result.get("memory"))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
