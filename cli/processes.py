"""Child processes of a command: they write to log files and end with it, whatever ends it."""

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from features.children import die_with_parent
from features.errors import SeminarError


def free_port() -> int:
    """A loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Child:
    """A `seminar` command (or one of another module) in a process of its own; a context manager that stops it."""

    def __init__(
        self, arguments: Sequence[str], log: Path, environment: dict[str, str] | None = None, module: str = "cli.main"
    ) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self.log = log
        self._name = f"{'seminar' if module == 'cli.main' else module} {arguments[0]}"
        with log.open("ab") as stream:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                env={**os.environ, **(environment or {})},
                start_new_session=True,  # Ctrl-C reaches the parent alone, which stops its children in order
                preexec_fn=die_with_parent(),
            )

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def check(self) -> None:
        """SeminarError with the log's last line when the process has ended."""
        status = self._process.poll()
        if status is not None:
            lines = self.log.read_text(errors="replace").strip().splitlines() or ["(empty)"]
            raise SeminarError("process", self._name, f"ended with {status}: {lines[-1]}", f"see {self.log}")

    def wait(self, patience: float) -> int:
        """Wait until it ends by itself; the exit status."""
        return self._process.wait(patience)

    def stop(self, patience: float = 20.0) -> int:
        """SIGTERM, then SIGKILL after `patience` seconds; the exit status."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(patience)
            except subprocess.TimeoutExpired:
                self._process.kill()
        return self._process.wait()
