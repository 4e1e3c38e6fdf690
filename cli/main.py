"""The `seminar` command: verbs only. Each calls one function of a package; imports wait until a verb needs them."""

import errno
import os
import sqlite3
import sys
import warnings
from typing import Annotated

import typer

from cli import bench, histories, judging, repairs, serving, streams, training
from cli.options import Bootstrap
from cli.output import Json, Output, fail
from features.errors import SeminarError
from features.settings import settings

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
app.add_typer(histories.app, name="history")
app.add_typer(streams.app)
app.add_typer(repairs.app)
app.add_typer(bench.app)
app.add_typer(training.app)
app.add_typer(judging.app)
app.add_typer(serving.app)


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
    serve: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Then serve scores and the page /inspect on this port.")
    ] = None,
    as_json: Json = False,
) -> None:
    """The main job from event to score, on real purchase histories; ends with report.html in SEMINAR_HOME."""
    from cli.demo import open_page, run

    out = Output(as_json)
    facts = run(out, households)
    if serve is not None:
        open_page(out, facts, serve)


@app.command()
def status(bootstrap: Bootstrap = None, as_json: Json = False) -> None:
    """What is here, how far the stream is (lag from the broker, where one is named), and the next command."""
    from cli.status import look, show_stream

    out, found = Output(as_json), look(settings().home, bootstrap or settings().bootstrap_servers)
    out.table(["what", "state"], [(name, state) for name, state in found["state"].items()])
    if found["stream"]:
        show_stream(out, found["stream"])
    out.line(f"next: {found['next']}")
    out.result(found)


@app.command("airflow")
def airflow_environment(
    run: Annotated[bool, typer.Option("--run", help="Run Airflow here, until Ctrl-C.")] = False,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of its page, on loopback.")] = 8070,
) -> None:
    """Print the variables with which stock `airflow` commands see the DAGs: eval "$(seminar airflow)". Or run it all."""
    import shlex

    from cli.airflow import environment

    if run:
        from cli.airflow_local import serve

        serve(settings().home, port, Output(False))
        return
    for name, value in environment(settings().home).items():
        print(f"export {name}={shlex.quote(value)}")


def usage(error: typer.TyperException) -> SeminarError:
    """What typer says of options and arguments, in our form."""
    context = getattr(error, "ctx", None)
    said, helped = error.format_message().rstrip("."), context.command_path if context else "seminar"
    return SeminarError("command", " ".join(sys.argv[1:]), f"is not understood ({said})", f"see `{helped} --help`")


def unusable(error: OSError | sqlite3.DatabaseError) -> SeminarError | None:
    """A refusal for a path that cannot be used, a full disk, a damaged store; None for what is no user's mistake."""
    where = getattr(error, "filename", None)
    if disk_full(error):
        return SeminarError("SEMINAR_HOME", where or settings().home, "is on a full disk", "free some space, then run again")
    if isinstance(error, sqlite3.DatabaseError):
        remedy = "look who holds it, or move it aside, run `seminar apply` and `seminar replay --from history`"
        return SeminarError("online store", settings().home / "online.db", f"cannot be used ({error})", remedy)
    if where and isinstance(
        error, FileExistsError | FileNotFoundError | IsADirectoryError | NotADirectoryError | PermissionError
    ):
        return SeminarError("path", where, f"cannot be used ({error.strerror})", "correct it, or SEMINAR_HOME above it")
    return None


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
        status = app(standalone_mode=False)
        sys.exit(status if isinstance(status, int) else 0)  # `typer.Exit` comes back as a value
    except SeminarError as error:
        sys.exit(fail(str(error)))
    except (typer.Abort, KeyboardInterrupt):
        sys.exit(fail("interrupted"))
    except (OSError, sqlite3.DatabaseError) as error:
        refusal = unusable(error)
        if refusal is None:
            raise
        sys.exit(fail(str(refusal)))
    except typer.TyperException as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # typer does not export it; its message is the help
            print(error.format_message())
            sys.exit(error.exit_code)
        sys.exit(fail(str(usage(error))))


if __name__ == "__main__":
    main()
