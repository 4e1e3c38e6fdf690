"""What an event costs: in history (loose, compacted), in the SQLite and in the Redis online store, for planning capacity.

    python -m benchmarks.capacity --json [--events 200000] [--users 2000] [--batches 5000,500]

A stream of searches and browses of 2,000 users over a week goes through `streaming.apply` into a home of its own, in batches
of a busy and of a quiet consumer; then the same into a Redis of its own (where redis-server is installed): memory in use
above the empty server's, and its append-only file before any rewrite.
"""

import argparse
import json
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from redis import Redis

from benchmarks.harness import redis_server
from benchmarks.harness.redis_server import RedisServer

WEEK_MS = 7 * 86_400_000
START_MS = 1_750_000_000_000


def stream(events: int, users: int, seed: int = 0) -> Iterator[Any]:
    """Messages in the order of time: one search to two browses, popular items and users more often."""
    from streaming.events import BROWSE, SEARCH, build
    from streaming.topics import topic_of

    rng = np.random.default_rng(seed)
    times = np.sort(rng.integers(START_MS, START_MS + WEEK_MS, events))
    who = rng.integers(0, users, events) * rng.integers(0, 2, events) + rng.integers(0, users, events) // 2
    items, queries = (np.minimum(rng.zipf(1.2, events), most) for most in (20_000, 3_000))
    for i in range(events):
        user, query = f"user-{who[i] % users:06d}", f"query number {queries[i]}"
        if i % 3 == 0:
            event = build(SEARCH, {"user_id": user, "query": query}, int(times[i]), "shop", f"event-{i}")
        else:
            data = {"user_id": user, "item_id": f"item-{items[i]}", "dwell_s": float(items[i] % 300), "query": query}
            event = build(BROWSE, data, int(times[i]), "shop", f"event-{i}")
        yield event.message(topic_of(event.type), int(who[i]) % 6, i)


def fill(home: Path, events: int, users: int, batch: int) -> None:
    """Apply the stream in batches."""
    from features.online import Online
    from features.repository import apply
    from streaming.apply import Applier
    from streaming.deadletters import FileSink

    os.environ["SEMINAR_HOME"] = str(home)
    home.mkdir(parents=True)
    apply()
    applier, messages = Applier(Online(), home, FileSink(home)), stream(events, users)
    while chunk := list(islice(messages, batch)):
        if applier.apply(chunk).rejected:
            raise AssertionError("the stream holds invalid events")


def fill_redis(home: Path, folder: Path, events: int, users: int, batch: int) -> dict[str, float]:
    """Memory and files of a Redis that gets the same stream."""
    with RedisServer(folder, fsync="everysec") as server:
        os.environ["SEMINAR_ONLINE_STORE"] = str(server.store())
        try:
            client = Redis(port=server.port)
            before = client.info("memory")["used_memory"]
            fill(home, events, users, batch)
            used = client.info("memory")["used_memory"] - before
            log = sum(file.stat().st_size for file in folder.rglob("*.aof"))
        finally:
            del os.environ["SEMINAR_ONLINE_STORE"]
    return {"redis_memory": round(used / events, 1), "redis_log": round(log / events, 1)}


def size(home: Path, pattern: str) -> tuple[int, int]:
    """Bytes and number of files."""
    found = [file.stat().st_size for file in home.glob(pattern) if file.is_file()]
    return sum(found), len(found)


def measure(events: int, users: int, batch: int) -> dict[str, Any]:
    """Bytes an event, loose, compacted and online, for one size of batches."""
    from features.compaction import compact

    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        fill(home, events, users, batch)
        loose, files = size(home, "history/events/*/*.parquet")
        queries, _ = size(home, "history/queries/*/*.parquet")
        log, _ = size(home, "online.db-wal")  # of a fixed size at most, whatever the database's
        with sqlite3.connect(home / "online.db") as connection:
            connection.execute("pragma wal_checkpoint(truncate)")
        online, _ = size(home, "online.db")
        compact(home, grace_s=0)
        compacted, merged = size(home, "history/events/*/*.parquet")
        manifest, _ = size(home, "history/versions/*.json")
        redis = (
            {}
            if redis_server.why_not()
            else fill_redis(Path(folder) / "other", Path(folder) / "redis", events, users, batch)
        )
        return {
            "batch": batch,
            "history_loose": round(loose / events, 1),
            "loose_files": files,
            "history_compacted": round(compacted / events, 1),
            "compacted_files": merged,
            "query_texts": round(queries / events, 1),
            "sqlite": round(online / events, 1),
            "sqlite_log_mb": round(log / 1e6, 1),
            "manifest_mb": round(manifest / 1e6, 3),
            **redis,
        }


def main() -> None:
    """Read the arguments and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--users", type=int, default=2_000)
    parser.add_argument("--batches", default="5000,500", help="sizes of batches to try: a busy consumer's, a quiet one's")
    parser.add_argument("--json", action="store_true", help="as always: one JSON object on the last line")
    given = parser.parse_args()
    rows = [measure(given.events, given.users, int(batch)) for batch in given.batches.split(",")]
    print(json.dumps({"events": given.events, "users": given.users, "bytes_an_event": rows}))


if __name__ == "__main__":
    main()
