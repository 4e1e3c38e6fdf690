"""The same stream over Apache Kafka itself, found by KAFKA_HOME (a folder with `libs/`)."""

import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kafka.admin import KafkaAdminClient, NewTopic

from features import history
from features.errors import SeminarError
from features.online import Online
from features.parity import compare
from streaming import topics
from streaming.deadletters import read_all
from streaming.member import Limits
from streaming.producer import Producer

from .conftest import caught_up, consuming, event, wait

LIBS = Path(os.environ.get("KAFKA_HOME") or "/nowhere") / "libs"
pytestmark = [
    pytest.mark.skipif(not LIBS.is_dir(), reason="KAFKA_HOME names no folder with libs/"),
    pytest.mark.skipif(shutil.which("java") is None, reason="no java"),
]
FAST = Limits(seconds=0.05, backoff=(0.05,))


def ports() -> tuple[int, int]:
    """Two free ports."""
    with socket.socket() as a, socket.socket() as b:
        a.bind(("127.0.0.1", 0))
        b.bind(("127.0.0.1", 0))
        return a.getsockname()[1], b.getsockname()[1]


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One node in KRaft mode on loopback; its bootstrap address."""
    folder = tmp_path_factory.mktemp("kafka")
    port, controller = ports()
    properties = folder / "server.properties"
    properties.write_text(
        "process.roles=broker,controller\nnode.id=1\ncontroller.listener.names=CONTROLLER\n"
        f"controller.quorum.voters=1@127.0.0.1:{controller}\n"
        f"listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n"
        f"advertised.listeners=PLAINTEXT://127.0.0.1:{port}\nlog.dirs={folder}/data\n"
        "auto.create.topics.enable=false\noffsets.topic.num.partitions=1\noffsets.topic.replication.factor=1\n"
        "transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\n"
        "group.initial.rebalance.delay.ms=0\n"
    )
    java = ["java", "-Xmx400m", "-XX:TieredStopAtLevel=1", "-cp", f"{LIBS}/*"]
    format_ = [
        "kafka.tools.StorageTool",
        "format",
        "--cluster-id",
        "5L6g3nShT-eMCtK--X86sw",
        "--config",
        str(properties),
    ]
    with (folder / "log").open("wb") as log:
        subprocess.run([*java, *format_], check=True, stdout=log, stderr=log)
        process = subprocess.Popen([*java, "kafka.Kafka", str(properties)], stdout=log, stderr=log)
    try:
        wait(lambda: answers(port, process), 60)
        topics.apply(f"127.0.0.1:{port}")
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


def answers(port: int, process: "subprocess.Popen[bytes]") -> bool:
    assert process.poll() is None, "the broker ended"
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_events_arrive_once_with_two_members(kafka: str, home: Path) -> None:
    assert topics.plan(kafka) == []
    with Producer(kafka, "test") as producer:
        for i in range(2000):
            producer.send(event(i))
        producer.send_raw("seminar.search", b"u", b"not json", event(0).headers())
    assert producer.acknowledged == 2001
    with consuming(kafka, home, "one", limits=FAST), consuming(kafka, home, "two", limits=FAST):
        wait(caught_up(kafka))
    assert len(history.read_sequences(home).records) == 2000
    assert compare(Online(), home)["edit_distance"] == 0
    assert [letter["field"] for letter in read_all(kafka)] == ["data"]


def test_a_delivery_that_the_broker_refuses_is_an_error(kafka: str) -> None:
    """The client takes the message and the broker does not: the error comes later, by the delivery report alone."""
    admin = KafkaAdminClient(bootstrap_servers=kafka)
    small = {"max.message.bytes": "1000"}
    admin.create_topics([NewTopic("small", num_partitions=1, replication_factor=1, topic_configs=small)])
    admin.close()
    producer = Producer(kafka, "test")
    producer.send_raw("small", b"u", os.urandom(5000), [])
    with pytest.raises(SeminarError, match="did not take an event"), producer:
        producer.flush()
    assert producer.acknowledged == 0


def test_a_member_whose_instance_was_taken_commits_nothing_and_says_so(kafka: str, home: Path) -> None:
    """It is held in the middle of its batch while another one with its name takes over."""
    held, release = threading.Event(), threading.Event()

    def step(name: str) -> None:
        if name == "online":
            held.set()
            release.wait(60)

    with Producer(kafka, "test") as producer:
        for i in range(2000, 2050):
            producer.send(event(i))
    with pytest.raises(SeminarError, match=r"instance.*'same'"):
        take_over(kafka, home, step, held, release)
    assert compare(Online(), home)["edit_distance"] == 0


def take_over(kafka: str, home: Path, step: Callable[[str], None], held: threading.Event, release: threading.Event) -> None:
    with consuming(kafka, home, "same", limits=FAST, group="fenced", step=step) as first:
        try:
            wait(held.is_set)
            with consuming(kafka, home, "same", limits=FAST, group="fenced"):
                wait(caught_up(kafka, "fenced"))
                release.set()
                wait(lambda: "failed" in first, 20)
        finally:
            release.set()
