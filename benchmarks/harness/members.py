"""Consumer processes that log every step and can be killed at one, each a fork of a nursery that has imported all.

    python -m benchmarks.harness.members

A line of JSON on stdin starts a member: {"bootstrap", "home", "log", "instance", "group"} and, where wanted, {"die_at" or
"hold_at": step, "die_after": batches before that, "events" and "seconds": bounds of a batch, "away":
a file (while it exists batches fail), "options": client settings}.
The nursery answers with {"started": instance, "pid"}, and with {"pid", "status"} when one has ended. Each member appends
`time pid batch step` to its log before it dies or is held, so that the log proves where a kill fell. The other side is the
class `Members`.
"""

import functools
import importlib
import json
import logging
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from features.children import die_with_parent
from features.settings import REPOSITORY

STEPS = ("validate", "dead_letters", "entities", "history", "online", "commit")


class Members:
    """The nursery's other side: starts, stops and kills members of any home; a context manager."""

    def __init__(self, errors: Path) -> None:
        """`errors`: a file for what the members log."""
        self.errors = errors
        self._log = errors.open("wb", buffering=0)
        self._nursery = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "benchmarks.harness.members"],
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,  # no file: a member may be forbidden to write any
            preexec_fn=die_with_parent(),
        )
        self._lines: list[dict[str, Any]] = []
        self._news = threading.Condition()
        for work in (self._listen, self._keep):
            threading.Thread(target=work, daemon=True).start()

    def _keep(self) -> None:
        assert self._nursery.stderr
        while text := os.read(self._nursery.stderr.fileno(), 65536):
            self._log.write(text)

    def _listen(self) -> None:
        assert self._nursery.stdout
        for line in self._nursery.stdout:
            with self._news:
                self._lines.append(json.loads(line))
                self._news.notify_all()

    def _await(self, name: str, **wanted: Any) -> Any:
        """The value of `name` in the first line that has it and all that is wanted; the line is used up."""
        deadline = time.monotonic() + 90
        with self._news:
            while True:
                for line in self._lines:
                    if name in line and all(line.get(k) == v for k, v in wanted.items()):
                        self._lines.remove(line)
                        return line[name]
                if self._nursery.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"no answer about {wanted} from the nursery; see {self.errors}")
                self._news.wait(1)

    def start(self, bootstrap: str, home: Path, log: Path, instance: str, **options: Any) -> int:
        """Fork a member; its pid."""
        options |= {"bootstrap": bootstrap, "home": str(home), "log": str(log)}
        assert self._nursery.stdin
        self._nursery.stdin.write(json.dumps({"instance": instance, **options}).encode() + b"\n")
        self._nursery.stdin.flush()
        return int(self._await("pid", started=instance))

    def ended(self, pid: int) -> int:
        """Wait for the end of a member; its exit code, negative for a signal."""
        return int(self._await("status", pid=pid))

    def __enter__(self) -> "Members":
        return self

    def __exit__(self, *_: object) -> None:
        self._nursery.terminate()  # the members die with it
        try:
            self._nursery.wait(60)
        except subprocess.TimeoutExpired:
            self._nursery.kill()
            self._nursery.wait()


def _member(given: dict[str, Any]) -> None:
    from features.online import Online
    from features.settings import settings
    from streaming import clients, consumer
    from streaming.member import Limits

    os.environ["SEMINAR_HOME"] = given["home"]
    descriptor = os.open(given["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    batch = 1

    def step(name: str) -> None:
        nonlocal batch
        os.write(descriptor, f"{time.time():.3f} {os.getpid()} {batch} {name}\n".encode())
        if name == "validate" and "away" in given and os.path.exists(given["away"]):
            raise OSError("the store is away")
        if batch > given.get("die_after", 0):
            if name == given.get("die_at"):
                os.kill(os.getpid(), signal.SIGKILL)
            if name == given.get("hold_at"):
                os.kill(os.getpid(), signal.SIGSTOP)
        if name == "commit":
            batch += 1

    with _options(clients, given.get("options", {})):
        stop = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: stop.set())
        seconds, backoff = given.get("seconds", 0.1), (0.1, 0.2, 0.5)
        limits = Limits(events=given.get("events", 200), seconds=seconds, idle=0.05, backoff=backoff)
        group, instance = given.get("group", "seminar"), given["instance"]
        run = functools.partial(consumer.run, group=group, instance=instance, limits=limits, step=step)
        run(given["bootstrap"], Online(), settings().home, stop)


@contextmanager
def _options(clients: Any, options: dict[str, Any]) -> Iterator[None]:
    """Client settings (say a session timeout) over those of the product, in this process."""
    made = clients.consumer
    clients.consumer = lambda bootstrap, **rest: made(bootstrap, **{**rest, **options})
    try:
        yield
    finally:
        clients.consumer = made


def _say(**facts: Any) -> None:
    os.write(1, (json.dumps(facts) + "\n").encode())


def main() -> None:
    """The nursery: fork a member for each line of stdin, tell what ended."""
    importlib.import_module("features.online")  # once, for all members
    importlib.import_module("streaming.consumer")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(process)d %(name)s %(message)s")
    logging.getLogger("kafka").setLevel(logging.CRITICAL)

    with_parent = die_with_parent()
    pending = b""
    while True:
        ready, _, _ = select.select([0], [], [], 0.05)
        if ready:
            got = os.read(0, 65536)
            if not got:
                return
            *lines, pending = (pending + got).split(b"\n")
            for line in lines:
                wanted = json.loads(line)
                if not (pid := os.fork()):
                    if with_parent:
                        with_parent()
                    status = 1
                    try:
                        _member(wanted)
                        status = 0
                    except BaseException as error:
                        print(f"{wanted['instance']}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
                    os._exit(status)
                _say(started=wanted["instance"], pid=pid)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if not pid:
                break
            _say(pid=pid, status=os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
