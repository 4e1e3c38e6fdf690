"""One real broker for all fault tests, and a stand for each: a home, a group, killable processes, an oracle."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka import TopicPartition

from benchmarks.harness import redis_server
from benchmarks.harness.kafka_broker import KafkaBroker, why_not
from benchmarks.harness.members import Members
from benchmarks.harness.redis_server import RedisServer
from benchmarks.harness.stand import Stand
from benchmarks.harness.waiting import until
from streaming import clients, topics


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    if reason := why_not():
        pytest.skip(reason)
    with KafkaBroker(tmp_path_factory.mktemp("kafka")) as running:
        yield running


@pytest.fixture(scope="session")
def members(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Members]:
    with Members(tmp_path_factory.mktemp("members") / "errors.log") as nursery:
        yield nursery


@pytest.fixture
def stand(broker: KafkaBroker, members: Members, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stand]:
    restored(monkeypatch)
    empty(broker.bootstrap)
    with Stand(tmp_path, broker.bootstrap, members) as made:
        yield made


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    if reason := redis_server.why_not():
        pytest.skip(reason)
    with RedisServer(tmp_path / "redis") as server:
        yield server


@pytest.fixture
def redis_stand(
    broker: KafkaBroker, members: Members, redis: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Stand]:
    restored(monkeypatch)
    empty(broker.bootstrap)
    with Stand(tmp_path / "stand", broker.bootstrap, members, redis) as made:
        made.group = tmp_path.name
        yield made


def restored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the variables that a stand sets back after the test."""
    for name in ("SEMINAR_HOME", "SEMINAR_ONLINE_STORE"):
        monkeypatch.setenv(name, os.environ.get(name, ""))


def empty(bootstrap: str) -> None:
    """Topics as declared, and nothing in them: what an earlier stand sent is deleted."""
    topics.apply(bootstrap)
    if drifted := {drift.topic for drift in topics.plan(bootstrap)}:
        remake(bootstrap, sorted(drifted))
    reader, admin = clients.consumer(bootstrap), clients.admin(bootstrap)
    try:
        names = [topic.name for topic in topics.TOPICS if topic.cleanup == "delete"]
        partitions = [TopicPartition(name, number) for name in names for number in reader.partitions_for_topic(name) or ()]
        admin.delete_records(reader.end_offsets(partitions))
    finally:
        admin.close()
        reader.close()


def remake(bootstrap: str, names: list[str]) -> None:
    """Delete topics and create them again."""
    admin = clients.admin(bootstrap)
    try:
        admin.delete_topics(names)
        until(lambda: not set(names) & set(admin.list_topics()), 30, "the topics were not deleted")
    finally:
        admin.close()
    topics.apply(bootstrap)


def assert_each_once(found: dict[str, int]) -> None:
    """Every acknowledged event is in history, in the raw store and served: once, in order, and nothing else is."""
    faults = {name: found[name] for name in ("lost", "foreign", "doubled", "disordered", "unequal")}
    assert found["acknowledged"] > 0
    assert not any(faults.values()), found
