"""Rebuild the product-quantisation codebooks for the PSU checkpoint that triggered the run.

**pin** resolves the checkpoint and its windows once. **build** fits the codebooks on item and query parts of the whole
population, measures their recall against exact search on held-out users, and publishes them.

Emits `seminar://codebooks` with both versions and the windows, which triggers `ctr`. Figures: `reports/codebooks.json`.
"""

from typing import Any

from airflow.sdk import dag, task

from dags.common import (
    CODEBOOKS,
    DEFAULTS,
    PSU,
    START,
    TRAINING,
    extra_of,
    pin_config,
    pin_windows,
    pinned,
    seed_param,
    settings_param,
    version_param,
    windows_param,
)


@dag(
    "codebooks",
    schedule=[PSU],
    start_date=START,
    catchup=False,
    default_args=DEFAULTS,
    doc_md=__doc__,
    tags=["seminar"],
    params={
        "psu": version_param("PSU"),
        "windows": windows_param(),
        "settings": settings_param(),
        "seed": seed_param(),
    },
)
def codebooks() -> None:
    """Pin a checkpoint, fit codebooks for it, publish."""

    @task
    def pin(params: dict[str, Any] | None = None, triggering_asset_events: Any = None) -> dict[str, Any]:
        """The checkpoint and the windows that this run reads, whatever is published meanwhile."""
        from features.settings import settings

        assert params is not None
        extra = extra_of(triggering_asset_events, PSU)
        version = pinned(settings().psu, params["psu"], extra)
        folder = settings().psu / version
        return {
            "psu": version,
            "windows": pin_windows(params, extra, folder),
            "config": pin_config(params, folder),
            "seed": params["seed"],
        }

    @task(outlets=[CODEBOOKS], pool=TRAINING)
    def build(pins: dict[str, Any], outlet_events: Any = None) -> dict[str, Any]:
        """Fit, measure the recall on held-out users, publish."""
        from features.reports import save
        from features.settings import settings
        from model.config import Config, Windows
        from model.train.codebooks import build

        home = settings().home
        windows, config = Windows(**pins["windows"]), Config.load(pins["config"])
        facts = save(home, "codebooks", build(home, psu=pins["psu"], windows=windows, config=config, seed=pins["seed"]))
        outlet_events[CODEBOOKS].extra = {
            "psu": pins["psu"],
            "codebooks": facts["version"],
            "windows": pins["windows"],
        }
        return facts

    build(pin())


codebooks()
