"""`seminar evaluate`: checkpoints side by side, or a suite that trains what it compares."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.options import moment
from cli.output import Json, Output
from cli.training import Configuration, Date, Seed, windows_from
from features.errors import SeminarError
from features.settings import settings

app = typer.Typer()
COLUMNS = ("name", "mode", "gauc", "gauc_lo", "gauc_hi", "ndcg10")


class Suite(StrEnum):
    """Which suite."""

    peers = "peers"
    ablations = "ablations"


@app.command()
def evaluate(
    checkpoints: Annotated[list[str] | None, typer.Argument(help="name=folder of each checkpoint to compare.")] = None,
    suite: Annotated[Suite | None, typer.Option(help="Compare this suite's methods instead.")] = None,
    retrain: Annotated[bool, typer.Option(help="Suite: train everything anew, not only what is missing.")] = False,
    seeds: Annotated[int, typer.Option(min=1, help="Suite: seeds of each method.")] = 3,
    users: Annotated[int, typer.Option(min=0, help="Suite: users (a fixed sample) whose targets are ranked; 0: all.")] = 0,
    targets: Annotated[int, typer.Option(min=0, help="Suite: targets of each mode; 0: all.")] = 1000,
    tuning: Annotated[int, typer.Option(min=1, help="Suite: logged tuning runs of each method.")] = 8,
    only: Annotated[str | None, typer.Option(help="Suite: these methods beside ours, separated by commas.")] = None,
    catalogue: Annotated[int, typer.Option(min=0, help="Targets to rank among all items on sale too (slow).")] = 0,
    t1: Date = None,
    t2: Date = None,
    t3: Date = None,
    end: Date = None,
    since: Annotated[str | None, typer.Option(help="Suite: when the test begins, t3 or later (RFC 3339).")] = None,
    config: Configuration = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Compare checkpoints with popularity and own frequency on the same later events; or a suite's methods."""
    from model.config import Config

    if (suite is None) == (not checkpoints):
        raise SeminarError("CHECKPOINTS", checkpoints, "and --suite: exactly one is needed", "name checkpoints, or a suite")
    out, home, configuration = Output(as_json), settings().home, Config.load(config)
    windows = windows_from(t1, t2, t3, end)
    if suite is None:
        from model.train import checkpoint
        from model.train.evaluate import evaluate as compare

        named = {name or Path(folder).name: folder for name, _, folder in (x.rpartition("=") for x in checkpoints or ())}
        for folder in named.values():
            checkpoint.check(Path(folder))
        found = compare(home, checkpoints=named, windows=windows, config=configuration, seed=seed, catalogue=catalogue)
        table(out, found["methods"], (*COLUMNS, "logloss"))
        out.result(found)
        return
    from model.train.suites import Budget
    from model.train.suites import compare as run

    found = run(
        home,
        suite=suite.value,
        windows=windows,
        config=configuration,
        budget=Budget(seeds=seeds, users=users, targets=targets, tuning=tuning, catalogue=catalogue),
        retrain=retrain,
        only=only.split(",") if only else None,
        since=moment(since) if since else None,
        progress=out.line,
    )
    sample = found["sample"]
    out.line(f"targets of {sample['users']} of {sample['of']} users, drawn by seed {sample['drawn_by_seed']}")
    table(out, found["methods"], (*COLUMNS[:2], "init", *COLUMNS[2:], "diff_gauc_lo", "diff_ndcg10_lo"))
    out.result(found)


def table(out: Output, rows: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    """Rows of figures, to four places."""
    out.table(columns, [[f"{row[c]:.4f}" if isinstance(row[c], float) else row[c] for c in columns] for row in rows])
