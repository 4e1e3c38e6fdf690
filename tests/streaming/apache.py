"""An Apache Kafka broker of a test's own, found by KAFKA_HOME (a folder with `libs/`): plain, with a password, with TLS."""

import os
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

LIBS = Path(os.environ.get("KAFKA_HOME") or "/nowhere") / "libs"
_MISSING = "KAFKA_HOME names no folder with libs/" if not LIBS.is_dir() else "" if shutil.which("java") else "no java"
needs_kafka = pytest.mark.skipif(bool(_MISSING), reason=_MISSING or "it is here")
_JAVA = ["java", "-Xmx400m", "-XX:TieredStopAtLevel=1", "-cp", f"{LIBS}/*"]


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


@dataclass
class Kafka:
    """One node in KRaft mode on loopback. `listeners`: name -> protocol, besides the plain one; `extra`: more properties.

    The same folder started again serves what it acknowledged before.
    """

    folder: Path
    listeners: dict[str, str] = field(default_factory=dict)
    extra: str = ""
    format_options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = ["PLAINTEXT", *self.listeners]
        controller, *ports = free_ports(len(names) + 1)
        self.addresses = {name: f"127.0.0.1:{port}" for name, port in zip(names, ports, strict=True)}
        self.bootstrap = self.addresses["PLAINTEXT"]
        protocols = {"CONTROLLER": "PLAINTEXT", "PLAINTEXT": "PLAINTEXT", **self.listeners}
        bound = ",".join(f"{name}://{address}" for name, address in self.addresses.items())
        self._process: subprocess.Popen[bytes] | None = None
        self._properties = self.folder / "server.properties"
        self.folder.mkdir(parents=True, exist_ok=True)
        self._properties.write_text(
            "process.roles=broker,controller\nnode.id=1\ncontroller.listener.names=CONTROLLER\n"
            f"controller.quorum.voters=1@127.0.0.1:{controller}\n"
            f"listeners={bound},CONTROLLER://127.0.0.1:{controller}\nadvertised.listeners={bound}\n"
            f"listener.security.protocol.map={','.join(f'{n}:{p}' for n, p in protocols.items())}\n"
            f"inter.broker.listener.name=PLAINTEXT\nlog.dirs={self.folder}/data\n"
            "auto.create.topics.enable=false\noffsets.topic.num.partitions=1\noffsets.topic.replication.factor=1\n"
            "transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\n"
            "transaction.state.log.num.partitions=1\ngroup.initial.rebalance.delay.ms=0\n"
            "broker.heartbeat.interval.ms=500\nbroker.session.timeout.ms=3000\n" + self.extra
        )

    def start(self) -> "Kafka":
        """Start and wait until it takes clients."""
        with (self.folder / "log").open("ab") as log:
            if not (self.folder / "data" / "meta.properties").exists():
                format_ = ["kafka.tools.StorageTool", "format", "--cluster-id", "5L6g3nShT-eMCtK--X86sw"]
                options = ["--config", str(self._properties), *self.format_options]
                subprocess.run([*_JAVA, *format_, *options], check=True, stdout=log, stderr=log)
            self._process = subprocess.Popen([*_JAVA, "kafka.Kafka", str(self._properties)], stdout=log, stderr=log)
        deadline = time.monotonic() + 120
        while not all(map(_answers, self.addresses.values())):
            assert self._process.poll() is None, (self.folder / "log").read_text()[-3000:]
            assert time.monotonic() < deadline, "the broker did not start"
            time.sleep(0.05)
        return self

    def stop(self) -> None:
        """SIGTERM, and wait."""
        if self._process:
            self._process.terminate()
            self._process.wait(30)

    def kill(self) -> None:
        """SIGKILL, and wait."""
        if self._process:
            self._process.kill()
            self._process.wait(30)

    def __enter__(self) -> "Kafka":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


def _answers(address: str) -> bool:
    host, port = address.split(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0
