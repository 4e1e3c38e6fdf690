"""The `seminar` command: verbs only. Each calls one function of a package; imports wait until a verb needs them."""

import errno
import logging
import os
import signal
import sqlite3
import sys
import threading
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from cli import training
from cli.output import Json, Output, fail
from features.errors import SeminarError
from features.settings import settings

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
topics_app = typer.Typer(no_args_is_help=True, help="Kafka topics: what should be, what is.")
history_app = typer.Typer(no_args_is_help=True, help="History: bulk import, and whether online agrees with it.")
app.add_typer(topics_app, name="topics")
app.add_typer(history_app, name="history")
app.add_typer(training.app)

Bootstrap = Annotated[str | None, typer.Option(help="Brokers; else KAFKA_BOOTSTRAP_SERVERS.")]


def brokers(bootstrap: str | None) -> str:
    """The brokers named by the option or the environment."""
    found = bootstrap or settings().bootstrap_servers
    if not found:
        raise SeminarError("KAFKA_BOOTSTRAP_SERVERS", "", "is not set", "name a broker, e.g. 127.0.0.1:9092")
    return found


def moment(text: str | None) -> int:
    """A date or time (RFC 3339; UTC when no zone is given) as ms; now when absent."""
    if text is None:
        return int(datetime.now(UTC).timestamp() * 1000)
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError as error:
        raise SeminarError("time", text, "is no RFC 3339 date or time", "write e.g. 2017-10-01T00:00:00Z") from error
    return int((parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp() * 1000)


@app.command()
def apply(as_json: Json = False) -> None:
    """Register the feature definitions for this SEMINAR_HOME (what `feast apply` does)."""
    from features.repository import apply as register

    settings().home.mkdir(parents=True, exist_ok=True)
    register()
    out = Output(as_json)
    out.line(f"feature repository ready in {settings().home}")
    out.result({"home": str(settings().home)})


@app.command()
def demo(
    households: Annotated[int, typer.Option(min=20, help="How many households of the Complete Journey to take.")] = 300,
    as_json: Json = False,
) -> None:
    """The main job from event to score, on real purchase histories; ends with report.html in SEMINAR_HOME."""
    from cli.demo import run

    run(Output(as_json), households)


@topics_app.command("plan")
def topics_plan(bootstrap: Bootstrap = None, as_json: Json = False) -> None:
    """Show how the broker's topics differ from what is declared."""
    from streaming import topics

    out, drift = Output(as_json), topics.plan(brokers(bootstrap))
    for line in drift or ["topics are as declared"]:
        out.line(str(line))
    out.result({"drift": [str(x) for x in drift]})


@topics_app.command("apply")
def topics_apply(bootstrap: Bootstrap = None, as_json: Json = False) -> None:
    """Create the declared topics that are missing."""
    from streaming import topics

    out, done = Output(as_json), topics.apply(brokers(bootstrap))
    for line in done or ["topics are as declared"]:
        out.line(str(line))
    out.result({"done": [str(x) for x in done]})


@app.command()
def consume(
    bootstrap: Bootstrap = None,
    group: Annotated[str, typer.Option(help="Consumer group.")] = "seminar",
    instance: Annotated[str, typer.Option(help="Static member id; distinct for each member.")] = "seminar-1",
    as_json: Json = False,
) -> None:
    """Append events from Kafka to the online sequences and to history, until SIGTERM or Ctrl-C."""
    from features.online import Online
    from streaming import consumer

    stop = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stop.set())
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    total = consumer.run(brokers(bootstrap), Online(), settings().home, stop, group=group, instance=instance)
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
def deadletters(bootstrap: Bootstrap = None, as_json: Json = False) -> None:
    """Show messages that were no valid events: where they came from and why they were refused."""
    from streaming.deadletters import read_all

    out, letters = Output(as_json), list(read_all(brokers(bootstrap)))
    out.table(
        ["origin", "field", "value", "reason"], [(x["origin"], x["field"], x["value"][:40], x["reason"]) for x in letters]
    )
    out.result({"dead_letters": letters})


@history_app.command("import")
def history_import(
    file: Annotated[Path, typer.Argument(help="One CloudEvent (JSON, structured mode) a line.")], as_json: Json = False
) -> None:
    """Bring past events into history and the online store in bulk, without a broker; safe to repeat."""
    from features.online import Online
    from streaming.deadletters import FileSink
    from streaming.importer import import_events, read_jsonl

    out, home = Output(as_json), settings().home
    sink = FileSink(home)
    with out.progress("importing") as advance:
        done = import_events(file.name, read_jsonl(file), Online(), home, sink, on_batch=advance)
    out.line(
        f"{done.accepted:,} events imported, {done.rejected:,} refused" + (f" (see {sink.path})" if done.rejected else "")
    )
    out.result({"events": done.counts, "rejected": done.rejected})


@history_app.command("parity")
def history_parity(as_json: Json = False) -> None:
    """Compare every user's online sequence with history; exit status 1 when they differ."""
    from features.online import Online
    from features.parity import compare

    out, found = Output(as_json), compare(Online(), settings().home)
    out.line(f"{found['users']:,} users, {found['equal']:,} equal, edit distance {found['edit_distance']:,}")
    out.result(found)
    if found["edit_distance"]:
        raise SeminarError(
            "parity", found["differing"], "users differ", "wait for the consumer's lag to end, then look again"
        )


@app.command()
def score(
    user: Annotated[str, typer.Option(help="Whose history.")],
    candidates: Annotated[str, typer.Option(help="Item ids, separated by commas.")],
    query: Annotated[str | None, typer.Option(help="What the user searches for.")] = None,
    time: Annotated[str | None, typer.Option(help="When (RFC 3339); now if absent.")] = None,
    explain: Annotated[bool, typer.Option(help="Which past behaviours the first candidate retrieved.")] = False,
    as_json: Json = False,
) -> None:
    """Score candidates in this process with the promoted bundle, as `seminar serve` would."""
    from cli.scoring import show, show_explanation
    from features.online import Online
    from model.serve.swap import Swap

    swap = Swap(settings().bundles, online := Online())
    swap.look()
    keys = [key for key in candidates.split(",") if key]
    if not keys:
        raise SeminarError("candidates", candidates, "names no item", "separate item ids by commas")
    from features.record import entity_id

    answer = swap.scorer().score(user, keys, query=query, time_ms=moment(time), explain=explain).as_dict()
    rows = online.items([entity_id(key) for key in keys])
    out = Output(as_json)
    show(out, answer, {key: row["title"] or "" for key, row in zip(keys, rows, strict=True) if row}, query)
    for reason in answer["degraded"]:
        out.line(f"degraded: {reason}")
    if explain:
        show_explanation(out, answer["explain"])
    out.result(answer)


@app.command()
def status(as_json: Json = False) -> None:
    """What is here, and the next command."""
    from cli.status import look

    out, found = Output(as_json), look(settings().home)
    out.table(["what", "state"], [(name, state) for name, state in found["state"].items()])
    out.line(f"next: {found['next']}")
    out.result(found)


@app.command("airflow")
def airflow_environment() -> None:
    """Print the variables with which stock `airflow` commands see the DAGs: eval "$(seminar airflow)"."""
    import shlex

    from cli.airflow import environment

    for name, value in environment(settings().home).items():
        print(f"export {name}={shlex.quote(value)}")


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to bind.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to bind.")] = 8080,
) -> None:
    """Answer click-through rates over HTTP with the promoted bundle."""
    from model.serve import http

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    http.serve(host, port)


def disk_full(error: Exception) -> bool:
    """Whether an error of the system, of Arrow or of SQLite says that there is no space left."""
    words = str(error).lower()
    return (
        getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "no space left" in words or "disk is full" in words
    )


def main() -> None:
    """Entry point: every refusal is one sentence on stderr and exit status 1."""
    # Read when the OpenMP library is loaded, which is later: threads that wait must not spin
    # on cores that others need.
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    warnings.simplefilter("ignore", DeprecationWarning)  # of libraries that import each other
    try:
        app(standalone_mode=False)
    except SeminarError as error:
        sys.exit(fail(str(error)))
    except (typer.Abort, KeyboardInterrupt):
        sys.exit(fail("interrupted"))
    except (OSError, sqlite3.OperationalError) as error:
        if not disk_full(error):
            raise
        where = getattr(error, "filename", None) or settings().home
        sys.exit(fail(str(SeminarError("SEMINAR_HOME", where, "is on a full disk", "free some space, then run again"))))
    except Exception as error:
        # click's own usage errors know how to show themselves
        show, status = getattr(error, "show", None), getattr(error, "exit_code", None)
        if show is None or status is None:
            raise
        show()
        sys.exit(status)


if __name__ == "__main__":
    main()
