"""One node of Apache Kafka on loopback, from the folder that KAFKA_HOME names (with `libs/`), that can be killed and
started again on the same data and the same port."""

import os
import shutil
import socket
import subprocess
from pathlib import Path

from benchmarks.harness.waiting import until
from features.children import die_with_parent

_SETTINGS = """process.roles=broker,controller
node.id=1
controller.listener.names=CONTROLLER
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
log.dirs={folder}/data
auto.create.topics.enable=false
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=500
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=2000
"""


def why_not() -> str | None:
    """The reason why no broker can be started here; None when one can."""
    if not (Path(os.environ.get("KAFKA_HOME") or "/nowhere") / "libs").is_dir():
        return "KAFKA_HOME names no folder with libs/"
    return None if shutil.which("java") else "no java"


def free_ports(count: int) -> list[int]:
    """Distinct free loopback ports."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


class KafkaBroker:
    """A broker with its data in `folder`; a context manager. Topics are not made on first use."""

    def __init__(self, folder: Path, **overrides: str) -> None:
        """`overrides`: settings of server.properties, `_` for `.`."""
        self.folder = folder
        self._port, controller = free_ports(2)
        self.bootstrap = f"127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self._properties = folder / "server.properties"
        extra = "".join(f"{name.replace('_', '.')}={value}\n" for name, value in overrides.items())
        self._properties.write_text(_SETTINGS.format(port=self._port, controller=controller, folder=folder) + extra)
        libs = Path(os.environ["KAFKA_HOME"]) / "libs"
        self._java = ["java", "-Xmx400m", "-XX:TieredStopAtLevel=1", "-cp", f"{libs}/*"]

    def __enter__(self) -> "KafkaBroker":
        identity = ["--cluster-id", "5L6g3nShT-eMCtK--X86sw", "--config", str(self._properties)]
        with (self.folder / "log").open("ab") as log:
            command = [*self._java, "kafka.tools.StorageTool", "format", *identity]
            subprocess.run(command, check=True, stdout=log, stderr=log)
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, patience: float = 240) -> None:
        """Start, and wait until the port answers; RuntimeError when it does not."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._java, "kafka.Kafka", str(self._properties)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=die_with_parent(),
            )
        try:
            until(self._answers, patience, f"the broker did not start; see {self.folder / 'log'}")
        except RuntimeError:
            self.kill()
            raise

    def _answers(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            raise RuntimeError(f"the broker ended; see {self.folder / 'log'}")
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._port)) == 0

    def stop(self) -> None:
        """End it cleanly."""
        if self._process and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        if self._process:
            self._process.kill()
            self._process.wait()
