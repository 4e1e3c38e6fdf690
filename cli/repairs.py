"""Verbs that repair: replay, redrive, forget."""

import time
from pathlib import Path
from typing import Annotated

import typer

from cli.options import Bootstrap, brokers
from cli.output import Json, Output
from features.errors import SeminarError
from features.settings import settings

app = typer.Typer()


@app.command()
def replay(
    begin: Annotated[str, typer.Option("--from", help="history, or of Kafka: earliest, last=1h, ts=2026-01-31T00:00:00Z.")],
    bootstrap: Bootstrap = None,
    as_json: Json = False,
) -> None:
    """Rebuild the online store from history, or apply again what Kafka holds; safe beside live traffic."""
    from features.online import Online
    from streaming import replay as replays
    from streaming.deadletters import KafkaSink
    from streaming.positions import parse_from

    out, home = Output(as_json), settings().home
    with out.progress("replaying") as advance:
        if begin == "history":
            built = replays.from_history(Online(), home, advance)
            out.line(", ".join(f"{count:,} {name}" for name, count in built.items()) + " from history")
            out.result(dict(built))
            return
        position, where = parse_from(begin, int(time.time() * 1000)), brokers(bootstrap)
        sink = KafkaSink(where)
        try:
            done = replays.from_kafka(where, position, Online(), home, sink, advance)
        finally:
            sink.close()
    out.line(f"{done.accepted:,} events applied again, {done.rejected:,} refused, {done.forgotten:,} forgotten")
    out.result({"events": done.counts, "rejected": done.rejected, "forgotten": done.forgotten})


@app.command()
def redrive(
    file: Annotated[Path | None, typer.Argument(help="Repaired letters, from `seminar deadletters --out FILE`.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All letters as they came, say after a schema was widened.")] = False,
    bootstrap: Bootstrap = None,
    as_json: Json = False,
) -> None:
    """Apply dead letters, repaired ones or all; those that are applied are taken back. Exit status 1 when one is refused."""
    from features.online import Online
    from streaming import redrive as redrives
    from streaming.deadletters import FileSink, KafkaSink, Letter, letters_in_file, letters_in_kafka

    if (file is None) == (not every):
        raise SeminarError(
            "FILE", file, "and --all: exactly one is needed", "name a file of repaired letters, or give --all"
        )
    out, home = Output(as_json), settings().home
    where = bootstrap or settings().bootstrap_servers
    sink = KafkaSink(where) if where else None
    try:
        letters: list[tuple[Letter, redrives.Box]] = [(x, FileSink(home)) for x in letters_in_file(home)]
        if sink and where:
            letters += [(x, sink) for x in letters_in_kafka(where)]
        repaired = dict(redrives.read_repaired(file, [x for x, _ in letters])) if file else None
        if repaired is not None:
            letters = [(x, box) for x, box in letters if x.key in repaired]
        done = redrives.redrive(letters, Online(), home, repaired)
    finally:
        if sink:
            sink.close()
    out.line(f"{done['redriven']:,} letters applied and taken back, {len(done['refused']):,} refused")
    if done["refused"]:
        out.table(
            ["letter", "field", "value", "reason"],
            [(x["key"], x["field"], x["value"][:40], x["reason"]) for x in done["refused"]],
        )
    out.result(done)
    if done["refused"]:
        raise SeminarError("letters", len(done["refused"]), "are still no valid events", "repair them, or leave them")


@app.command()
def forget(
    user: Annotated[str | None, typer.Argument(help="The user to forget.")] = None,
    unfinished: Annotated[bool, typer.Option("--pending", help="Finish what forget events or a crash left to do.")] = False,
    bootstrap: Bootstrap = None,
    as_json: Json = False,
) -> None:
    """Forget a user: a fence in the sequence and in history, and what is older goes from every file; prints a receipt."""
    from features.online import Online
    from streaming import forget as forgets

    if (user is None) == (not unfinished):
        raise SeminarError("USER", user, "and --pending: exactly one is needed", "name a user, or give --pending")
    out, home, where = Output(as_json), settings().home, bootstrap or settings().bootstrap_servers
    receipt = forgets.forget(user, Online(), home, where) if user else forgets.finish(Online(), home, where)
    out.line(
        f"{len(receipt['users'])} users forgotten: {receipt['rows']:,} rows in {receipt['files']:,} files, "
        f"{receipt['query_texts']:,} query texts, {receipt['dead_letters']:,} dead letters"
    )
    if receipt["users"] and not any(receipt[x] for x in ("rows", "dead_letters", "logged_requests", "candidate_lists")):
        out.line(f"nothing was known of {user or 'them'}: look at the spelling; what comes of before now is dropped")
    out.line("what remains:")
    for name, what in receipt["remains"].items():
        out.line(f"  {name}: {what}")
    out.result(receipt)
