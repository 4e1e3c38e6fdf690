"""The demo's stages that move data: the bulk import, the stream, the scored requests."""

import itertools
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cli.output import Output
from cli.processes import Child, free_port
from cli.scoring import Catalogue, latency, ranked, show, show_explanation
from features.errors import SeminarError
from features.online import Online
from features.parity import compare
from features.reports import save
from model.serve.client import Client
from streaming import consumer, importer, topics
from streaming.datasets.complete_journey import NOTICE, SOURCE, CompleteJourney
from streaming.deadletters import FileSink, read_all
from streaming.events import Event
from streaming.producer import Producer
from streaming.topics import topic_of

DAY_MS = 86_400_000
CANDIDATES = 100
REQUESTS = 200


def day(date: str) -> int:
    """A date (UTC) as ms."""
    return int(datetime.fromisoformat(date).replace(tzinfo=UTC).timestamp() * 1000)


def bulk_import(out: Output, data: CompleteJourney, home: Path, dates: dict[str, str]) -> dict[str, Any]:
    """Stage 2: catalogue and past, through the same `apply` as the stream."""
    out.heading("2 Catalogue and past: seminar history import")
    out.line(NOTICE)
    save(home, "dataset", {"name": SOURCE, "notice": NOTICE, "constructed": ["search", "impression"]})
    online, sink = Online(), FileSink(home)
    counts: dict[str, int] = {}
    since, t1, until = day(dates["past"]), day(dates["t1"]), day(dates["t2"])
    begin = time.monotonic()
    sources = {
        "items": data.items(until_ms=until),
        "behaviour": data.behaviour(since, until),
        "impressions": data.impressions(t1, until),
    }
    with out.progress("importing") as advance:
        for name, source in sources.items():
            done = importer.import_events(name, source, online, home, sink, on_batch=advance)
            counts |= done.counts
    seconds, events = time.monotonic() - begin, sum(counts.values())
    out.line(f"{events:,} events in {seconds:.1f} s: " + ", ".join(f"{n:,} {kind}" for kind, n in counts.items()))
    return {"events": events, "seconds": round(seconds, 2), "events_per_s": round(events / seconds), "counts": counts}


def bad_events(producer: Producer, user: str) -> int:
    """A handful of messages such as a careless producer sends; how many."""
    good = [
        ("ce_type", b"seminar.search.v1"),
        ("ce_source", b"demo"),
        ("ce_id", b"bad"),
        ("ce_time", b"2017-11-01T10:00:00Z"),
    ]
    later = [*good[:3], ("ce_time", b"2317-11-01T10:00:00Z")]
    key, topic = user.encode(), topic_of("search")
    messages = [
        (key, b'{"user_id": "%s", "query": ""}' % key, good),
        (key, b'{"user_id": "%s"}' % key, good),
        (key, b"not json", good),
        (b"somebody else", b'{"user_id": "%s", "query": "milk"}' % key, good),
        (key, b'{"user_id": "%s", "query": "milk"}' % key, later),
        (key, b'{"user_id": "%s", "query": "milk"}' % key, good[1:]),
    ]
    for message in messages:
        producer.send_raw(topic, *message)
    return len(messages)


def stream(
    out: Output, stack: ExitStack, data: CompleteJourney, home: Path, bootstrap: str, dates: dict[str, str]
) -> tuple[Child, dict[str, Any]]:
    """Stage 3: the following days through Kafka; afterwards online and history must agree exactly."""
    out.heading("3 Stream: producers, Kafka, the consumer group")
    for line in topics.apply(bootstrap):
        out.line(str(line))
    since, until = day(dates["t2"]), day(dates["end"])
    parts = (data.items(since, until), data.behaviour(since, until), data.impressions(since, until))
    events: list[Event] = sorted(itertools.chain(*parts), key=lambda event: event.time_ms)
    begin = time.monotonic()
    with Producer(bootstrap, SOURCE) as producer, out.progress("producing", len(events)) as advance:
        for event in events:
            producer.send(event)
            advance(1)
        bad = bad_events(producer, data.users[0])
    produced = time.monotonic() - begin
    out.line(f"{len(events):,} events and {bad} bad ones produced in {produced:.1f} s")
    child = stack.enter_context(Child(["consume", "--bootstrap", bootstrap], home / "logs" / "consumer.log"))
    wait(lambda: not any(consumer.lag(bootstrap).values()), child, "the consumer to catch up")
    rate = consumer_rate(home / "logs" / "consumer.log")
    letters = list(read_all(bootstrap))
    parity = compare(Online(), home)
    out.line(f"consumed at {rate:,.0f} events a second; {len(letters)} dead letters, e.g.")
    out.table(["field", "value", "reason"], [(x["field"], x["value"][:30], x["reason"]) for x in letters])
    out.line(
        f"online against history: {parity['users']} users compared, {parity['equal']} equal, "
        f"edit distance {parity['edit_distance']}"
    )
    if parity["edit_distance"]:
        raise SeminarError("parity", parity["differing"], "online and history differ", "see var/logs/consumer.log")
    facts = {
        "events": len(events),
        "bad": bad,
        "produce_s": round(produced, 2),
        "seconds": round(len(events) / max(rate, 1e-9), 2),
        "events_per_s": round(rate),
        "dead_letters": letters,
        "parity": parity,
    }
    return child, facts


def consumer_rate(log: Path) -> float:
    """Events a second while the consumer was busy, from its own log: validation to commit."""
    events = seconds = 0.0
    for line in log.read_text().splitlines():
        words = line.split()
        if "applied" in words:
            at = words.index("applied")
            events += int(words[at + 1]) + int(words[at + 3])
            seconds += float(words[at + 6])
    return events / seconds if seconds else 0.0


def score(
    out: Output,
    stack: ExitStack,
    data: CompleteJourney,
    home: Path,
    bootstrap: str,
    consuming: Child,
    dates: dict[str, str],
) -> dict[str, Any]:
    """Stage 5: rank candidates over HTTP; then more events of one user change its scores, without a restart."""
    out.heading("5 Scoring over HTTP")
    port = free_port()
    serving = stack.enter_context(Child(["serve", "--port", str(port)], home / "logs" / "scorer.log"))
    client = stack.enter_context(Client(f"http://127.0.0.1:{port}"))
    wait(client.ready, serving, "the scorer to be ready")
    catalogue, now = Catalogue(), datetime.fromtimestamp(day(dates["end"]) / 1000, UTC)
    coming = [e for e in data.behaviour(day(dates["end"]), day(dates["end"]) + 14 * DAY_MS) if e.type == "browse"]
    searched = [e for e in coming if "query" in e.data]
    users = list(dict.fromkeys(e.key for e in searched))[:3]
    asked = {e.key: e.data["query"] for e in reversed(searched)}
    for user in users:
        candidates = catalogue.candidates(asked[user], CANDIDATES)
        show(out, client.score(user, candidates, asked[user], now), catalogue.titles, asked[user])
    user, query = users[0], asked[users[0]]
    best = [s["item"] for s in ranked(client.score(user, catalogue.candidates(query, CANDIDATES), query, now), CANDIDATES)]
    answer = client.score(user, best, query, now, explain=True)
    explained = answer["explanations"][0]
    show_explanation(out, explained)
    took = latency(client, [*users, *data.users[:50]], best, query, REQUESTS)
    out.line(f"{REQUESTS} requests of {len(best)} candidates: p50 {took['http']['p50_ms']:.1f} ms over HTTP")
    mine = [e for e in coming if e.key == user][:20]
    later = datetime.fromtimestamp(mine[-1].time_ms / 1000 + 3600, UTC)
    followed = next((e.data["item_id"] for e in mine if e.data["item_id"] in catalogue.titles), best[0])
    before = client.score(user, [followed], query, later)
    with Producer(bootstrap, SOURCE) as producer:
        for event in mine:
            producer.send(event)
    wanted = before["sequence"]["length"] + len(mine)
    wait(lambda: client.score(user, best, query, later)["sequence"]["length"] >= wanted, consuming, "the new events")
    after = client.score(user, [followed], query, later)
    rates = [x["scores"][0]["rate"] for x in (before, after)]
    out.line(f"{len(mine)} more events of user {user}: rate of {followed} {rates[0]:.5f} -> {rates[1]:.5f}, no restart")
    return {
        "latency": took,
        "requests": REQUESTS,
        "candidates": len(best),
        "explained": {
            "user": user,
            "query": query,
            "candidates": best,
            "item_id": best[0],
            "title": catalogue.titles.get(best[0]),
            "rate": answer["scores"][0]["rate"],
            "retrieved": [
                {
                    "what": b["query"] if b["kind"] == "search" else b["title"],
                    "kind": b["kind"],
                    "age_s": b["age_s"],
                    "attention": b["attention"],
                }
                for b in explained["behaviours"]
            ],
        },
        "change": {
            "user": user,
            "item_id": followed,
            "title": catalogue.titles.get(followed),
            "before": rates[0],
            "after": rates[1],
            "events": len(mine),
        },
        "answer": {**answer, "scores": answer["scores"][:5], "explanations": None},
    }


def wait(done: Callable[[], bool], child: Child, what: str, patience: float = 120.0) -> None:
    """Wait until something holds; SeminarError when the process that should bring it ended, or it takes too long."""
    deadline = time.monotonic() + patience
    while not done():
        child.check()
        if time.monotonic() > deadline:
            raise SeminarError("waiting for", what, f"took more than {patience:.0f} s", f"see {child.log}")
        time.sleep(0.1)
