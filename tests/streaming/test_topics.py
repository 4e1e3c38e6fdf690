"""Topics on real brokers: what is missing is made, what differs is said, and changed where that is safe."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from kafka.admin import ConfigResource, NewTopic

from features.errors import SeminarError
from streaming import clients, topics
from streaming.broker import EmbeddedBroker
from streaming.topics import ADD, CREATE, REFUSE, SET, Topic, declared

from .apache import needs_kafka
from .conftest import Secured, wait

NAMES = [topic.name for topic in topics.TOPICS]


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[str]:
    with EmbeddedBroker(tmp_path) as running:
        yield running.bootstrap


def test_plan_apply_and_plan_again(broker: str) -> None:
    drift = topics.plan(broker)
    assert [(x.topic, x.action) for x in drift] == [(name, CREATE) for name in NAMES]
    assert str(drift[0]) == "seminar.search: missing; apply creates it with 4 partitions"
    assert topics.plan(broker) == drift, "a plan changes nothing"
    assert topics.apply(broker) == drift
    assert topics.plan(broker) == []
    assert topics.apply(broker) == []


def made(bootstrap: str, *found: Topic) -> None:
    admin = clients.admin(bootstrap)
    admin.create_topics([NewTopic(t.name, t.partitions, 1, topic_configs=t.configs()) for t in found])
    admin.wait_for_topics([t.name for t in found])
    admin.close()


def check_all_kinds_of_drift(bootstrap: str, prefix: str) -> None:
    wanted = [
        Topic(f"{prefix}.{name}", 4, "delete", 86_400_000, min_isr=1)
        for name in ("same", "small", "large", "short", "compact", "missing")
    ]
    same, small, large, short, compact, missing = wanted
    settings = {"max.message.bytes": "123456"}
    made(
        bootstrap,
        same,
        replace(small, partitions=2),
        replace(large, partitions=6),
        replace(short, retention_ms=1000),
        replace(compact, cleanup="compact"),
    )
    admin = clients.admin(bootstrap)
    admin.alter_configs([ConfigResource("topic", short.name, settings)], raise_on_unknown=False)
    expected = [
        (small.name, "partitions", "2", "4", ADD),
        (large.name, "partitions", "6", "4", REFUSE),
        (short.name, "retention.ms", "1000", "86400000", SET),
        (compact.name, "cleanup.policy", "compact", "delete", SET),
        (missing.name, "topic", None, "4 partitions", CREATE),
    ]
    for step in (topics.plan, topics.plan, topics.apply):
        assert [(x.topic, x.what, x.found, x.declared, x.action) for x in step(bootstrap, wanted)] == expected
    wait(lambda: [(x.topic, x.action) for x in topics.plan(bootstrap, wanted)] == [(large.name, REFUSE)], 10)
    (left,) = topics.apply(bootstrap, wanted)
    assert "Kafka cannot remove partitions" in str(left)
    found = admin.describe_configs([ConfigResource("topic", short.name, list(settings))], config_filter="all")
    assert found["topic"][short.name]["max.message.bytes"]["value"] == "123456", "what is not declared stays"
    admin.close()


def test_every_kind_of_drift_on_the_embedded_broker(broker: str) -> None:
    check_all_kinds_of_drift(broker, "drift")


@needs_kafka
def test_every_kind_of_drift_on_apache_kafka(secured: Secured) -> None:
    check_all_kinds_of_drift(secured.bootstrap, "drift")


@needs_kafka
def test_what_the_broker_refuses_is_one_error(secured: Secured) -> None:
    with pytest.raises(SeminarError, match=r"could not be changed .*replication factor"):
        topics.apply(secured.bootstrap, [Topic("drift.replicated", 1, "delete", -1, replication=3, min_isr=2)])
    made(secured.bootstrap, Topic("drift.wrong", 1, "delete", 1000))
    with pytest.raises(SeminarError, match=r"could not be changed .*drift.wrong"):
        topics.apply(secured.bootstrap, [Topic("drift.wrong", 1, "burn", 1000)])


def test_replication_is_compared_and_left(broker: str) -> None:
    made(broker, Topic("one", 1, "delete", 1000))
    drift = topics.plan(broker, [Topic("one", 1, "delete", 1000, replication=3, min_isr=2)])
    assert [(x.what, x.found, x.declared, x.action) for x in drift] == [
        ("replication", "1", "3", REFUSE),
        ("min.insync.replicas", "1", "2", SET),
    ]
    assert "kafka-reassign-partitions" in str(drift[0])


def test_other_sizes() -> None:
    assert declared() == topics.TOPICS
    found = {topic.name: topic for topic in declared(partitions=12, replication=3)}
    assert {(found[name].partitions, found[name].replication, found[name].min_isr) for name in topics.EVENT_TOPICS} == {
        (12, 3, 2)
    }
    assert found[topics.DEADLETTER] == replace(topics.TOPICS[-1], replication=3, min_isr=2)
    assert declared(replication=1)[0].min_isr == 1


def test_the_commands(broker: str) -> None:
    """Growing and refusing, by the command line alone."""

    def seminar(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "cli.main", "topics", *arguments, "--bootstrap", broker, "--json"]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    run = seminar("apply", "--partitions", "6")
    assert run.returncode == 0, run.stderr
    run = seminar("apply", "--partitions", "2")
    assert run.returncode == 1
    assert "Kafka cannot remove partitions" in run.stderr
    assert {x["action"] for x in json.loads(run.stdout)["drift"]} == {REFUSE}
    run = seminar("plan", "--partitions", "8")
    assert run.returncode == 0, run.stderr
    assert [x["found"] for x in json.loads(run.stdout)["drift"]] == ["6"] * len(topics.EVENT_TOPICS)


def test_no_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "PATIENCE_MS", 300)
    with pytest.raises(SeminarError, match="KAFKA_BOOTSTRAP_SERVERS"):
        topics.plan("127.0.0.1:1")
