"""A real server process over a home of its own, and a client that costs little: what the benches of the service drive."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from benchmarks.harness.kafka_broker import free_ports
from benchmarks.harness.redis_server import RedisServer
from benchmarks.harness.waiting import until
from benchmarks.harness.world import World
from features.children import die_with_parent
from features.errors import SeminarError
from features.online import Online
from features.publish import current, point
from features.repository import apply


@contextmanager
def home(folder: Path, world: World, redis: RedisServer | None) -> Iterator[Online]:
    """An applied home in a folder, with the world's promoted bundle; its store is this process's until the end."""
    folder.mkdir(parents=True)
    before = {name: os.environ.get(name) for name in ("SEMINAR_HOME", "SEMINAR_ONLINE_STORE")}
    os.environ["SEMINAR_HOME"] = str(folder)
    os.environ["SEMINAR_ONLINE_STORE"] = str(redis.store()) if redis else ""
    try:
        apply()
        version = current(world.bundles)
        assert version is not None
        (folder / "bundles").mkdir()
        (folder / "bundles" / version).symlink_to(world.bundles / version)
        point(folder / "bundles", version)
        yield Online()
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


class Server:
    """`seminar serve` with the environment's home, on the given cores (None: any); a context manager."""

    def __init__(self, folder: Path, workers: int = 1, cores: set[int] | None = None, options: tuple[str, ...] = ()) -> None:
        (self.port,), self._log = free_ports(1), folder / f"server-{time.monotonic_ns()}.log"
        ask = die_with_parent()

        def begin() -> None:
            if ask:
                ask()
            if cores:
                os.sched_setaffinity(0, cores)

        arguments = ["serve", "--port", str(self.port), "--workers", str(workers), *options]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "cli.main", *arguments], stdout=log, stderr=log, preexec_fn=begin
            )

    def __enter__(self) -> "Server":
        try:
            until(self._ready, 240, f"the server on port {self.port} is not ready; see {self._log}", 0.1)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _ready(self) -> bool:
        self.check()
        try:
            with Wire(self.port) as wire:
                return wire.ask("GET", "/v2/health/ready")[0] == 200
        except OSError:
            return False

    @property
    def pid(self) -> int:
        """The parent's process id."""
        return self._process.pid

    def workers(self) -> list[psutil.Process]:
        """The worker processes."""
        return list(psutil.Process(self.pid).children())

    def cpu(self) -> float:
        """Seconds of processor time of the workers so far."""
        return sum(sum(worker.cpu_times()[:2]) for worker in self.workers())

    def check(self) -> None:
        """SeminarError with the log's end when the server has ended."""
        if self._process.poll() is not None:
            last = self._log.read_text(errors="replace").strip().splitlines()[-1:]
            raise SeminarError("server", self.port, f"ended: {' '.join(last)}", f"see {self._log}")

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        self._process.terminate()
        try:
            return self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def memory(self) -> int:
        """Bytes of the whole server: what its processes share is counted once (PSS)."""
        processes = [psutil.Process(self.pid), *self.workers()]
        return sum(process.memory_full_info().pss for process in processes)


class Wire:
    """One kept connection: HTTP/1.1 over a socket, so that what is measured is the server."""

    def __init__(self, port: int, timeout: float = 30.0) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._rest = b""

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connection."""
        self._socket.close()

    @staticmethod
    def request(method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> bytes:
        """A request's bytes."""
        content = b"" if body is None else json.dumps(body).encode()
        lines = [f"{method} {path} HTTP/1.1", "host: localhost", f"content-length: {len(content)}"]
        lines += [f"{name}: {value}" for name, value in ({"content-type": "application/json"} | (headers or {})).items()]
        return ("\r\n".join(lines) + "\r\n\r\n").encode() + content

    def send(self, request: bytes) -> tuple[int, bytes]:
        """(status, body) of a request's bytes."""
        self._socket.sendall(request)
        while b"\r\n\r\n" not in self._rest:
            self._more()
        head, self._rest = self._rest.split(b"\r\n\r\n", 1)
        lines = head.split(b"\r\n")
        length = next(int(x.split(b":")[1]) for x in lines if x.lower().startswith(b"content-length:"))
        while len(self._rest) < length:
            self._more()
        body, self._rest = self._rest[:length], self._rest[length:]
        return int(lines[0].split()[1]), body

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> tuple[int, Any]:
        """(status, decoded body)."""
        status, content = self.send(self.request(method, path, body, headers))
        return status, json.loads(content)

    def _more(self) -> None:
        found = self._socket.recv(1 << 16)
        if not found:
            raise ConnectionResetError("the server closed the connection")
        self._rest += found
