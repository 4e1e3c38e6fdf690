"""The consumer against a real broker: stores that fail, members that come and go, a process that is killed."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from kafka import KafkaConsumer, OffsetAndMetadata, TopicPartition
from kafka.admin import KafkaAdminClient, MemberToRemove

from features import history
from features.errors import SeminarError
from features.online import Online
from features.parity import compare
from features.settings import REPOSITORY
from features.state import watermarks
from streaming import clients, consumer, topics
from streaming.broker import EmbeddedBroker
from streaming.deadletters import read_all
from streaming.member import Limits
from streaming.producer import Producer
from streaming.topics import EVENT_TOPICS, topic_of

from .conftest import caught_up, consuming, event, wait

FAST = Limits(seconds=0.05, backoff=(0.05,))


def send(bootstrap: str, first: int, last: int) -> None:
    with Producer(bootstrap, "test") as producer:
        for i in range(first, last):
            producer.send(event(i))


def assert_exactly(home: Path, count: int) -> None:
    """History and the online store hold events 0 to count, each once."""
    stored = history.read_sequences(home)
    expected: dict[str, set[int]] = {}
    for i in range(count):
        expected.setdefault(event(i).key, set()).add(event(i).time_ms)
    found = {user: stored.of(n)["time"].tolist() for n, user in enumerate(stored.user_ids)}
    assert found == {user: sorted(times) for user, times in expected.items()}
    assert compare(Online(), home)["edit_distance"] == 0


def test_consumes_commits_and_sets_bad_messages_aside(bootstrap: str, home: Path) -> None:
    send(bootstrap, 0, 300)  # before the group exists: a new group starts at the beginning
    with Producer(bootstrap, "test") as producer:
        producer.send_raw(topic_of("search"), b"user-1", b"not json", event(0).headers())
    with consuming(bootstrap, home, limits=FAST) as result:
        wait(caught_up(bootstrap))
    assert_exactly(home, 300)
    assert result["events"] == {"search": 100, "browse": 200}
    assert result["rejected"] == 1
    assert [letter["field"] for letter in read_all(bootstrap)] == ["data"]


def test_goes_on_where_it_stopped(bootstrap: str, home: Path) -> None:
    send(bootstrap, 0, 60)
    with consuming(bootstrap, home, limits=FAST):
        wait(caught_up(bootstrap))
    send(bootstrap, 60, 90)
    with consuming(bootstrap, home, limits=FAST) as result:
        wait(caught_up(bootstrap))
    assert sum(result["events"].values()) == 30
    assert_exactly(home, 90)


def test_a_failed_batch_is_retried_whole_and_nothing_is_committed_before(bootstrap: str, home: Path) -> None:
    failures: list[str] = []

    def step(name: str) -> None:
        if name == "history" and len(failures) < 3:
            failures.append(name)
            assert sum(consumer.lag(bootstrap).values()) == 120
            raise OSError("the store is away")

    send(bootstrap, 0, 120)
    with consuming(bootstrap, home, limits=Limits(seconds=1, backoff=(0.05,)), step=step):
        wait(caught_up(bootstrap))
    assert len(failures) == 3
    assert_exactly(home, 120)


def test_partitions_that_come_while_the_store_is_away_lose_nothing(bootstrap: str, home: Path) -> None:
    """A member leaves while another one is in its retries: what it inherits must wait, not be read and dropped."""
    away, retries = threading.Event(), list[float]()

    def step(name: str) -> None:
        if away.is_set() and name == "entities":
            retries.append(time.monotonic())
            raise OSError("the store is away")

    with consuming(bootstrap, home, "one", limits=Limits(seconds=0.05, backoff=(4,)), step=step):
        with consuming(bootstrap, home, "two", limits=FAST):
            wait(lambda: members(bootstrap) == 2)
            send(bootstrap, 0, 60)
            wait(caught_up(bootstrap))
        away.set()
        send(bootstrap, 60, 400)
        wait(lambda: len(retries) == 1)  # four seconds begin in which "one" only polls
        leave(bootstrap, "two")
        wait(lambda: members(bootstrap) == 1)
        assert len(retries) == 1, "the rebalance was to fall into the first wait"
        away.clear()
        wait(caught_up(bootstrap))
    assert_exactly(home, 400)


def test_a_topic_made_again_with_fewer_partitions_leaves_no_old_watermark(bootstrap: str, home: Path) -> None:
    def marked() -> list[str]:
        return sorted(name for name in watermarks(Online()) if name.startswith(topic_of("search")))

    with consuming(bootstrap, home, limits=Limits(seconds=0.05, tick=0.2)):
        wait(lambda: len(marked()) == 4)
        admin = clients.admin(bootstrap)
        admin.delete_topics([topic_of("search")])
        wait(lambda: topic_of("search") not in admin.list_topics())
        admin.close()
        topics.apply(bootstrap, topics.declared(partitions=1))
        wait(lambda: marked() == [f"{topic_of('search')}/0"])


def members(bootstrap: str) -> int:
    """Members of the group, 0 while it rebalances."""
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    try:
        group = admin.describe_groups(["seminar"])["seminar"]
        return len(group["members"]) if group["group_state"] == "Stable" else 0
    finally:
        admin.close()


def leave(bootstrap: str, instance: str) -> None:
    """What a member's session timeout does: the static member is gone and its partitions are given away."""
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    try:
        admin.remove_group_members("seminar", [MemberToRemove(group_instance_id=instance)])
    finally:
        admin.close()


def test_stops_in_the_middle_of_retries(bootstrap: str, home: Path) -> None:
    def step(name: str) -> None:
        raise OSError("the store is away")

    send(bootstrap, 0, 10)
    begin = time.monotonic()
    with consuming(bootstrap, home, limits=Limits(seconds=0.05, backoff=(60,)), step=step):
        time.sleep(1)
    assert time.monotonic() - begin < 10
    assert sum(consumer.lag(bootstrap).values()) == 10


def test_an_offset_that_is_gone_halts_and_names_the_range(bootstrap: str, home: Path) -> None:
    send(bootstrap, 0, 30)
    partition = TopicPartition(EVENT_TOPICS[0], 0)
    reader = KafkaConsumer(bootstrap_servers=bootstrap, group_id="seminar", enable_auto_commit=False)
    reader.commit({partition: OffsetAndMetadata(10_000, "", -1)})
    reader.close()
    with (
        pytest.raises(SeminarError, match=f"{partition.topic}/0"),
        consuming(bootstrap, home, limits=FAST) as found,
    ):
        wait(lambda: "failed" in found)


def test_topics_that_are_made_later_are_consumed(tmp_path: Path, home: Path) -> None:
    with EmbeddedBroker(tmp_path / "broker") as broker, consuming(broker.bootstrap, home, limits=FAST):
        time.sleep(0.5)
        topics.apply(broker.bootstrap)
        send(broker.bootstrap, 0, 30)
        wait(caught_up(broker.bootstrap))
    assert_exactly(home, 30)


def test_no_broker_is_one_sentence(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "PATIENCE_MS", 300)
    with pytest.raises(SeminarError, match="KAFKA_BOOTSTRAP_SERVERS"):
        consumer.run("127.0.0.1:1", Online(), home, threading.Event())


CHILD = """
import os, signal, sys, threading
from features.online import Online
from features.settings import settings
from streaming import consumer, member, topics
from streaming.broker import EmbeddedBroker

def consume(die_after=None):
    def step(name):
        if name == die_after:
            os.kill(os.getpid(), signal.SIGKILL)
    limits = member.Limits(events=50, seconds=0.1)
    consumer.run(sys.argv[1], Online(), settings().home, stop, limits=limits, step=step)

stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
for gap in sys.argv[2:]:  # a fork each: importing takes seconds
    if not (child := os.fork()):
        consume(gap)
        os._exit(0)
    print(gap, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
consume()
"""


@pytest.mark.long
def test_killed_in_each_gap_and_started_again_loses_and_doubles_nothing(bootstrap: str, home: Path) -> None:
    send(bootstrap, 0, 400)
    gaps = ["validate", "dead_letters", "entities", "history", "online", "commit"]
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", CHILD, bootstrap, *gaps],
        env={**os.environ, "SEMINAR_HOME": str(home), "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout
        for gap in gaps:
            assert process.stdout.readline().split() == [gap, str(-signal.SIGKILL)]
        wait(caught_up(bootstrap))
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
    assert_exactly(home, 400)
