"""What an append and a read of a lifelong sequence cost, by its length, beside Feast's stock stores.

    python -m benchmarks.append --json

A stock store overwrites a row as a whole, so its append is a read, a union and a write of the whole sequence; it is not
safe for two writers. All stores are driven through `features.online.Online`, one event an append, one thread; the stock
ones hold the same records in the same run. Milliseconds.
"""

import argparse
import json
import os
import platform
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import redis
import yaml

from benchmarks.harness import redis_server
from features.errors import SeminarError
from features.online import Online
from features.record import CAP, RECORD, Records, union
from features.repository import apply
from features.rows import look_at

LENGTHS = (1_000, 10_000, 100_000)
STORES = ("sqlite", "redis", "stock sqlite", "stock redis")
_START = 1_500_000_000_000


def run(
    lengths: tuple[int, ...] = LENGTHS, appends: int = 1_000, reads: int = 200, stores: tuple[str, ...] = STORES
) -> dict[str, Any]:
    """Measure every store: lengths in records, appends and reads a measurement. SeminarError without a redis-server."""
    if reason := redis_server.why_not():
        raise SeminarError("redis-server", "", f"cannot be started: {reason}", "apt-get install redis-server")
    with tempfile.TemporaryDirectory() as folder, redis_server.RedisServer(Path(folder) / "server", "everysec") as started:
        server = redis.Redis(port=started.port)
        found = {name: _store(name, Path(folder), server, lengths, appends, reads) for name in stores}
        info = server.info()
        return {
            "bench": "append",
            "stores": found,
            "record_bytes": RECORD.itemsize,
            "cap": CAP,
            "threads": 1,
            "cores": os.cpu_count(),
            "load_1min": round(os.getloadavg()[0], 2),
            "redis": {"appendonly": bool(info["aof_enabled"]), "appendfsync": "everysec"},
            "versions": {
                "python": platform.python_version(),
                "feast": version("feast"),
                "redis-py": version("redis"),
                "redis": info["redis_version"],
                "sqlite": sqlite3.sqlite_version,
            },
        }


def _next(append: Callable[[str, Records], Any], user: str, deltas: Iterator[Any]) -> None:
    append(user, next(deltas)[None])


def _store(
    name: str, folder: Path, server: redis.Redis, lengths: tuple[int, ...], appends: int, reads: int
) -> dict[str, Any]:
    stock, kind = name.startswith("stock "), name.removeprefix("stock ")
    server.flushall()
    with _online(name.replace(" ", "-"), kind, stock, folder, server) as (online, home):
        append = _overwrite(online) if stock else lambda user, delta: online.append({user: delta})
        result: dict[str, Any] = {"by_length": {}}
        for length in lengths:
            user, whole = f"u{length}", _events(length)
            online.append({user: whole})
            # A stock append of the longest rows takes tens of milliseconds: fewer of them are enough.
            count = appends if not stock else max(50, appends * 1_000 // length)
            deltas = iter(_events(count, length))
            result["by_length"][length] = {
                "append": _timed(partial(_next, append, user, deltas), count),
                "read": _timed(partial(online.sequence, user), reads),
            }
        first, last = (result["by_length"][length]["append"]["p50"] for length in (lengths[0], lengths[-1]))
        result["append_p50_longest_to_shortest"] = round(last / first, 2)
        if not stock:
            online.append({"full": _events(CAP)})
            count = 2 * (look_at(CAP, CAP) - CAP) + 2  # enough for two trims
            deltas = iter(_events(count, CAP))
            result["at_cap_with_2_trims"] = {
                "appends": count,
                "append": _timed(lambda: append("full", next(deltas)[None]), count),
                "read": _timed(lambda: online.sequence("full"), reads),
            }
        shuffled = np.random.default_rng(0).permutation(_events(10_000 + max(appends, 50)))
        for part in np.array_split(shuffled[:10_000], 20 if not stock else 1):
            append("late", part) if not stock else online.append({"late": union(part)})
        count = appends if not stock else max(50, appends // 10)
        late = iter(shuffled[10_000:])
        result["out_of_order_at_10000"] = {
            "append": _timed(lambda: append("late", next(late)[None]), count),
            "read": _timed(lambda: online.sequence("late"), reads),
        }
        batch = {f"b{i}": _events(5) for i in range(200)}
        if not stock:
            seconds = _timed(lambda: online.append(batch), 20)["p50"] / 1000
            result["events_a_second_in_batches_of_1000"] = round(1000 / seconds)
        if kind == "sqlite":
            result["file_bytes"] = sum(file.stat().st_size for file in home.glob("online.db*"))
        else:
            result["memory_bytes"] = server.info("memory")["used_memory"]
        return result


def _overwrite(online: Online) -> Callable[[str, Records], None]:
    def append(user: str, delta: Records) -> None:
        found = online.sequence(user)
        online.append({user: union(found[0], delta) if found else union(delta)})

    return append


def _events(count: int, start: int = 0) -> Records:
    records = np.zeros(count, RECORD)
    records["time"] = _START + np.arange(start, start + count) * 1000
    records["item"] = np.arange(1, count + 1)
    return records


def _timed(work: Callable[[], object], count: int) -> dict[str, float]:
    seconds = np.empty(count)
    for i in range(count):
        start = time.perf_counter()
        work()
        seconds[i] = time.perf_counter() - start
    p50, p99 = np.percentile(seconds, [50, 99]) * 1000
    return {
        "p50": round(float(p50), 3),
        "p99": round(float(p99), 3),
        "mean": round(float(seconds.mean()) * 1000, 3),
        "max": round(float(seconds.max()) * 1000, 3),
    }


@contextmanager
def _online(name: str, kind: str, stock: bool, folder: Path, server: redis.Redis) -> Iterator[tuple[Online, Path]]:
    """An Online on an applied home of its own."""
    port = server.connection_pool.connection_kwargs["port"]
    home, file = folder / name, folder / f"{name}.yaml"
    home.mkdir()
    section: dict[str, Any] = {"type": kind if stock else f"features.store_{kind}.Sequence{kind.title()}OnlineStore"}
    section |= {"path": str(home / "online.db")} if kind == "sqlite" else {"connection_string": f"127.0.0.1:{port}"}
    file.write_text(yaml.safe_dump({"online_store": section}))
    before = {variable: os.environ.get(variable) for variable in ("SEMINAR_HOME", "SEMINAR_ONLINE_STORE")}
    os.environ |= {"SEMINAR_HOME": str(home), "SEMINAR_ONLINE_STORE": str(file)}
    try:
        apply()
        yield Online(), home
    finally:
        for variable, value in before.items():
            os.environ.pop(variable)
            if value is not None:
                os.environ[variable] = value


def main() -> None:
    """Print one JSON line, and the figures as a table before it without --json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--appends", type=int, default=1_000)
    parser.add_argument("--reads", type=int, default=200)
    options = parser.parse_args()
    result = run(appends=options.appends, reads=options.reads)
    if not options.json:
        for name, store in result["stores"].items():
            for length, found in store["by_length"].items():
                append, read = found["append"], found["read"]
                print(
                    f"{name:>13} {length:>7} records: append p50 {append['p50']:8.3f} p99 {append['p99']:8.3f} ms,"
                    f" read p50 {read['p50']:8.3f} p99 {read['p99']:8.3f} ms"
                )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
