"""Pretrain the Pretraining Search Unit again, every night.

**pin** resolves the time windows once, from the params or from history. **pretrain** trains on what happened before `t1`
with all three objectives (next pair, alignment, relevance) and publishes a checkpoint.

Emits `seminar://psu` with the version and the windows, which triggers `codebooks`. Figures: `reports/psu.json`.
"""

from typing import Any

from airflow.sdk import CronTriggerTimetable, dag, task

from dags.common import (
    DEFAULTS,
    PSU,
    START,
    TRAINING,
    epochs_param,
    given_windows,
    pin_config,
    seed_param,
    settings_param,
    windows_param,
)


@dag(
    "psu",
    schedule=CronTriggerTimetable("0 2 * * *", timezone="UTC"),
    start_date=START,
    catchup=False,
    default_args=DEFAULTS,
    doc_md=__doc__,
    tags=["seminar"],
    params={
        "windows": windows_param(),
        "epochs": epochs_param("Pretraining"),
        "settings": settings_param(),
        "seed": seed_param(),
    },
)
def psu() -> None:
    """Pin the windows, pretrain, publish."""

    @task
    def pin(params: dict[str, Any] | None = None) -> dict[str, Any]:
        """Windows and settings, which every later task of this run, and of the runs that it triggers, reads."""
        from dataclasses import asdict

        from features.history import read_sequences
        from features.settings import settings
        from model.config import Windows

        assert params is not None
        windows = given_windows(params) or asdict(Windows.from_history(read_sequences(settings().home)))
        return {"windows": windows, "config": pin_config(params), "seed": params["seed"]}

    @task(outlets=[PSU], pool=TRAINING)
    def pretrain(pins: dict[str, Any], outlet_events: Any = None) -> dict[str, Any]:
        """Train and publish a checkpoint."""
        from features.reports import save
        from features.settings import settings
        from model.config import Config, Windows
        from model.train.psu import pretrain

        home = settings().home
        windows, config = Windows(**pins["windows"]), Config.load(pins["config"])
        facts = save(home, "psu", pretrain(home, windows=windows, config=config, seed=pins["seed"]))
        outlet_events[PSU].extra = {"psu": facts["version"], "windows": pins["windows"]}
        return facts

    pretrain(pin())


psu()
