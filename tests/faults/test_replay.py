"""Replay and redrive beside a consumer at work."""

import json
import time

from msgspec.structs import replace

from benchmarks.harness.load import event, message
from benchmarks.harness.stand import Stand, finish
from features.online import Online
from streaming import clients
from streaming.deadletters import KafkaSink, letters_in_kafka
from streaming.positions import Position
from streaming.redrive import redrive
from streaming.replay import from_history, from_kafka

from .conftest import assert_each_once

BASE_MS, FIRST, BROKEN = 1_500_000_000_000, 1_000_000, 40


def test_replay_and_redrive_while_a_consumer_runs(stand: Stand) -> None:
    broken = [event(number, BASE_MS) for number in range(FIRST, FIRST + BROKEN)]
    send_broken(stand, broken)
    pid = stand.member(events=100)
    load = stand.load(4000, rate=800)
    time.sleep(1)
    online, sink = Online(), KafkaSink(stand.bootstrap)
    try:
        redriven = repair(stand, broken, online, sink)
        for _ in range(2):
            from_kafka(stand.bootstrap, Position(), online, stand.home, sink)
            from_history(online, stand.home)
    finally:
        sink.close()
    finish(load)
    stand.settle()
    stand.stop(pid)
    assert redriven == BROKEN
    # They are events now: acknowledged by their redrive.
    file = stand.folder / "redriven.jsonl"
    file.write_text("".join(json.dumps(x) + "\n" for x in broken))
    stand.acknowledged.append(file)
    found = stand.judge()
    assert_each_once(found)
    assert found["acknowledged"] == 4000 + BROKEN
    assert found["repeats_online"] > 0, "a replay repeats what is there"


def send_broken(stand: Stand, events: list[dict[str, object]]) -> None:
    """Events whose bodies were cut off by their producer."""
    producer = clients.producer(stand.bootstrap)
    for one in events:
        topic, key, body, headers = message(one)
        producer.send(topic, key=key, value=body[:-3], headers=headers)
    producer.flush(60)
    producer.close()


def repair(stand: Stand, events: list[dict[str, object]], online: Online, sink: KafkaSink) -> int:
    """Redrive the letters of these events with their right bodies; how many were."""
    whole = {str(one["id"]).encode(): message(one)[2] for one in events}
    letters, deadline = [], time.monotonic() + 60
    while len(letters) < len(events):
        assert time.monotonic() < deadline, "the letters do not come"
        letters = [x for x in letters_in_kafka(stand.bootstrap) if x.message.headers.get("ce_id") in whole]
    fixed = {x.key: replace(x.message, value=whole[x.message.headers["ce_id"]]) for x in letters}
    answer = redrive([(x, sink) for x in letters], online, stand.home, fixed)
    left = [x for x in letters_in_kafka(stand.bootstrap) if x.message.headers.get("ce_id") in whole]
    assert not left
    assert not answer["refused"]
    return int(answer["redriven"])
