"""`seminar history ...`: bulk import, compaction into versions, and whether online agrees with history."""

import re
from typing import Annotated, Any

import typer

from cli import imports
from cli.output import Json, Output
from features.errors import SeminarError
from features.settings import settings

app = typer.Typer(no_args_is_help=True, help="History: bulk import, compaction, versions, agreement with online.")

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def seconds(text: str) -> float:
    """A duration such as 90s, 15m, 1h or 7d; SeminarError for anything else."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text)
    if not found:
        raise SeminarError("duration", text, "is none", "write e.g. 90s, 15m, 1h or 7d")
    return float(found[1]) * _UNITS[found[2]]


app.command("import")(imports.import_)
app.command()(imports.example)


@app.command()
def compact(
    grace: Annotated[str, typer.Option(help="How long files that readers may still need are kept: 90s, 15m, 1h.")] = "1h",
    keep: Annotated[int, typer.Option(min=1, help="How many of the newest versions stay, whatever their age.")] = 1,
    as_json: Json = False,
) -> None:
    """Merge loose files into the next version and remove garbage; safe beside consumers, readers and other compactors."""
    from features.compaction import compact

    out, done = Output(as_json), compact(settings().home, seconds(grace), keep)
    for name, x in done["tables"].items():
        out.line(
            f"{name}: {x['loose']:,} loose files, {x['rows_in']:,} rows merged into {x['files']:,} files, {x['rows']:,} rows"
        )
    first = f" (another compactor was first {done['lost']} times)" if done["lost"] else ""
    out.line(f"{'published' if done['published'] else 'nothing new since'} {done['version'] or 'the beginning'}{first}")
    out.line(f"{sum(done['removed'].values()):,} files of garbage removed")
    out.result(done)


@app.command()
def versions(as_json: Json = False) -> None:
    """Show the versions, and who keeps which."""
    from features import versions as published

    out, home = Output(as_json), settings().home
    pins = published.pins(home)
    rows = [
        {
            "version": manifest.version,
            "created": manifest.created,
            "rows": {name: sum(rows for rows, _ in part.files.values()) for name, part in manifest.tables.items()},
            "files": sum(len(part.files) for part in manifest.tables.values()),
            "bytes": sum(size for part in manifest.tables.values() for _, size in part.files.values()),
            "pinned_by": pins.get(manifest.version, []),
        }
        for manifest in published.every(home)
    ]
    out.table(["version", "created", "rows", "files", "bytes", "pinned by"], [_row(x) for x in rows])
    out.result({"versions": rows})


def _row(found: dict[str, Any]) -> list[str]:
    sizes = [f"{sum(found['rows'].values()):,}", f"{found['files']:,}", f"{found['bytes']:,}"]
    return [found["version"], found["created"][:19], *sizes, ", ".join(found["pinned_by"])]


@app.command()
def quality(
    date: Annotated[str | None, typer.Argument(help="UTC date; the dates with new events if absent.")] = None,
    closed: Annotated[bool, typer.Option(help="The date is over: too little is a fault.")] = False,
    as_json: Json = False,
) -> None:
    """Hold dates of history against limits and the dates before; exit status 1 when one is not as it should be."""
    from features import quality as looks
    from streaming import deadletters

    out, home, brokers = Output(as_json), settings().home, settings().bootstrap_servers
    bad, kept = deadletters.dates(home, brokers), list[str]()
    if brokers is None:
        kept = looks.refused(home)  # a look that sees less must not lift what one that saw more refused
        out.line(
            "KAFKA_BOOTSTRAP_SERVERS is not set: no dead letters of the stream are counted, a date that was refused stays so"
        )
    dates = [date] if date else looks.fresh(home)
    reports = [looks.check(home, name, bad=bad.get(name, 0), closed=closed, dry=name in kept) for name in dates]
    for report in reports:
        out.line(f"{report['date']}: {report['events']:,} events, {report['impressions']:,} impressions")
        rows = [(x["name"], x["value"], f"at {x['at']} {x['limit']}", x["why"] or x["passed"]) for x in report["checks"]]
        out.table(["check", "value", "limit", "passed"], rows)
    out.result({"dates": reports})
    for report in reports:
        looks.refuse(report)


@app.command()
def accept(
    date: Annotated[str, typer.Argument(help="UTC date that is right though a check failed.")],
    reason: Annotated[str, typer.Option(help="Why; kept with the report.")],
    as_json: Json = False,
) -> None:
    """Let a date pass whatever its figures are: the training chain goes on."""
    from features import quality as looks

    out, report = Output(as_json), looks.accept(settings().home, date, reason)
    out.line(f"{date} is accepted: {reason}")
    out.result(report)


@app.command()
def parity(
    repair: Annotated[
        bool, typer.Option("--repair", help="Write what one side lacks from the other; removes nothing.")
    ] = False,
    sample: Annotated[int | None, typer.Option(min=1, help="Compare this many users and entities, by chance.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Compare everything (the default).")] = False,
    as_json: Json = False,
) -> None:
    """Compare online with history where the stream has been applied; exit status 1 when they differ (after a repair)."""
    from features import parity as agreement
    from features.online import Online

    if every and sample is not None:
        raise SeminarError("--sample", sample, "contradicts --all", "give one of them")
    look = agreement.repair if repair else agreement.compare
    out, found = Output(as_json), look(Online(), settings().home, sample)
    for name in found.get("stand_ins", ()):
        out.line(f"lost: {name}; an empty file is in its place")
    for label, x in (("found", found.get("repaired")), ("after the repair" if repair else "found", found)):
        if x:
            rows = x["entities"]
            out.line(
                f"{label}: {x['users']:,} users, {x['equal']:,} equal, edit distance {x['edit_distance']:,} "
                f"({x['missing']:,} missing online, {x['extra']:,} in history), lag {x['lag']:,}; "
                f"{rows['items']:,} items and {rows['queries']:,} queries: {rows['missing']:,} missing online, "
                f"{rows['outdated']:,} outdated, {rows['lost']:,} lost from history"
            )
    out.result(found)
    if found["faults"]:
        remedy = "look at the store's log" if repair else "run `seminar history parity --repair`"
        raise SeminarError("parity", found["differing"] or rows, "differ between online and history", remedy)
