"""Fixtures of the stream's tests: a real broker, a sink that keeps what it is given, events that are easy to make."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from features.online import Online
from streaming import consumer, topics
from streaming.broker import EmbeddedBroker
from streaming.events import BROWSE, SEARCH, Event, Invalid, Message, build

from .apache import Kafka
from .certificates import Authority

T0 = 1_500_000_000_000


class KeptLetters:
    """A dead-letter sink in memory; a real one as far as `apply` can tell."""

    def __init__(self) -> None:
        self.letters: list[tuple[Message, Invalid]] = []

    def send(self, rejected: Sequence[tuple[Message, Invalid]]) -> None:
        self.letters += rejected


@pytest.fixture
def kept() -> KeptLetters:
    return KeptLetters()


@pytest.fixture
def bootstrap(tmp_path: Path) -> Iterator[str]:
    """A broker of the test's own, with the declared topics."""
    with EmbeddedBroker(tmp_path / "broker") as broker:
        topics.apply(broker.bootstrap)
        yield broker.bootstrap


@dataclass(frozen=True)
class Secured:
    """A broker with a plain, a SASL_SSL and a mutual-TLS listener, and what clients need for them."""

    kafka: Kafka
    folder: Path
    password: str

    @property
    def bootstrap(self) -> str:
        return self.kafka.bootstrap


@pytest.fixture(scope="session")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """Apache Kafka, one for the session: its topics are shared."""
    folder = tmp_path_factory.mktemp("secured")
    authority, password = Authority(folder), "se cret#9:{}\\"
    certificate, key = authority.sign("broker")
    authority.sign("client", password=b"of the key")
    Authority(folder, "stranger").sign("unknown")
    store = folder / "broker.pem"
    store.write_bytes(key.read_bytes() + certificate.read_bytes())
    listeners = {"SASL": "SASL_SSL", "MUTUAL": "SSL"}
    keystore = "".join(
        f"listener.name.{name.lower()}.ssl.keystore.type=PEM\nlistener.name.{name.lower()}.ssl.keystore.location={store}\n"
        for name in listeners
    )
    modules = "org.apache.kafka.common.security"
    quoted = password.replace("\\", "\\\\\\\\")  # once for the properties file, once for its quotes
    extra = (
        f"{keystore}listener.name.mutual.ssl.truststore.type=PEM\n"
        f"listener.name.mutual.ssl.truststore.location={authority.file}\nlistener.name.mutual.ssl.client.auth=required\n"
        "sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-512\nauto.create.topics.enable=true\n"
        f'listener.name.sasl.plain.sasl.jaas.config={modules}.plain.PlainLoginModule required user_shop="{quoted}";\n'
        f"listener.name.sasl.scram-sha-512.sasl.jaas.config={modules}.scram.ScramLoginModule required;\n"
    )
    scram = ("--add-scram", f'SCRAM-SHA-512=[name=shop,password="{password}"]')
    with Kafka(folder / "kafka", listeners, extra, scram) as kafka:
        topics.apply(kafka.bootstrap)
        yield Secured(kafka, folder, password)


def event(i: int, users: int = 5) -> Event:
    """The i-th event of a stream in which every third one is a search."""
    user, time_ms = f"user-{i % users}", T0 + i * 1000
    if i % 3 == 0:
        return build(SEARCH, {"user_id": user, "query": f"Query  {i % 7}"}, time_ms, "test", f"e{i}")
    return build(BROWSE, {"user_id": user, "item_id": f"item-{i % 11}", "dwell_s": 3.5}, time_ms, "test", f"e{i}")


def message(i: int, users: int = 5) -> Message:
    """The i-th event as it would come from Kafka."""
    found = event(i, users)
    return found.message(topics.topic_of(found.type), i % 4, i)


@contextmanager
def consuming(bootstrap: str, home: Path, instance: str = "one", **options: Any) -> Iterator[dict[str, Any]]:
    """A consumer in a thread; it is stopped, and its error raised, on leaving.

    Its totals come into the yielded dict, and at once an error that ended it, as "failed".
    """
    stop, result = threading.Event(), dict[str, Any]()
    failed: list[BaseException] = []

    def work() -> None:
        try:
            result.update(consumer.run(bootstrap, Online(), home, stop, instance=instance, **options))
        except BaseException as error:
            failed.append(error)
            result["failed"] = error

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield result
    finally:
        stop.set()
        thread.join(30)
    assert not thread.is_alive()
    if failed:
        raise failed[0]


def wait(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Until the condition holds; an assertion error after that long."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def caught_up(bootstrap: str, group: str = "seminar") -> Callable[[], bool]:
    """Whether the group has committed everything."""
    return lambda: sum(consumer.lag(bootstrap, group).values()) == 0
