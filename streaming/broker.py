"""An embedded broker for the demo and quick tests: noida-db, one binary from a package, on loopback.

Never for production: a SIGKILL loses the last second and a half of what it acknowledged. `KAFKA_BOOTSTRAP_SERVERS` names a
real cluster instead.
"""

import importlib.util
import socket
import subprocess
import time
from pathlib import Path

from features.children import die_with_parent
from features.errors import SeminarError


class EmbeddedBroker:
    """A broker on a free loopback port, its data in `data`; a context manager."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._process: subprocess.Popen[bytes] | None = None
        self.bootstrap = ""

    def __enter__(self) -> "EmbeddedBroker":
        found = importlib.util.find_spec("noida_db")
        if found is None or found.origin is None:
            remedy = "set KAFKA_BOOTSTRAP_SERVERS or pip install 'seminar[demo]'"
            raise SeminarError("extra", "noida-db", "is not installed", remedy)
        self._data.mkdir(parents=True, exist_ok=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = [str(Path(found.origin).parent / "noida-db"), "start", "--only", "kafka"]
        with (self._data / "broker.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "--data-dir", str(self._data), "--kafka-port", str(port)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C reaches the owner alone, which stops its clients first
                preexec_fn=die_with_parent(),
            )
        self.bootstrap = f"127.0.0.1:{port}"
        try:
            self._wait(port)
        except BaseException:
            self.__exit__()
            raise
        return self

    def _wait(self, port: int, patience: float = 20.0) -> None:
        assert self._process
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            time.sleep(0.02)
        raise SeminarError("broker", self.bootstrap, "did not start", f"see {self._data / 'broker.log'}")

    def __exit__(self, *_: object) -> None:
        if self._process and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
