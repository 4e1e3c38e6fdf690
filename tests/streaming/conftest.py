"""Fixtures of the stream's tests: a real broker, a sink that keeps what it is given, events that are easy to make."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from features.online import Online
from streaming import consumer, topics
from streaming.broker import EmbeddedBroker
from streaming.events import BROWSE, SEARCH, Event, Invalid, Message, build

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
