"""Verbs of the stream: topics, producing, consuming, and looking at what was sent."""

import signal
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.options import Bootstrap, brokers
from cli.output import Json, Output, log_to_stderr
from features.errors import SeminarError
from features.settings import settings

app = typer.Typer()
topics_app = typer.Typer(no_args_is_help=True, help="Kafka topics: what should be, what is.")
app.add_typer(topics_app, name="topics")


Partitions = Annotated[int | None, typer.Option(min=1, help="Partitions of each event topic; 4 if absent.")]
Replication = Annotated[int | None, typer.Option(min=1, help="Replicas of every topic; the brokers' default if absent.")]


@topics_app.command("plan")
def topics_plan(
    partitions: Partitions = None, replication: Replication = None, bootstrap: Bootstrap = None, as_json: Json = False
) -> None:
    """Show how the broker's topics differ from what is declared; changes nothing."""
    from streaming import topics

    _show(Output(as_json), topics.plan(brokers(bootstrap), topics.declared(partitions, replication)))


@topics_app.command("apply")
def topics_apply(
    partitions: Partitions = None, replication: Replication = None, bootstrap: Bootstrap = None, as_json: Json = False
) -> None:
    """Create missing topics, add partitions, set what drifted; exit status 1 when something is refused."""
    from streaming import topics

    found = topics.apply(brokers(bootstrap), topics.declared(partitions, replication))
    _show(Output(as_json), found)
    for drift in found:
        if drift.action == topics.REFUSE:
            problem = f"is {drift.found} and declared {drift.declared}: {drift.reason}"
            raise SeminarError(f"{drift.topic} {drift.what}", drift.declared, problem, "all else is as declared")


def _show(out: Output, drift: list[Any]) -> None:
    for line in drift or ["topics are as declared"]:
        out.line(str(line))
    out.result({"drift": [asdict(x) for x in drift]})


@app.command()
def consume(
    bootstrap: Bootstrap = None,
    group: Annotated[str, typer.Option(help="Consumer group.")] = "seminar",
    instance: Annotated[str, typer.Option(help="Static member id; distinct for each member.")] = "seminar-1",
    epoch: Annotated[
        str, typer.Option(help="Names the topics where brokers have no topic ids; a new one reads all again.")
    ] = "",
    metrics_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Serve Prometheus metrics on this port.")
    ] = None,
    metrics_host: Annotated[str, typer.Option(help="Address of the metrics port.")] = "127.0.0.1",
    as_json: Json = False,
) -> None:
    """Append events from Kafka to the online sequences and to history, until SIGTERM or Ctrl-C."""
    from features.online import Online
    from streaming import consumer
    from streaming.metrics import Metrics

    stop = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stop.set())
    log_to_stderr()
    metrics = Metrics()
    if metrics_port is not None:
        metrics.serve(metrics_port, metrics_host)
    total = consumer.run(
        brokers(bootstrap), Online(), settings().home, stop, group=group, instance=instance, epoch=epoch, metrics=metrics
    )
    Output(as_json).result(total)


@app.command()
def produce(
    file: Annotated[Path, typer.Argument(help="One CloudEvent (JSON, structured mode) a line.")],
    bootstrap: Bootstrap = None,
    as_json: Json = False,
) -> None:
    """Send the events of a file to Kafka, each validated first; stops at the first that is no valid event."""
    from streaming.events import Invalid, parse
    from streaming.importer import read_jsonl
    from streaming.producer import Producer

    with Producer(brokers(bootstrap), "seminar-produce") as producer:
        for number, message in enumerate(read_jsonl(file), 1):
            try:
                producer.send(parse(message))
            except Invalid as bad:
                raise SeminarError(f"{file}:{number} {bad.field}", bad.value, bad.reason, "correct the line") from None
    out = Output(as_json)
    out.line(f"{producer.acknowledged:,} events acknowledged")
    out.result({"acknowledged": producer.acknowledged})


@app.command()
def deadletters(
    out_file: Annotated[Path | None, typer.Option("--out", help="Write them here, to be repaired for `redrive`.")] = None,
    bootstrap: Bootstrap = None,
    as_json: Json = False,
) -> None:
    """Show messages that were no valid events, of the stream and of imports: where they came from, why they were refused."""
    from streaming.deadletters import letters_in_file, letters_in_kafka
    from streaming.redrive import write_letters

    out, where = Output(as_json), bootstrap or settings().bootstrap_servers
    letters = letters_in_file(settings().home) + (letters_in_kafka(where) if where else [])
    if not where:
        out.line("no broker is named: letters of imports only")
    rows = [letter.as_dict() for letter in letters]
    out.table(
        ["origin", "field", "value", "reason"], [(x["origin"], x["field"], x["value"][:40], x["reason"]) for x in rows]
    )
    if out_file:
        out.line(f"{write_letters(letters, out_file):,} letters written to {out_file}")
    out.result({"dead_letters": rows})


@app.command()
def validate(
    file: Annotated[Path | None, typer.Argument(help="One CloudEvent (JSON, structured mode) a line.")] = None,
    topic: Annotated[list[str] | None, typer.Option(help="A topic; may be given several times.")] = None,
    begin: Annotated[
        str, typer.Option("--from", help="Of topics: earliest, last=1h, ts=2026-01-31T00:00:00Z.")
    ] = "earliest",
    limit: Annotated[
        list[str] | None, typer.Option(help="NAME=NUMBER, say late=0.2 or ahead_s=60; a wrong NAME lists all.")
    ] = None,
    bootstrap: Bootstrap = None,
    as_json: Json = False,
) -> None:
    """Check a producer's events: schema, keys, duplicates, order, clocks, items, joins; exit status 1 when one fails."""
    from streaming import validate as validation
    from streaming.importer import read_jsonl

    if (file is None) == (not topic):
        raise SeminarError("FILE", file, "and --topic: exactly one is needed", "name a file, or topics with --topic")
    out, home = Output(as_json), settings().home
    limits = validation.Limits.parse(limit or ())
    messages = (
        validation.from_file(read_jsonl(file)) if file else validation.from_topics(brokers(bootstrap), topic or [], begin)
    )
    online = None
    if (home / "registry.db").exists():
        from features.online import Online

        online = Online()
    with out.progress("validating") as advance:
        found = validation.validate(messages, home, limits, online=online, on_batch=advance)
    show_checks(out, found, "correct the producer (docs/producers.md says how)")


def show_checks(out: Output, found: dict[str, Any], remedy: str) -> None:
    """What `streaming.validate` found; SeminarError when a check failed."""
    rows = [
        (
            c["name"],
            c["status"],
            f"{c['found']:,}",
            f"{c['of']:,}",
            f"{c['share']:.2%}",
            f"{c['limit']:g}",
            c["note"] * (c["status"] != "PASS"),
        )
        for c in found["checks"]
    ]
    out.table(["check", "result", "found", "of", "share", "limit", "note"], rows)
    for check in found["checks"]:
        for example in check["examples"] if check["found"] or check["status"] == "FAIL" else ():
            out.line(f"{check['name']}: {example}")
    out.result(found)
    if failed := [c["name"] for c in found["checks"] if c["status"] == "FAIL"]:
        raise SeminarError("validate", ", ".join(failed), "failed", remedy)


@app.command()
def trace(
    event_id: Annotated[str, typer.Argument(help="The event's id (ce_id).")],
    source: Annotated[str | None, typer.Option(help="Its source (ce_source).")] = None,
    user: Annotated[str | None, typer.Option(help="Its key: reads only that key's partition.")] = None,
    group: Annotated[str, typer.Option(help="Consumer group.")] = "seminar",
    bootstrap: Bootstrap = None,
    as_json: Json = False,
) -> None:
    """Where an event is: Kafka, history, the online store, the dead letters; exit status 1 when nowhere."""
    from streaming.trace import trace as follow

    out, where = Output(as_json), bootstrap or settings().bootstrap_servers
    found = follow(event_id, settings().home, where, source=source, user=user, group=group)
    rows = [
        ("Kafka", f"{x.topic}/{x.partition}/{x.offset}", f"{x.event.type} of {x.event.key}" if x.event else x.problem)
        for x in found.kafka
    ]
    rows += [("history", x.file, f"{x.kind} from {x.origin}, arrived {x.arrived}, by {x.by}") for x in found.history]
    rows += [("online", "", words) for words in found.online]
    rows += [("dead letter", x["origin"], f"{x['field']} {x['reason']} ({x['where']})") for x in found.dead_letters]
    out.table(["where", "place", "what"], rows)
    out.line(f"{found.messages_read:,} messages of Kafka were read")
    for note in found.notes:
        out.line(note)
    out.result(found.as_dict())
    if not found.anywhere:
        raise SeminarError("event", event_id, "was found nowhere", "compare its id and source with what the producer sent")
