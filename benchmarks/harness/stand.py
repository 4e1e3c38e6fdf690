"""A test stand: one home, one group, its loads and members on a broker, and the oracle's judgement at the end."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.harness import oracle
from benchmarks.harness.members import Members
from benchmarks.harness.redis_server import RedisServer
from benchmarks.harness.waiting import until
from features.children import die_with_parent
from features.settings import REPOSITORY
from streaming import consumer


class Stand:
    """`folder/var` becomes SEMINAR_HOME of this process and of the children; the store is SQLite, or the Redis given."""

    def __init__(self, folder: Path, bootstrap: str, members: Members, redis: RedisServer | None = None) -> None:
        from features.repository import apply

        self.folder, self.bootstrap, self.group, self.members = folder, bootstrap, folder.name, members
        self.home = folder / "var"
        self.home.mkdir(parents=True, exist_ok=True)
        os.environ["SEMINAR_HOME"] = str(self.home)
        os.environ["SEMINAR_ONLINE_STORE"] = str(redis.store()) if redis else ""
        apply()
        self.acknowledged: list[Path] = []
        self.notes = folder  # where loads write what was acknowledged, and members their steps
        self.alive: list[int] = []
        self._redis = redis
        self._loads: list[subprocess.Popen[bytes]] = []
        self._sent = 0

    def __enter__(self) -> "Stand":
        return self

    def __exit__(self, *_: object) -> None:
        for load in self._loads:
            load.kill()
            load.wait()
        for pid in list(self.alive):
            self.kill(pid)

    def load(self, count: int, rate: float = 0, first: int | None = None, **options: Any) -> "subprocess.Popen[bytes]":
        """Start a producer of the next `count` events (or from `first` on)."""
        first = self._sent if first is None else first
        self._sent = max(self._sent, first + count)
        file = self.notes / f"acknowledged-{len(self.acknowledged)}.jsonl"
        file.touch()
        self.acknowledged.append(file)
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.harness.load", self.bootstrap, str(file)]
        command += ["--first", str(first), "--count", str(count), "--rate", str(rate)]
        command += [text for name, value in options.items() for text in (f"--{name.replace('_', '-')}", str(value))]
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        self._loads.append(subprocess.Popen(command, env=environment, preexec_fn=die_with_parent()))
        return self._loads[-1]

    def send(self, count: int, **options: Any) -> None:
        """Send the next `count` events and wait until all are acknowledged."""
        finish(self.load(count, **options))

    def member(self, instance: str = "one", **options: Any) -> int:
        """Start a consumer of the stand's group; its pid."""
        wanted = {"group": self.group, **options}
        self.alive.append(self.members.start(self.bootstrap, self.home, self._log(), instance, **wanted))
        return self.alive[-1]

    def _log(self) -> Path:
        return self.notes / "steps.log"

    def runs(self, pid: int) -> bool:
        """Whether a member still runs."""
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        return True

    def ended(self, pid: int) -> int:
        """Wait for the end of a member; its exit code, negative for a signal."""
        self.alive.remove(pid)
        return self.members.ended(pid)

    def kill(self, pid: int, number: int = signal.SIGKILL) -> int:
        """Send a signal to a member and wait for its end."""
        os.kill(pid, number)
        return self.ended(pid)

    def stop(self, pid: int) -> None:
        """End a member cleanly; RuntimeError when it ended with an error."""
        if status := self.kill(pid, signal.SIGTERM):
            raise RuntimeError(f"member {pid} ended with {status}; see {self.members.errors}")

    def steps(self, pid: int | None = None) -> list[tuple[int, int, str]]:
        """(pid, batch, step) as logged, of all members or of one."""
        log = self._log()
        lines = [line.split() for line in log.read_text().splitlines()] if log.exists() else []
        found = [(int(one), int(batch), step) for _, one, batch, step in lines]
        return [line for line in found if pid is None or line[0] == pid]

    def idle(self) -> bool:
        """Whether no load is running."""
        return all(load.poll() is not None for load in self._loads)

    def settle(self, patience: float = 120) -> None:
        """Wait until the group has committed all there is."""
        until(lambda: sum(consumer.lag(self.bootstrap, self.group).values()) == 0, patience, "the group did not catch up")

    def judge(self) -> dict[str, int]:
        """What the oracle says of all acknowledged events."""
        online = oracle.in_redis(self._redis.port) if self._redis else None
        return oracle.compare(self.acknowledged, self.home, online)

    def killed_after(self) -> dict[str, int]:
        """How many members ended after which step, as their log says ("start": before the first)."""
        last: dict[int, str] = {}
        for pid, _, step in self.steps():
            last[pid] = step
        return {step: sum(x == step for x in last.values()) for step in sorted(set(last.values()))}


def finish(load: "subprocess.Popen[bytes]", patience: float = 300) -> None:
    """Wait for a load; RuntimeError when not all was acknowledged."""
    if load.wait(patience):
        raise RuntimeError("the load failed")
