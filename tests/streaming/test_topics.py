"""Topics on a real broker: what is missing is made, what differs is said."""

from pathlib import Path

import pytest
from kafka.admin import KafkaAdminClient, NewTopic

from features.errors import SeminarError
from streaming import clients, topics
from streaming.broker import EmbeddedBroker


def test_plan_apply_and_plan_again(tmp_path: Path) -> None:
    with EmbeddedBroker(tmp_path) as broker:
        assert len(topics.plan(broker.bootstrap)) == len(topics.TOPICS) == 6
        assert len(topics.apply(broker.bootstrap)) == 6
        assert topics.plan(broker.bootstrap) == []
        assert topics.apply(broker.bootstrap) == []


def test_a_topic_that_differs_is_named_and_left(tmp_path: Path) -> None:
    with EmbeddedBroker(tmp_path) as broker:
        admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap)
        admin.create_topics([NewTopic(topics.DEADLETTER, num_partitions=1, replication_factor=1)])
        admin.close()
        assert len(topics.apply(broker.bootstrap)) == 5
        (drift,) = topics.plan(broker.bootstrap)
        assert drift.startswith("seminar.deadletter: 1 partitions, declared 4")


def test_no_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "PATIENCE_MS", 300)
    with pytest.raises(SeminarError, match="KAFKA_BOOTSTRAP_SERVERS"):
        topics.plan("127.0.0.1:1")
