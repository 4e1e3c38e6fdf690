"""The topics, declared in one place: `plan` shows how a broker differs, `apply` creates what is missing."""

from dataclasses import dataclass

from kafka.admin import NewTopic

from streaming import clients
from streaming.events import TYPES

DEADLETTER = "seminar.deadletter"
DAY_MS = 86_400_000


@dataclass(frozen=True)
class Topic:
    """A topic as it should be; `retention_ms` -1: for ever."""

    name: str
    partitions: int
    cleanup: str
    retention_ms: int


def topic_of(kind: str) -> str:
    """The topic of an event type."""
    return f"seminar.{kind}"


EVENT_TOPICS = tuple(topic_of(kind) for kind in TYPES)
TOPICS = (
    *(Topic(name, 4, "delete", 30 * DAY_MS) for name in EVENT_TOPICS),
    Topic(DEADLETTER, 4, "compact", -1),
)


def plan(bootstrap: str) -> list[str]:
    """How the broker's topics differ from the declared ones, a line each; empty when they do not."""
    admin = clients.admin(bootstrap)
    try:
        existing = set(admin.list_topics())
        found = {x["name"]: x for x in admin.describe_topics(sorted(existing & {t.name for t in TOPICS}))}
    finally:
        admin.close()
    drift = []
    for topic in TOPICS:
        if topic.name not in existing:
            drift.append(f"{topic.name}: missing; apply creates it with {topic.partitions} partitions")
        elif (count := len(found[topic.name]["partitions"])) != topic.partitions:
            drift.append(f"{topic.name}: {count} partitions, declared {topic.partitions}; change it with Kafka's own tools")
    return drift


def apply(bootstrap: str) -> list[str]:
    """Create the topics that are missing, and change no other; a line each."""
    admin = clients.admin(bootstrap)
    try:
        existing = set(admin.list_topics())
        missing = [topic for topic in TOPICS if topic.name not in existing]
        if missing:
            admin.create_topics(
                [
                    NewTopic(
                        topic.name,
                        num_partitions=topic.partitions,
                        replication_factor=-1,
                        topic_configs={"cleanup.policy": topic.cleanup, "retention.ms": str(topic.retention_ms)},
                    )
                    for topic in missing
                ]
            )
        return [f"{topic.name}: created with {topic.partitions} partitions" for topic in missing]
    finally:
        admin.close()
