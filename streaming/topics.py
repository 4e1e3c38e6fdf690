"""The topics, declared in one place: `plan` shows how a broker differs, `apply` changes what can be changed safely."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kafka.admin import ConfigResource, NewTopic
from kafka.errors import KafkaError

from features.errors import SeminarError
from streaming import clients
from streaming.events import TYPES

DEADLETTER = "seminar.deadletter"
DAY_MS = 86_400_000


@dataclass(frozen=True)
class Topic:
    """A topic as it should be; `retention_ms` -1: for ever; `replication` and `min_isr` None: whatever the broker gives."""

    name: str
    partitions: int
    cleanup: str
    retention_ms: int
    replication: int | None = None
    min_isr: int | None = None

    def configs(self) -> dict[str, str]:
        """The topic's settings by Kafka's names."""
        found = {"cleanup.policy": self.cleanup, "retention.ms": str(self.retention_ms)}
        return found | ({"min.insync.replicas": str(self.min_isr)} if self.min_isr is not None else {})


def topic_of(kind: str) -> str:
    """The topic of an event type."""
    return f"seminar.{kind}"


EVENT_TOPICS = tuple(topic_of(kind) for kind in TYPES)
TOPICS = (
    *(Topic(name, 4, "delete", 30 * DAY_MS) for name in EVENT_TOPICS),
    Topic(DEADLETTER, 4, "compact", -1),
)


def declared(partitions: int | None = None, replication: int | None = None) -> tuple[Topic, ...]:
    """The topics with another size: `partitions` of each event topic, `replication` of all.

    With a replication of R, R - 1 replicas must have a message before it is acknowledged, so that one broker may be away.
    The dead letters' partitions stay: compaction keeps the newest of a key within one partition.
    """
    found = list(TOPICS)
    if replication is not None:
        found = [replace(topic, replication=replication, min_isr=max(1, replication - 1)) for topic in found]
    if partitions is not None:
        found = [replace(topic, partitions=partitions) if topic.name in EVENT_TOPICS else topic for topic in found]
    return tuple(found)


CREATE, ADD, SET, REFUSE, UNREAD = "create", "add partitions", "set", "refuse", "unread"


@dataclass(frozen=True)
class Drift:
    """One way in which a broker's topic differs, and what `apply` does about it (`str`: a line that says so)."""

    topic: str
    what: str
    found: str | None
    declared: str
    action: str
    reason: str = ""

    def __str__(self) -> str:
        if self.action == CREATE:
            return f"{self.topic}: missing; apply creates it with {self.declared}"
        done = {ADD: "apply adds partitions", SET: "apply sets it", REFUSE: "apply leaves it", UNREAD: "apply leaves it"}[
            self.action
        ]
        return f"{self.topic}: {self.what} {self.found}, declared {self.declared}; {done}" + f" ({self.reason})" * bool(
            self.reason
        )


ORDER = "a key's later events go elsewhere, which changes no sequence: a sequence is a set"
_FEWER = "Kafka cannot remove partitions: ask for as many as there are, or make the topic anew when all is consumed"
_REPLICAS = "moving replicas is the work of Kafka's own kafka-reassign-partitions"
_HIDDEN = "this broker, or this user's rights on it, does not show it"


def plan(bootstrap: str, wanted: Sequence[Topic] = TOPICS) -> list[Drift]:
    """How the broker's topics differ from the declared ones; empty when they do not. Changes nothing."""
    admin = clients.admin(bootstrap)
    try:
        return _drift(admin, wanted)
    finally:
        admin.close()


def apply(bootstrap: str, wanted: Sequence[Topic] = TOPICS) -> list[Drift]:
    """Create what is missing, add partitions, set what drifted; what was found to do, with what was refused (`REFUSE`).

    SeminarError: the broker did not do what it was asked for.
    """
    admin = clients.admin(bootstrap)
    try:
        drift = _drift(admin, wanted)
        by_name = {topic.name: topic for topic in wanted}
        try:
            _create(admin, [by_name[name] for name in _topics(drift, CREATE)])
            if growing := {x.topic: int(x.declared) for x in drift if x.action == ADD}:
                admin.create_partitions(growing)
            _set(admin, [x for x in drift if x.action == SET])
        except KafkaError as error:
            raise SeminarError(
                "topics", bootstrap, f"could not be changed ({error})", "correct that, then apply again"
            ) from error
        return drift
    finally:
        admin.close()


def _topics(drift: Iterable[Drift], action: str) -> list[str]:
    return [x.topic for x in drift if x.action == action]


def _drift(admin: Any, wanted: Sequence[Topic]) -> list[Drift]:
    existing = set(admin.list_topics())
    present = [topic for topic in wanted if topic.name in existing]
    described = {x["name"]: x["partitions"] for x in admin.describe_topics([t.name for t in present])} if present else {}
    settings = _settings(admin, present)
    drift = []
    for topic in wanted:
        if topic.name not in existing:
            size = f"{topic.partitions} partitions" + (f", replication {topic.replication}" if topic.replication else "")
            drift.append(Drift(topic.name, "topic", None, size, CREATE))
            continue
        count = len(described[topic.name])
        if count != topic.partitions:
            grows = count < topic.partitions
            action, reason = (ADD, ORDER) if grows else (REFUSE, _FEWER)
            drift.append(Drift(topic.name, "partitions", str(count), str(topic.partitions), action, reason))
        replicas = {len(partition["replica_nodes"]) for partition in described[topic.name]}
        if topic.replication is not None and replicas != {topic.replication}:
            found = "/".join(map(str, sorted(replicas)))
            drift.append(Drift(topic.name, "replication", found, str(topic.replication), REFUSE, _REPLICAS))
        for name, value in topic.configs().items():
            given = settings.get(topic.name, {}).get(name)
            if given is None:
                drift.append(Drift(topic.name, name, "unknown", value, UNREAD, _HIDDEN))
            elif given != value:
                drift.append(Drift(topic.name, name, given, value, SET))
    return drift


def _settings(admin: Any, topics: Sequence[Topic]) -> dict[str, dict[str, str]]:
    """Settings by topic and name; without those that the broker does not show."""
    if not topics:
        return {}
    asked = [ConfigResource("topic", topic.name, list(topic.configs())) for topic in topics]
    try:
        found = admin.describe_configs(asked, config_filter="all").get("topic", {})
    except KafkaError:
        return {}
    return {name: {key: one["value"] for key, one in values.items()} for name, values in found.items()}


def _create(admin: Any, topics: Sequence[Topic]) -> None:
    if topics:
        new = [
            NewTopic(t.name, num_partitions=t.partitions, replication_factor=t.replication or -1, topic_configs=t.configs())
            for t in topics
        ]
        admin.create_topics(new)
        admin.wait_for_topics([topic.name for topic in topics])


def _set(admin: Any, drift: Sequence[Drift]) -> None:
    changes: dict[str, dict[str, str]] = {}
    for x in drift:
        changes.setdefault(x.topic, {})[x.what] = x.declared
    if changes:
        # One by one and incrementally where the broker can: settings that are not declared here stay as they are.
        resources = [ConfigResource("topic", name, values) for name, values in changes.items()]
        answers = admin.alter_configs(resources, raise_on_unknown=False)["topic"]
        if failed := {name: answer for name, answer in answers.items() if answer != "OK"}:
            raise KafkaError(", ".join(f"{name}: {answer}" for name, answer in failed.items()))
