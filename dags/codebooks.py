"""Rebuild the product-quantisation codebooks for the PSU checkpoint that triggered the run.

**pin** resolves the checkpoint, its windows and its version of history once. **build** fits the codebooks on item and
query parts of the whole population, measures their recall against exact search on held-out users, and publishes them
unless it is below `recall`. **encode** codes the catalogue, a task for each shard; **assemble** publishes the shards,
which `health` reads.

Emits `seminar://codebooks` with the versions and the windows, which triggers `ctr`, and `seminar://catalogue`. Figures:
`reports/codebooks.json`, `reports/catalogue.json`.
"""

from typing import Any

from airflow.sdk import Param, dag, task

from dags.common import (
    CATALOGUE,
    CODEBOOKS,
    PSU,
    START,
    TRAINING,
    USUAL,
    dry_param,
    extra_of,
    lineage,
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
    doc_md=__doc__,
    **USUAL,
    params={
        "psu": version_param("PSU"),
        "windows": windows_param(),
        "recall": Param(
            0.9,
            type="number",
            minimum=0,
            maximum=1,
            title="Least recall",
            description_md="Of held-out users' exact top; below it nothing is published. Not applied to short histories.",
        ),
        "shard": Param(
            50_000, type="integer", minimum=1, title="Items a shard", description_md="How many items a task encodes."
        ),
        "settings": settings_param(),
        "seed": seed_param(),
        "dry": dry_param("pin versions, build nothing"),
    },
)
def codebooks() -> None:
    """Pin a checkpoint, fit codebooks for it, publish; encode the catalogue in shards."""

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
            "history": lineage(folder).get("history"),
            "seed": params["seed"],
        }

    @task(outlets=[CODEBOOKS], pool=TRAINING)
    def build(pins: dict[str, Any], params: dict[str, Any] | None = None, outlet_events: Any = None) -> dict[str, Any]:
        """Fit, measure the recall on held-out users, publish."""
        from airflow.sdk.exceptions import AirflowSkipException

        from features.reports import save
        from features.settings import settings
        from model.config import Config, Windows
        from model.train.codebooks import build

        assert params is not None
        if params["dry"]:
            raise AirflowSkipException("dry run")
        home = settings().home
        facts = build(
            home,
            psu=pins["psu"],
            windows=Windows(**pins["windows"]),
            config=Config.load(pins["config"]),
            seed=pins["seed"],
            least=params["recall"],
            history=pins["history"],
        )
        outlet_events[CODEBOOKS].extra = {
            "psu": pins["psu"],
            "codebooks": facts["version"],
            "windows": pins["windows"],
            "history": pins["history"],
        }
        return save(home, "codebooks", facts)

    @task
    def cut(pins: dict[str, Any], built: dict[str, Any], params: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        """What each task encodes."""
        from features.history import read_items
        from features.settings import settings
        from model.train.catalogue import shards

        assert params is not None
        items = len(read_items(settings().home, pins["windows"]["end"], pins["history"]))
        return [{**pins, "codebooks": built["version"], "shard": shard} for shard in shards(items, params["shard"])]

    @task
    def encode(piece: dict[str, Any]) -> dict[str, Any]:
        """Code one shard of the catalogue."""
        from features.settings import settings
        from model.config import Config, Windows
        from model.train.catalogue import encode

        return encode(
            settings().home,
            codebooks=piece["codebooks"],
            psu=piece["psu"],
            shard=piece["shard"],
            windows=Windows(**piece["windows"]),
            config=Config.load(piece["config"]),
            history=piece["history"],
        )

    @task(outlets=[CATALOGUE])
    def assemble(pins: dict[str, Any], built: dict[str, Any], encoded: Any, outlet_events: Any = None) -> dict[str, Any]:
        """Publish the shards."""
        from features.reports import save
        from features.settings import settings
        from model.train.catalogue import assemble

        home, books = settings().home, built["version"]
        facts = assemble(home, codebooks=books, psu=pins["psu"], encoded=list(encoded), history=pins["history"])
        outlet_events[CATALOGUE].extra = {"catalogue": facts["version"], "codebooks": books}
        return save(home, "catalogue", facts)

    pins = pin()
    built = build(pins)
    assemble(pins, built, encode.expand(piece=cut(pins, built)))


codebooks()
