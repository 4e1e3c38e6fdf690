"""`seminar history import`: a data set, a folder in a known layout, or a file of events; checked first, or applied."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.output import Json, Output
from features.errors import SeminarError
from features.settings import settings
from streaming.datasets.dataset import DataSet


class Format(StrEnum):
    """Layouts of files."""

    events = "events"
    csv = "csv"
    amazon = "amazon"
    kuaisar = "kuaisar"


class Known(StrEnum):
    """Data sets that come inside a package."""

    complete_journey = "complete-journey"
    ml_100k = "ml-100k"


def chosen(source: Path | None, format: Format, dataset: Known | None, users: int | None) -> DataSet:
    """The data set that the options name."""
    from streaming.datasets.amazon import Amazon
    from streaming.datasets.complete_journey import CompleteJourney
    from streaming.datasets.kuaisar import KuaiSAR
    from streaming.datasets.movielens import MovieLens
    from streaming.datasets.own import Own

    if dataset is None:
        assert source is not None
        if not source.is_dir():
            raise SeminarError("SOURCE", source, "is no folder", f"--format {format.value} reads a folder of files")
        if users is not None:
            raise SeminarError("--users", users, "is for --dataset", "import the folder as a whole")
        kinds: dict[Format, Any] = {Format.csv: Own, Format.amazon: Amazon, Format.kuaisar: KuaiSAR}
        found: DataSet = kinds[format](source)
        return found
    if dataset is Known.ml_100k:
        return MovieLens(users)
    return CompleteJourney() if users is None else CompleteJourney(households=users)


def import_(
    source: Annotated[Path | None, typer.Argument(help="A file of events, or with --format a folder.")] = None,
    format: Annotated[
        Format, typer.Option(help="events: one CloudEvent a line; csv: your own tables, also parquet; published layouts.")
    ] = Format.events,
    dataset: Annotated[Known | None, typer.Option(help="A data set that comes inside a package, instead of SOURCE.")] = None,
    users: Annotated[int | None, typer.Option(min=1, help="Of --dataset: a seeded sample of so many users.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Only look: PASS or FAIL for each check, with lines.")] = False,
    limit: Annotated[list[str] | None, typer.Option(help="Of --check: NAME=NUMBER, as for `seminar validate`.")] = None,
    as_json: Json = False,
) -> None:
    """Bring past events into history and the online store in bulk, without a broker; safe to repeat."""
    if (source is None) == (dataset is None):
        raise SeminarError("SOURCE", source, "and --dataset: exactly one is needed", "name a file or folder, or a data set")
    out = Output(as_json)
    if dataset is None and format is Format.events:
        assert source is not None
        if check:
            raise SeminarError("--check", source, "is for folders and data sets", f"run `seminar validate {source}`")
        _import_file(out, source)
        return
    data = chosen(source, format, dataset, users)
    if data.notice:
        out.line(data.notice)
    for column in getattr(data, "ignored", list)():
        out.line(f"not read: {column} (no column of this name is known)")
    if check:
        for item in getattr(data, "ambiguous", list)()[:5]:
            out.line(f"items: {item} (give them timestamps, or keep one)")
        _check(out, data, limit or [])
    else:
        _import(out, data)


def _import_file(out: Output, file: Path) -> None:
    from features.online import Online
    from streaming.deadletters import FileSink
    from streaming.importer import import_events, read_jsonl

    home = settings().home
    sink = FileSink(home)
    with out.progress("importing") as advance:
        done = import_events(file.name, read_jsonl(file), Online(), home, sink, on_batch=advance)
    out.line(
        f"{done.accepted:,} events imported, {done.rejected:,} refused" + (f" (see {sink.path})" if done.rejected else "")
    )
    out.result({"events": done.counts, "rejected": done.rejected})
    if done.rejected and not done.accepted:
        raise SeminarError("FILE", file, "holds no valid event", "`seminar deadletters` says why, line by line")


def _import(out: Output, data: DataSet) -> None:
    from features.online import Online
    from streaming.importer import import_dataset

    with out.progress("importing") as advance:
        done, refusals = import_dataset(data, Online(), settings().home, on_batch=advance)
    counts = ", ".join(f"{count:,} {kind}" for kind, count in done.counts.items())
    out.line(f"{done.accepted:,} events imported ({counts}), {done.rejected:,} rows refused")
    for example in refusals.examples:
        out.line(f"refused: {example}")
    if done.rejected:
        out.line("all of them: `seminar deadletters`; correct the rows and import again")
    if refusals.taken_back:
        out.line(f"{refusals.taken_back:,} dead letters of an earlier import of it taken back")
    found = {"events": done.counts, "rejected": done.rejected, "forgotten": done.forgotten, "examples": refusals.examples}
    out.result({**found, "taken_back": refusals.taken_back, "notice": data.notice})
    if done.rejected and not done.accepted:
        raise SeminarError(
            "rows", done.rejected, "are refused, and none is left", "`seminar deadletters` says why, row by row"
        )


def _check(out: Output, data: DataSet, limits: list[str]) -> None:
    from cli.streams import show_checks
    from streaming.importer import dataset_messages
    from streaming.validate import Limits, from_file, validate

    # A file need not be in the order of time: order changes no sequence.
    given = Limits.parse(["disorder=1", *limits])
    with out.progress("checking") as advance:
        found = validate(from_file(dataset_messages(data)), settings().home, given, on_batch=advance)
    show_checks(out, found, "correct the rows (docs/your-own-data.md says how), or accept them with --limit NAME=SHARE")


def example(
    folder: Annotated[Path, typer.Argument(help="Where events.csv and items.csv are written.")],
    users: Annotated[int, typer.Option(min=20, help="How many made-up users.")] = 150,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    as_json: Json = False,
) -> None:
    """Write two small CSV files of a made-up shop, to try `--format csv` with."""
    from streaming.datasets.example import write

    out, found = Output(as_json), write(folder, users, seed)
    out.line(f"{folder}: " + ", ".join(f"{name}.csv with {count:,} rows" for name, count in found.items()))
    out.result(found)
