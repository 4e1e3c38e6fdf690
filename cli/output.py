"""What commands print: lines for people, and with `--json` one JSON object as the last line of stdout."""

import json
import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from features.reports import plain

Json = Annotated[bool, typer.Option("--json", help="One JSON object as the last line of stdout.")]


class Output:
    """Lines go to stderr when stdout is for JSON; progress bars appear on a terminal only."""

    def __init__(self, as_json: bool = False) -> None:
        self.as_json = as_json
        self.console = Console(stderr=as_json, highlight=False, soft_wrap=True)

    def line(self, text: str) -> None:
        """One line for people."""
        self.console.print(text, markup=False)

    def heading(self, text: str) -> None:
        """The beginning of a stage."""
        self.console.print(f"\n[bold]{text}[/bold]" if self.console.is_terminal else f"\n== {text}")

    def table(self, columns: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
        """Rows under columns."""
        table = Table(*columns, box=None, pad_edge=False)
        for row in rows:
            table.add_row(*(str(cell) for cell in row))
        self.console.print(table)

    def result(self, facts: dict[str, Any]) -> None:
        """The command's result: printed only with `--json`."""
        if self.as_json:
            print(json.dumps(plain(facts), allow_nan=False), flush=True)

    @contextmanager
    def progress(self, text: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        """A callable that takes how many more are done; a bar on a terminal, nothing elsewhere."""
        if not self.console.is_terminal:
            yield lambda done: None
            return
        with Progress(console=self.console, transient=True) as bar:
            task = bar.add_task(text, total=total)
            yield lambda done: bar.update(task, advance=done)


def fail(message: str) -> int:
    """Print one sentence on stderr; the exit status."""
    print(f"seminar: {message}", file=sys.stderr, flush=True)
    return 1


def log_to_stderr() -> None:
    """What a service logs goes to stderr, a line each; what feast says at each look at its registry is left out."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    logging.getLogger("feast").setLevel(logging.WARNING)
