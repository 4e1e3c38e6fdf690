"""A Redis server on a free loopback port that can be killed and started again on the same append-only file."""

import shutil
import subprocess
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from benchmarks.harness.kafka_broker import free_ports
from benchmarks.harness.waiting import until
from features.children import die_with_parent


def why_not() -> str | None:
    """The reason why no server can be started here; None when one can."""
    return None if shutil.which("redis-server") else "no redis-server (Debian package)"


class RedisServer:
    """Durable as `fsync` says (always, everysec), never evicts; a context manager."""

    def __init__(self, folder: Path, fsync: str = "always") -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        (self.port,) = free_ports(1)
        self._options = ["--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(folder), "--save", ""]
        self._options += ["--appendonly", "yes", "--appendfsync", fsync, "--maxmemory-policy", "noeviction"]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """host:port."""
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> "RedisServer":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start, and wait until it answers PING (after it has loaded its file)."""
        with (self.folder / "redis.log").open("ab") as log:
            command = ["redis-server", *self._options]
            self._process = subprocess.Popen(command, stdout=log, stderr=log, preexec_fn=die_with_parent())
        until(self._answers, 30, f"redis-server did not start; see {self.folder / 'redis.log'}")

    def _answers(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            raise RuntimeError(f"redis-server ended; see {self.folder / 'redis.log'}")
        try:
            return bool(Redis(port=self.port).ping())
        except RedisError:
            return False

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        if self._process:
            self._process.kill()
            self._process.wait()

    def store(self) -> Path:
        """A file for SEMINAR_ONLINE_STORE."""
        file = self.folder / "store.yaml"
        kind = "features.store_redis.SequenceRedisOnlineStore"
        file.write_text(f"online_store:\n  type: {kind}\n  connection_string: {self.address},socket_timeout=10\n")
        return file
