"""Fixtures of the online stores' tests: SQLite, a real Redis and a real Redis Cluster, each behind one home."""

import multiprocessing
import os
import shutil
import socket
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import redis
import yaml

from features.record import HEADER, RECORD, Records

REDIS = shutil.which("redis-server")
KINDS = ("sqlite", "redis", pytest.param("redis-cluster", marks=pytest.mark.long))


def make(times: list[int] | range, item: int = 1) -> Records:
    """Records [n] of one item at these times (ms)."""
    records = np.zeros(len(times), RECORD)
    records["time"] = times
    records["item"] = item
    return records


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def until(condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.05)


class RedisServer:
    """A redis-server on a loopback port of its own; its data outlives `kill` and `stop`."""

    def __init__(self, folder: Path, *options: str, **client: object) -> None:
        if REDIS is None:
            pytest.skip("no redis-server (Debian package)")
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.port = folder, free_port()
        self._options = options
        self._client = client
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def client(self) -> redis.Redis:
        return redis.Redis("127.0.0.1", self.port, retry=None, **self._client)

    def start(self) -> "RedisServer":
        port = () if "--port" in self._options else ("--port", str(self.port))
        command = [str(REDIS), "--bind", "127.0.0.1", *port, "--dir", str(self.folder), "--save", "", *self._options]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)

        def answers() -> bool:
            try:
                return bool(self.client().ping())
            except redis.BusyLoadingError:
                return False
            except redis.ConnectionError:
                assert self._process is not None
                assert self._process.poll() is None, (self.folder / "log").read_text()
                return False

        until(answers, "redis-server")
        return self

    def kill(self) -> None:
        """SIGKILL: nothing is written any more."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(30)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(30)


class Cluster:
    """Three primaries without replicas, a third of the slots each."""

    def __init__(self, folder: Path, *options: str) -> None:
        fixed = ("--cluster-enabled", "yes", "--cluster-require-full-coverage", "no", "--cluster-node-timeout", "1000")
        self.nodes = [RedisServer(folder / str(i), *fixed, "--cluster-port", str(free_port()), *options) for i in range(3)]

    def start(self) -> "Cluster":
        for node in self.nodes:
            node.start()
        ids = []
        for i, node in enumerate(self.nodes):
            client = node.client()
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", i * 16384 // 3, (i + 1) * 16384 // 3 - 1)
            ids.append(client.execute_command("CLUSTER", "MYID"))
            for other in self.nodes[:i]:
                bus = other._options[other._options.index("--cluster-port") + 1]
                client.execute_command("CLUSTER", "MEET", "127.0.0.1", other.port, bus)
        until(self.ready, "the cluster")
        return self

    def ready(self) -> bool:
        found = [node.client().execute_command("CLUSTER", "INFO") for node in self.nodes]
        return all(b"cluster_state:ok" in x and b"cluster_slots_ok:16384" in x for x in found)

    def stop(self) -> None:
        for node in self.nodes:
            node.stop()


class Place:
    """A home on one kind of online store, and a look behind the store's back."""

    def __init__(self, kind: str, home: Path, nodes: list[RedisServer]) -> None:
        self.kind, self.home, self.nodes = kind, home, nodes

    def stored(self, user: str, view: str = "user_sequence") -> int:
        """How many records the user's row holds, repeats and older ones included (no other user's id may end like this)."""
        if self.kind == "sqlite":
            with sqlite3.connect(self.home / "online.db") as connection:
                query = f"select sum(length(records)) from seminar_{view}_page where substr(entity_key, ?) = ?"
                found = connection.execute(query, (-len(user), user.encode())).fetchone()
                return int(found[0] or 0) // RECORD.itemsize
        found = [
            node.client().strlen(key)
            for node in self.nodes
            for key in node.client().scan_iter(f"seminar:{view}:{{*}}r*{user}")
        ]
        assert len(found) == 1
        return int(found[0] - HEADER) // RECORD.itemsize

    def keys(self, pattern: str = "*") -> list[bytes]:
        """Keys of all servers."""
        return sorted(key for node in self.nodes for key in node.client().scan_iter(pattern))


def in_processes(place: Place, work: Callable[[int, int], None], writers: int, rounds: int) -> None:
    """Run work(writer, rounds) in processes of their own, all at once; they must succeed."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["features.online"])  # the imports are made once
    environment = {name: value for name, value in os.environ.items() if name.startswith("SEMINAR_")}
    processes = [context.Process(target=_work, args=(environment, work, writer, rounds)) for writer in range(writers)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0


def _work(environment: dict[str, str], work: Callable[[int, int], None], writer: int, rounds: int) -> None:
    os.environ.update(environment)
    work(writer, rounds)


def choose(nodes: list[RedisServer], file: Path, **settings: object) -> None:
    """Write the file that SEMINAR_ONLINE_STORE names."""
    section = {
        "type": "features.store_redis.SequenceRedisOnlineStore",
        "connection_string": ",".join(node.address for node in nodes),
        "redis_type": "redis_cluster" if len(nodes) > 1 else "redis",
        **settings,
    }
    file.write_text(yaml.safe_dump({"online_store": section}))


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"), "--appendonly", "yes")
    try:
        yield server.start()
    finally:
        server.stop()


@pytest.fixture(scope="session")
def redis_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        yield cluster.start()
    finally:
        cluster.stop()


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """An applied home on each kind of online store, empty."""
    from features.repository import apply

    nodes: list[RedisServer] = []
    if request.param == "redis":
        nodes = [request.getfixturevalue("redis_server")]
    elif request.param == "redis-cluster":
        nodes = request.getfixturevalue("redis_cluster").nodes
    for node in nodes:
        node.client().flushall()
    home = tmp_path / "var"
    home.mkdir()
    monkeypatch.setenv("SEMINAR_HOME", str(home))
    if nodes:
        choose(nodes, tmp_path / "store.yaml")
        monkeypatch.setenv("SEMINAR_ONLINE_STORE", str(tmp_path / "store.yaml"))
    apply()
    return Place(request.param, home, nodes)
