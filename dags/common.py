"""What the DAGs share: assets, retries, params, and how a run pins the versions that it reads.

Imported by the DAG files while they are parsed: neither torch, feast nor pyarrow here.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import Asset, ExceptionRetryPolicy, Param, RetryAction, RetryRule

from features.errors import SeminarError

PSU = Asset("seminar://psu")
CODEBOOKS = Asset("seminar://codebooks")
BUNDLE = Asset("seminar://bundle")

# One slot: two trainings at once on one machine only slow each other down. Not max_active_runs, which strands asset events.
TRAINING = "training"

START = datetime(2026, 1, 1, tzinfo=UTC)
CUTS = ("t1", "t2", "t3", "end")

DEFAULTS: dict[str, Any] = {
    "owner": "seminar",
    "retries": 2,
    "retry_delay": timedelta(seconds=30),
    "retry_exponential_backoff": 2.0,
    # A killed task raises nothing and is retried. Of what is raised, only what may pass by itself is worth a retry.
    "retry_policy": ExceptionRetryPolicy(
        rules=[
            RetryRule("features.errors.SeminarError", RetryAction.FAIL, reason="The data or the settings are refused"),
            RetryRule(["builtins.FileNotFoundError", "builtins.PermissionError"], RetryAction.FAIL),
            RetryRule(["builtins.OSError", "sqlite3.OperationalError"], RetryAction.RETRY, reason="May pass by itself"),
        ],
        default=RetryAction.FAIL,
    ),
}


def windows_param() -> Param:
    """The dates that separate pretraining, fine-tuning, validation and test."""
    return Param(
        None,
        type=["object", "null"],
        title="Time windows",
        description_md=(
            "UTC dates (or ms since the epoch): pretraining reads before `t1`, fine-tuning `t1` to `t2`, validation to "
            '`t3`, test to `end`, e.g. `{"t1": "2017-09-11", "t2": "2017-10-30", "t3": "2017-11-13", "end": "2017-11-27"}`.'
            " Empty: those of the version that is built upon, else cut from history."
        ),
        properties={name: {"type": ["string", "integer"]} for name in CUTS},
        required=list(CUTS),
        additionalProperties=False,
    )


def seed_param() -> Param:
    """The seed of everything random."""
    return Param(0, type="integer", minimum=0, title="Seed", description_md="Two runs of one seed give equal figures.")


def epochs_param(what: str) -> Param:
    """How long to train, as a multiple of the usual."""
    return Param(
        1.0,
        type="number",
        exclusiveMinimum=0,
        maximum=20,
        title="Epochs, scaled",
        description_md=f"{what} lasts this many times its usual number of epochs (one at least).",
    )


def settings_param() -> Param:
    """Sizes of the model and everything about training that is no param of its own."""
    return Param(
        {},
        type="object",
        title="Settings",
        description_md=(
            "Tables `model` (sizes: `dim`, `heads`, `retrieved`, `recent`, ...) and `train` (learning rates, weights of the "
            'objectives, ...) of `model/config.py`, e.g. `{"model": {"dim": 32}, "train": {"eval_targets": 500}}`. What is '
            "left out keeps its default; after pretraining the model's sizes are those of the PSU."
        ),
        properties={"model": {"type": "object"}, "train": {"type": "object"}},
        additionalProperties=False,
    )


def version_param(what: str) -> Param:
    """A published version to build upon."""
    return Param(
        None,
        type=["string", "null"],
        pattern=r"^v\d{6,}$",
        title=f"{what} version",
        description_md="Empty: the version of the event that triggered the run, else the newest published.",
    )


def moment(value: str | int) -> int:
    """A date or time (RFC 3339; UTC when no zone is given), or ms already, as ms since the epoch."""
    if isinstance(value, int):
        return value
    try:
        parsed = datetime.fromisoformat(value)
    except ValueError as error:
        raise SeminarError("windows", value, "is no date", "write e.g. 2017-09-11") from error
    return int((parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp() * 1000)


def given_windows(params: Mapping[str, Any]) -> dict[str, int] | None:
    """The run's own windows as ms, or None where it names none."""
    return {name: moment(params["windows"][name]) for name in CUTS} if params["windows"] else None


def extra_of(events: Mapping[Asset, Sequence[Any]], asset: Asset) -> dict[str, Any]:
    """What the newest event that triggered the run says; {} when it was started by hand or by `dag.test()`."""
    found = events.get(asset, ())
    return dict(found[-1].extra) if found else {}


def pinned(kind: Path, named: str | None, extra: Mapping[str, Any]) -> str:
    """The version below `kind` that the run reads: named by its params, else by its trigger, else the newest."""
    from features.publish import path, versions

    version = named or extra.get(kind.name) or next(reversed(versions(kind)), None)
    if version is None:
        raise SeminarError(f"{kind.name} version", "", "is not published yet", f"run the DAG {kind.name} first")
    path(kind, version)
    return str(version)


def lineage(folder: Path) -> dict[str, Any]:
    """What a published PSU or codebooks version says of itself: {"psu", "windows", "config"}, as far as it does."""
    for name in ("codebooks.json", "checkpoint.json"):
        if (folder / name).exists():
            found: dict[str, Any] = json.loads((folder / name).read_text())
            return found
    raise SeminarError("version", folder, "does not say what it was built from", "build it again")


def pin_windows(params: Mapping[str, Any], extra: Mapping[str, Any], folder: Path) -> dict[str, int]:
    """The run's windows: its params', else its trigger's, else those of the version that it builds upon."""
    found = given_windows(params) or extra.get("windows") or lineage(folder)["windows"]
    return {name: moment(found[name]) for name in CUTS}


def pin_config(params: Mapping[str, Any], psu: Path | None = None) -> dict[str, Any]:
    """The run's settings, checked and complete. The model's shapes are those of the PSU that it builds upon, if any."""
    from model.config import Config

    given = dict(params["settings"])
    if psu is not None:
        given["model"] = {**lineage(psu).get("config", {}).get("model", {}), **given.get("model", {})}
    config = Config.load(given).as_dict()
    for name in ("psu_epochs", "ctr_epochs"):
        config["train"][name] = max(1, round(config["train"][name] * params.get("epochs", 1)))
    return config
