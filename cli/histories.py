"""`seminar history ...`: bulk import, and whether online agrees with history."""

from pathlib import Path
from typing import Annotated

import typer

from cli.output import Json, Output
from features.errors import SeminarError
from features.settings import settings

app = typer.Typer(no_args_is_help=True, help="History: bulk import, and whether online agrees with it.")


@app.command("import")
def import_(
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


@app.command()
def parity(as_json: Json = False) -> None:
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
