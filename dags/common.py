"""What the DAGs share: assets, retries, callbacks, params, and how a run pins the versions that it reads.

Imported by the DAG files while they are parsed: neither torch, feast nor pyarrow here.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import Asset, ExceptionRetryPolicy, Param, RetryAction, RetryRule

from features.errors import SeminarError

HISTORY = Asset("seminar://history")
LABELS = Asset("seminar://labels")
PSU = Asset("seminar://psu")
CODEBOOKS = Asset("seminar://codebooks")
CATALOGUE = Asset("seminar://catalogue")
BUNDLE = Asset("seminar://bundle")

# One slot: two trainings at once on one machine only slow each other down. Not max_active_runs, which strands asset events.
TRAINING = "training"

# Of DAGs that assets trigger. Those with a cron have none: with one, a fresh scheduler would at once run for the last tick.
START = datetime(2026, 1, 1, tzinfo=UTC)
CUTS = ("t1", "t2", "t3", "end")


def ended(context: Mapping[str, Any]) -> None:
    """Note the end of a task where the page of the last runs reads it."""
    from features.journal import note
    from features.settings import settings

    task, error = context["ti"], context.get("exception")
    begun, now = getattr(task, "start_date", None), datetime.now(UTC)
    note(
        settings().home,
        dag=task.dag_id,
        run=task.run_id,
        task=task.task_id,
        map_index=task.map_index,
        attempt=task.try_number,
        state="failed" if error else "success",
        begun=begun.isoformat() if begun else None,
        seconds=round((now - begun).total_seconds(), 1) if begun else None,
        error=str(error) if error else None,
    )


def failed(context: Mapping[str, Any]) -> None:
    """Alert, and note the failure."""
    from features.alerts import alert
    from features.settings import settings

    task = context["ti"]
    alert(
        settings().home,
        "a task failed",
        dag=task.dag_id,
        run=task.run_id,
        task=task.task_id,
        error=str(context.get("exception")),
        runbook="docs/operations.md#a-task-failed",
    )
    ended(context)  # which a full disk stops


class LateRule(RetryRule):
    """A rule whose exceptions are imported when a task failed, not when the folder is parsed."""

    def __post_init__(self) -> None:
        return


DEFAULTS: dict[str, Any] = {
    "owner": "seminar",
    "on_success_callback": ended,
    "on_failure_callback": failed,
    "retries": 2,
    "retry_delay": timedelta(seconds=30),
    "retry_exponential_backoff": 2.0,
    # A killed task raises nothing and is retried. Of what is raised, only what may pass by itself is worth a retry.
    "retry_policy": ExceptionRetryPolicy(
        rules=[
            RetryRule("features.errors.SeminarError", RetryAction.FAIL, reason="The data or the settings are refused"),
            RetryRule(["builtins.FileNotFoundError", "builtins.PermissionError"], RetryAction.FAIL),
            RetryRule(["builtins.OSError", "sqlite3.OperationalError"], RetryAction.RETRY, reason="May pass by itself"),
            LateRule(
                ["kafka.errors.KafkaError", "redis.exceptions.RedisError", "airflow.sdk.exceptions.AirflowRuntimeError"],
                RetryAction.RETRY,
                reason="A broker, a store or Airflow's own server is away",
            ),
        ],
        default=RetryAction.FAIL,
    ),
}

USUAL: dict[str, Any] = {"catchup": False, "default_args": DEFAULTS, "tags": ["seminar"]}
"""What every DAG is told."""


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


def dry_param(what: str) -> Param:
    """Whether to look only."""
    return Param(False, type="boolean", title="Dry run", description_md=f"Look and say what would be done: {what}.")


def date_param() -> Param:
    """A date of history."""
    return Param(
        None,
        type=["string", "null"],
        format="date",
        title="Date",
        description_md="UTC date of the events. Empty: the one that the schedule (or the backfill) names.",
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


def pinned_history(home: Path, named: str | None, extra: Mapping[str, Any], run: str) -> str:
    """The version of history that the run reads, held for it: named by its params, else by its trigger, else made now."""
    from features import versions
    from features.compaction import compact
    from model.train.retention import hold_for_run

    version = named or extra.get("history")
    if version is None:
        compact(home)
        version = versions.last(home)
    if version is None:
        raise SeminarError("history", home / "history", "is empty", "import or consume events first")
    hold_for_run(home, version, run)
    return str(version)


def online(home: Path) -> Any:
    """The online store of a home, or None where none was ever set up (`seminar apply`)."""
    if not (home / "registry.db").exists():
        return None
    from features.online import Online

    return Online()


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
    """The run's settings, checked and complete: its params', else those of `<home>/settings.toml`.

    The model's shapes are those of the PSU that it builds upon, if any.
    """
    from features.settings import configured_tables, settings
    from model.config import Config

    usual = configured_tables(settings().home)
    given = {name: {**usual.get(name, {}), **params["settings"].get(name, {})} for name in ("model", "train")}
    if psu is not None:
        given["model"] = {**lineage(psu).get("config", {}).get("model", {}), **params["settings"].get("model", {})}
    config = Config.load(given).as_dict()
    for name in ("psu_epochs", "ctr_epochs"):
        config["train"][name] = max(1, round(config["train"][name] * params.get("epochs", 1)))
    return config
