"""Verbs of training and release: the same functions that the DAGs call, by hand."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.output import Json, Output
from features.errors import SeminarError
from features.settings import settings

app = typer.Typer()
train_app = typer.Typer(no_args_is_help=True, help="Train without Airflow: the same functions that the DAGs call.")
codebooks_app = typer.Typer(no_args_is_help=True, help="Product-quantisation codebooks.")
app.add_typer(train_app, name="train")
app.add_typer(codebooks_app, name="codebooks")


def windows_from(t1: str | None, t2: str | None, t3: str | None, end: str | None) -> Any:
    """The windows of the options, or those cut from history."""
    from features.history import read_sequences
    from model.config import Windows

    given = {"t1": t1, "t2": t2, "t3": t3, "end": end}
    if any(given.values()):
        return Windows.from_dates({name: value for name, value in given.items() if value})
    return Windows.from_history(read_sequences(settings().home))


Date = Annotated[str | None, typer.Option(help="UTC date; give all four, or none: then they are cut from history.")]
Configuration = Annotated[Path | None, typer.Option(help="TOML with the tables model and train.", exists=True)]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]


class Search(StrEnum):
    """Which search unit."""

    seminar = "seminar"
    din_full = "din_full"
    din_recent = "din_recent"


@train_app.command("psu")
def train_psu(
    t1: Date = None,
    t2: Date = None,
    t3: Date = None,
    end: Date = None,
    config: Configuration = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Pretrain the PSU on what happened before t1, and publish it."""
    from model.config import Config
    from model.train.psu import pretrain

    found = pretrain(settings().home, windows=windows_from(t1, t2, t3, end), config=Config.load(config), seed=seed)
    out = Output(as_json)
    out.line(f"psu {found['version']}: " + ", ".join(f"{name} {values[-1]}" for name, values in found["losses"].items()))
    out.result(found)


@train_app.command("ctr")
def train_ctr(
    psu: Annotated[str | None, typer.Option(help="PSU version to restore; the current one if absent.")] = None,
    scratch: Annotated[bool, typer.Option(help="Start from scratch instead.")] = False,
    search: Annotated[Search, typer.Option(help="The search unit: ours, or a baseline's.")] = Search.seminar,
    t1: Date = None,
    t2: Date = None,
    t3: Date = None,
    end: Date = None,
    config: Configuration = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Fine-tune the click model on [t1, t2); prints its checkpoint's folder."""
    from features.publish import current
    from model.config import Config
    from model.train.ctr import finetune
    from model.train.methods import of_search

    home, windows = settings().home, windows_from(t1, t2, t3, end)
    restored = None if scratch else psu or current(home / "psu")
    if restored is None and not scratch and search is Search.seminar:
        raise SeminarError("psu version", "", "is not published yet", "run `seminar train psu` first, or give --scratch")
    found = finetune(
        home,
        windows=windows,
        psu=restored,
        search=search.value,
        config=of_search(Config.load(config), search.value),
        seed=seed,
    )
    out = Output(as_json)
    out.line(f"checkpoint {found['checkpoint']}: log loss by epoch {found['losses']}")
    out.result(found)


@codebooks_app.command("build")
def codebooks_build(
    psu: Annotated[str | None, typer.Option(help="PSU version; the current one if absent.")] = None,
    t1: Date = None,
    t2: Date = None,
    t3: Date = None,
    end: Date = None,
    as_json: Json = False,
) -> None:
    """Fit product quantisers on a PSU's item and query parts; recall on held-out users by code size."""
    from features.publish import current, path
    from model.config import Config
    from model.train import checkpoint
    from model.train.codebooks import build

    home = settings().home
    version = psu or current(home / "psu")
    if version is None:
        raise SeminarError("psu version", "", "is not published yet", "run `seminar train psu` first")
    # The PSU's own settings: another text encoder would give vectors of another width.
    config = Config.load(checkpoint.read(path(home / "psu", version)).facts["config"])
    found = build(home, psu=version, windows=windows_from(t1, t2, t3, end), config=config)
    out = Output(as_json)
    out.table(
        ["bits", "recall", "scan alone"],
        [(r["bits"], f"{r['recall']:.4f}", f"{r['recall_scan']:.4f}") for r in found["recall"]],
    )
    out.result(found)


@app.command()
def export(
    checkpoint: Annotated[Path, typer.Argument(help="Folder of a fine-tuned checkpoint.", exists=True)],
    codebooks: Annotated[str | None, typer.Option(help="Codebooks version; the current one if absent.")] = None,
    as_json: Json = False,
) -> None:
    """Evaluate a checkpoint on the events after its own windows, and publish it as a bundle, without serving it yet."""
    from features.publish import current
    from model.config import Config, Windows
    from model.train import checkpoint as checkpoints
    from model.train.evaluate import evaluate as judge
    from model.train.export import export as publish

    home = settings().home
    books = codebooks or current(home / "codebooks")
    if books is None:
        raise SeminarError("codebooks version", "", "is not published yet", "run `seminar codebooks build` first")
    facts = checkpoints.read(checkpoint).facts
    windows, config = Windows.from_dates(facts["windows"]), Config.load(facts["config"])
    metrics = judge(home, checkpoints={"seminar": str(checkpoint)}, windows=windows, config=config)
    found = publish(
        home, checkpoint_folder=str(checkpoint), codebooks=books, windows=windows, metrics=metrics, config=config
    )
    out = Output(as_json)
    out.line(f"bundle {found['version']}: {found['items']:,} items, recall of the codes {found['codes_recall']:.4f}")
    out.line(f"next: seminar promote {found['version']}")
    out.result(found)


@app.command()
def promote(
    bundle: Annotated[str, typer.Argument(help="Bundle version, e.g. v000002.")],
    as_json: Json = False,
) -> None:
    """Point the scorers to a bundle that passes the gate; checks that the data cannot support say so and do not stop it."""
    from features.checks import missed
    from features.history import read_sequences
    from features.online import Online
    from features.publish import current, path, verify
    from model import bundle as bundles
    from model.config import Config, Windows
    from model.serve.smoke import smoke
    from model.train import checkpoint, release
    from model.train.duel import duel
    from model.train.gate import gate
    from model.train.retention import checkpoint_of

    out, home = Output(as_json), settings().home
    folder, champion, compared = path(home / "bundles", bundle), current(home / "bundles"), None
    verify(folder)
    bundles.load(folder)  # what is wrong with the bundle itself comes first
    mine = checkpoint_of(home, bundle)
    if champion not in (None, bundle) and mine is not None:
        facts = checkpoint.read(mine).facts
        windows, config = Windows.from_dates(facts["windows"]), Config.load(facts["config"])
        compared = duel(home, challenger=bundle, champion=str(champion), windows=windows, config=config)
    asked = smoke(folder, read_sequences(home).user_ids[:20], online=Online())
    judged = gate(home, bundle=bundle, duel=compared, smoke=asked)
    for check in judged["checks"]:
        if not check["applies"]:
            out.line(f"not applicable: {check['name']}, {check['why']}")
    if why := missed(judged["checks"]):
        raise SeminarError("bundle", bundle, f"failed the gate: {why}", f"{champion or 'nothing'} serves on")
    found = release.promote(home, bundle=bundle, champion=judged["champion"])
    out.line(f"bundle {found['bundle']} is served; before: {found['former'] or 'none'}")
    out.result(found | {"checks": judged["checks"]})


@app.command()
def rollback(as_json: Json = False) -> None:
    """Point the scorers back to what was served before."""
    from model.train import release

    found = release.rollback(settings().home)
    out = Output(as_json)
    out.line(f"bundle {found['bundle']} is served again; withdrawn: {found['former']}")
    out.result(found)


@app.command()
def lineage(
    bundle: Annotated[str | None, typer.Argument(help="Bundle version; the served one if absent.")] = None,
    as_json: Json = False,
) -> None:
    """From a bundle back to its checkpoint, codebooks, PSU, the history partitions that they read, and the code."""
    from model.train.lineage import lineage as trace

    out, found = Output(as_json), trace(settings().home, bundle)
    code, history = found["code"], found["history"]
    out.line(f"bundle {found['bundle']}{' (served)' if found['served'] else ''}, exported {found['created']}")
    out.line(
        f"code: seminar {code.get('seminar')}, commit {code.get('commit')}{' (changed)' if code.get('changed') else ''}"
    )
    out.line(f"checkpoint {found['checkpoint']}; codebooks {found['codebooks']['version']}; psu {found['psu']['version']}")
    out.line(f"history {history['version']}" + (f": {history['problem']}" if "problem" in history else ""))
    out.table(["date", "rows"], [(day, str(rows)) for day, rows in history.get("partitions", {}).items()])
    out.table(["metric", "value"], [(name, str(value)) for name, value in (found["metrics"] or {}).items()])
    for move in found["promotions"]:
        out.line(f"{move['time']}: {move['former']} -> {move['bundle']} ({move['reason']})")
    out.result(found)
