"""The service as real processes, and what happens to them: a store that dies, workers that are killed, bundles half written,
senders that are slow or send garbage, more requests than it can answer. No wrong answer, no crash, and it recovers alone."""

import fcntl
import os
import shutil
import signal
import socket
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.harness import redis_server, waiting
from benchmarks.harness.redis_server import RedisServer
from benchmarks.harness.serving import Server, Wire, home
from benchmarks.harness.world import World
from features.history import read_sequences
from features.online import Online
from features.publish import current, path, point
from tests.model.conftest import Trained

USERS = [f"user-{i}" for i in range(6)]
ITEMS = ["milk-0", "bread-1", "rice-2", "milk-3"]
NOW = "2026-01-01T00:00:00Z"


@dataclass
class Stand:
    """A server with two workers, its home, and what it answers to each user while nothing is wrong."""

    server: Server
    folder: Path
    online: Online
    redis: RedisServer | None
    right: dict[str, list[float]]

    def ask(self, user: str, timeout: float = 30.0) -> tuple[int, Any]:
        with Wire(self.server.port, timeout) as wire:
            return wire.ask("POST", "/v1/score", {"user": user, "candidates": ITEMS, "time": NOW})

    def is_right(self, user: str) -> bool:
        """Whether a user is answered in full and as ever."""
        status, answer = self.ask(user)
        return status == 200 and not answer["degraded"] and rates(answer) == pytest.approx(self.right[user], abs=1e-5)


def rates(answer: Any) -> list[float]:
    return [score["rate"] for score in answer["scores"]]


def refuses(wire: Wire, version: str) -> bool:
    """Whether all workers do, whichever of them is asked."""
    workers = wire.ask("GET", "/v2/health/ready")[1]["workers"]
    return len(workers) == 2 and all((worker["refused"] or {}).get("version") == version for worker in workers)


def until(done: Callable[[], bool]) -> None:
    waiting.until(done, 30.0, "it does not recover")


def begin(trained: Trained, folder: Path, redis: RedisServer | None) -> Iterator[Stand]:
    bundles = folder.with_name(f"{folder.name}-bundles")  # the trained home is others' too: nothing is promoted in it
    shutil.copytree(path(trained.home / "bundles", trained.bundle), bundles / trained.bundle)
    point(bundles, trained.bundle)
    given = World("trained", bundles, ITEMS, np.empty(0), np.empty(0), None)
    stored = read_sequences(trained.home)
    with home(folder, given, redis) as online:
        online.append({user: stored.of(i) for i, user in enumerate(stored.user_ids)})
        with Server(folder, 2, options=("--waiting", "8", "--logged", "1")) as server:
            stand = Stand(server, folder, online, redis, {})
            for user in USERS:
                status, answer = stand.ask(user)
                assert (status, answer["degraded"]) == (200, [])
                assert answer["sequence"]["length"] > 0
                stand.right[user] = rates(answer)
            yield stand


@pytest.fixture(scope="module")
def stand(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    """On Redis, one for all: each test must leave it as it found it."""
    if reason := redis_server.why_not():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("service")
    with RedisServer(folder / "redis") as redis:
        yield from begin(trained, folder / "home", redis)


@pytest.fixture(autouse=True)
def _all_is_well(stand: Stand) -> Iterator[None]:
    yield
    until(lambda: all(stand.is_right(user) for user in USERS))
    assert len(stand.server.workers()) == 2


def asked_without_a_store(stand: Stand) -> Counter[str]:
    """Everybody is answered, soon, with what was read last or with nothing, and is told; what they are told, counted."""
    seen: Counter[str] = Counter()
    for user in [*USERS, "user-9"] * 3:
        begin = time.monotonic()
        status, answer = stand.ask(user)
        assert status == 200
        assert time.monotonic() - begin < 5
        seen.update(reason.split(":")[0] for reason in answer["degraded"])
        assert any(reason.startswith("store") for reason in answer["degraded"])
        if answer["sequence"]["length"]:
            assert rates(answer) == pytest.approx(stand.right[user], abs=1e-5)
    return seen


def test_redis_is_killed_and_comes_back(stand: Stand) -> None:
    assert stand.redis is not None
    seen: Counter[str] = Counter()
    for _ in range(2):
        stand.redis.kill()
        seen += asked_without_a_store(stand)
        with Wire(stand.server.port) as wire:
            assert wire.ask("GET", "/v1/users/user-1/sequence")[0] == 503
            assert wire.ask("GET", "/v2/health/ready")[0] == 200
        stand.redis.start()
        until(lambda: all(stand.is_right(user) for user in USERS))
    assert seen["store"] > 0
    assert seen["recent sequence"] > 0


def test_a_worker_is_killed(stand: Stand) -> None:
    before = {worker.pid for worker in stand.server.workers()}
    os.kill(min(before), signal.SIGKILL)
    until(lambda: len({worker.pid for worker in stand.server.workers()} - before) == 1)
    with Wire(stand.server.port) as wire:
        until(lambda: all(worker["model_version"] for worker in wire.ask("GET", "/v2/health/ready")[1]["workers"]))
        until(lambda: b"seminar_workers_restarted_total 1.0" in wire.send(Wire.request("GET", "/metrics"))[1])


def test_a_bundle_half_written_and_a_torn_one(stand: Stand) -> None:
    kind = stand.folder / "bundles"
    good = current(kind)
    assert good is not None
    half, torn = kind / "v000777", kind / "v000778"
    half.mkdir()
    for file in path(kind, good).iterdir():
        if file.name not in ("READY", "weights.safetensors"):
            (half / file.name).write_bytes(file.read_bytes())
    torn.mkdir()
    for file in path(kind, good).iterdir():
        (torn / file.name).write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with Wire(stand.server.port) as wire:
        for bad in (half, torn):
            (kind / "current").write_text(bad.name + "\n")
            until(partial(refuses, wire, bad.name))
            assert all(stand.is_right(user) for user in USERS)
    point(kind, good)


GARBAGE = [
    b"\x00\xff\x00garbage\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"POST /v1/score HTTP/1.1\r\nhost: x\r\ncontent-length: -5\r\n\r\n",
    b"POST /v1/score HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999999999999\r\n\r\n",
    b"POST /v1/score HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    b"POST /v1/score HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\n\xff\xfe\xfd\xfc",
    b"GET /v1/users/%ff%fe/sequence HTTP/1.1\r\nhost: x\r\n\r\n",
    b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
]


@pytest.mark.parametrize("sent", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage(stand: Stand, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", stand.server.port), 10) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        try:
            answer = connection.recv(1 << 16)
        except ConnectionResetError:
            answer = b""
    assert not answer or 400 <= int(answer.split()[1]) < 500, answer


def test_slow_senders_hold_nobody_up(stand: Stand) -> None:
    slow = [socket.create_connection(("127.0.0.1", stand.server.port), 60) for _ in range(60)]
    try:
        for number, connection in enumerate(slow):
            connection.sendall(b"POST /v1/score HTTP/1.1\r\nhost: x\r\n")
            if number % 2:
                connection.sendall(b"content-length: 1000\r\ncontent-type: application/json\r\n\r\n{")
        for user in USERS:
            begin = time.monotonic()
            assert stand.is_right(user)
            assert time.monotonic() - begin < 5
    finally:
        for connection in slow:
            connection.close()


@pytest.mark.long
@pytest.mark.parametrize(("sent", "answer"), [(b"", b"408"), (b"POST", b""), (b"POST /v1/score HTTP/1.1\r\n", b"")])
def test_slow_senders_are_cut_off(stand: Stand, sent: bytes, answer: bytes) -> None:
    head = b"POST /v1/score HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\ncontent-type: application/json\r\n\r\n{"
    with socket.create_connection(("127.0.0.1", stand.server.port), 60) as slow:
        slow.sendall(sent or head)
        assert slow.recv(1 << 16).split(b"\r\n")[0].find(answer) >= 0
        if not answer:
            assert slow.recv(1) == b""


@pytest.mark.parametrize("seconds", [2, pytest.param(60, marks=pytest.mark.long)])
def test_more_requests_than_it_can_answer(stand: Stand, seconds: float) -> None:
    seen: Counter[int] = Counter()
    wrong: list[Any] = []
    lock, end = threading.Lock(), time.monotonic() + seconds

    def ask(number: int) -> None:
        while time.monotonic() < end:
            user = USERS[number % len(USERS)]
            with Wire(stand.server.port) as wire:
                body = {"user": user, "candidates": ITEMS * 100, "time": NOW}
                request = Wire.request("POST", "/v1/score", body, {"X-Deadline-Ms": "300"})
                wire._socket.sendall(request)
                head = b""
                while b"\r\n\r\n" not in head:
                    head += wire._socket.recv(1 << 16)
                status = int(head.split()[1])
            with lock:
                seen[status] += 1
                if status == 503 and b"retry-after" not in head.lower():
                    wrong.append(head)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(48)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(seen) <= {200, 503, 504}, seen
    assert seen[200] > 0
    assert seen[503] > 0
    assert wrong == []


@pytest.fixture
def on_sqlite(trained: Trained, tmp_path: Path) -> Iterator[Stand]:
    yield from begin(trained, tmp_path / "home", None)


@pytest.mark.long
def test_sqlite_is_locked_and_released(on_sqlite: Stand) -> None:
    on_sqlite.online._store._conn.close()
    on_sqlite.online._store._conn = None
    writer = sqlite3.connect(on_sqlite.folder / "online.db", isolation_level=None)
    writer.execute("begin exclusive")  # a writer that does not end: readers go on (write-ahead log)
    assert all(on_sqlite.is_right(user) for user in USERS)
    writer.execute("rollback")
    writer.close()
    with (on_sqlite.folder / "online.db-shm").open("r+b") as shared:
        fcntl.lockf(shared, fcntl.LOCK_EX, 8, 120)  # all of the log's locks: nobody can read
        seen = asked_without_a_store(on_sqlite)
        fcntl.lockf(shared, fcntl.LOCK_UN, 8, 120)
    assert seen["store"] == 3 * (len(USERS) + 1)
    assert seen["recent sequence"] > 0
    until(lambda: all(on_sqlite.is_right(user) for user in USERS))
    assert on_sqlite.server.stop() == 0
