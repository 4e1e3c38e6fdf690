"""`seminar bench NAME`: the benches of `benchmarks/`, each in a process of its own."""

import subprocess
import sys
from enum import StrEnum

import typer

from features.settings import REPOSITORY

app = typer.Typer()


class Bench(StrEnum):
    """Which bench."""

    alignment = "alignment"
    append = "append"
    capacity = "capacity"
    chain = "chain"
    consume = "consume"
    faults = "faults"
    recall = "recall"
    score = "score"
    search = "search"
    served = "served"
    swap = "swap"
    train = "train"


# What comes after the name is the bench's own, `--help` too.
@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "allow_interspersed_args": False})
def bench(context: typer.Context, name: Bench) -> None:
    """Measure on this machine; options of the bench itself follow its name (`seminar bench consume --help`)."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks", name.value, *context.args]
    raise typer.Exit(subprocess.run(command, cwd=REPOSITORY).returncode)
