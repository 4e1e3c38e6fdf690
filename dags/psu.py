"""Pretrain the Pretraining Search Unit again, whenever `labels` has closed a date.

**pin** resolves the version of history (that of the event that triggered the run), the time windows, and the PSU to start
from: the one that is served, so that what a gate stopped leaves nothing behind; every few runs from scratch. It refuses
to start while a date of history waits to be looked at. **pretrain** trains on what happened before `t1` with all three
objectives (next pair, alignment, relevance) and publishes a checkpoint; a killed try goes on where it was.

Emits `seminar://psu` with the version and the windows, which triggers `codebooks`. Figures: `reports/psu.json`.
"""

from typing import Any

from airflow.sdk import Param, dag, task

from dags.common import (
    LABELS,
    PSU,
    START,
    TRAINING,
    USUAL,
    dry_param,
    epochs_param,
    extra_of,
    given_windows,
    pin_config,
    pinned_history,
    seed_param,
    settings_param,
    version_param,
    windows_param,
)


@dag(
    "psu",
    schedule=[LABELS],
    start_date=START,
    doc_md=__doc__,
    **USUAL,
    params={
        "history": version_param("History"),
        "windows": windows_param(),
        "start": Param(
            "auto",
            enum=["auto", "warm", "scratch"],
            title="Start from",
            description_md="`auto`: the served PSU, and from scratch every few runs; `warm`, `scratch`: as they say.",
        ),
        "scratch_every": Param(
            7,
            type="integer",
            minimum=1,
            title="From scratch every",
            description_md="With `auto`: how many runs may follow each other before one starts from scratch.",
        ),
        "epochs": epochs_param("Pretraining"),
        "settings": settings_param(),
        "seed": seed_param(),
        "dry": dry_param("pin versions and windows, train nothing"),
    },
)
def psu() -> None:
    """Pin history, windows and start; pretrain; publish."""

    @task
    def pin(
        params: dict[str, Any] | None = None, triggering_asset_events: Any = None, dag_run: Any = None
    ) -> dict[str, Any]:
        """What every later task of this run, and of the runs that it triggers, reads."""
        from dataclasses import asdict

        from features import quality
        from features.errors import SeminarError
        from features.history import read_sequences
        from features.settings import settings
        from model.config import Windows
        from model.train.warm import start

        assert params is not None
        home, windows = settings().home, given_windows(params)
        config = pin_config(params)
        if waiting := quality.refused(home):
            remedy = f"look at reports/quality/{waiting[0]}.json, then {quality.how_to_accept(waiting[0])} or erase it"
            raise SeminarError("history dates", ", ".join(waiting), "are not as they should be", remedy)
        extra = extra_of(triggering_asset_events, LABELS)
        history = pinned_history(home, params["history"], extra, f"psu-{dag_run.run_id}")
        windows = windows or asdict(Windows.from_history(read_sequences(home, version=history)))
        warm = start(home, params["start"], params["scratch_every"], config["model"])
        return {"history": history, "windows": windows, "config": config, "warm": warm, "seed": params["seed"]}

    @task(outlets=[PSU], pool=TRAINING)
    def pretrain(pins: dict[str, Any], params: dict[str, Any] | None = None, outlet_events: Any = None) -> dict[str, Any]:
        """Train and publish a checkpoint."""
        from airflow.sdk.exceptions import AirflowSkipException

        from features.reports import save
        from features.settings import settings
        from model.config import Config, Windows
        from model.train.psu import pretrain

        assert params is not None
        if params["dry"]:
            raise AirflowSkipException("dry run")
        home = settings().home
        facts = pretrain(
            home,
            windows=Windows(**pins["windows"]),
            config=Config.load(pins["config"]),
            seed=pins["seed"],
            warm=pins["warm"],
            strict=params["start"] == "warm",
            history=pins["history"],
        )
        outlet_events[PSU].extra = {"psu": facts["version"], "windows": pins["windows"], "history": pins["history"]}
        return save(home, "psu", facts)

    pretrain(pin())


psu()
