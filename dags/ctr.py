"""Fine-tune the click model on pinned PSU and codebooks, judge it on later events, and release it if it holds.

**pin** resolves versions and windows once. **finetune_...** train the model and, beside it, the baselines that it has to
face: the same model with another search unit, on the same labels. **evaluate** compares them on the events after `t3`.
**export** publishes a bundle with the codes of the whole catalogue. **gate** loads it as the scorer would and holds its
figures against the limits: if one is missed the run fails, names it, and the champion serves on. **promote** moves the
pointer that scorers follow.

Emits `seminar://bundle` with all versions. Figures: `reports/ctr.json`, `reports/evaluation.json`, `reports/release.json`.
"""

from typing import Any

from airflow.sdk import Param, TriggerRule, dag, task

from dags.common import (
    BUNDLE,
    CODEBOOKS,
    DEFAULTS,
    START,
    TRAINING,
    epochs_param,
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

MODEL = "seminar"
BASELINES = ("din_full", "din_recent")


@dag(
    "ctr",
    schedule=[CODEBOOKS],
    start_date=START,
    catchup=False,
    default_args=DEFAULTS,
    doc_md=__doc__,
    tags=["seminar"],
    params={
        "psu": version_param("PSU"),
        "codebooks": version_param("Codebooks"),
        "windows": windows_param(),
        "epochs": epochs_param("Fine-tuning"),
        "settings": settings_param(),
        "baselines": Param(
            list(BASELINES),
            type="array",
            items={"type": "string", "enum": list(BASELINES)},
            uniqueItems=True,
            title="Baselines",
            description_md="Trained beside the model for comparison: DIN over the whole history, DIN over the newest 50.",
        ),
        "seed": seed_param(),
    },
)
def ctr() -> None:
    """Pin, fine-tune in parallel branches, evaluate, export, gate, promote."""

    @task
    def pin(params: dict[str, Any] | None = None, triggering_asset_events: Any = None) -> dict[str, Any]:
        """The versions and the windows that this run reads, whatever is published meanwhile."""
        from features.settings import settings

        assert params is not None
        extra = extra_of(triggering_asset_events, CODEBOOKS)
        books = pinned(settings().codebooks, params["codebooks"], extra)
        # The PSU that these codebooks were built for: the newest of each may not belong together.
        version = pinned(settings().psu, params["psu"], lineage(settings().codebooks / books))
        folder = settings().psu / version
        return {
            "psu": version,
            "codebooks": books,
            "windows": pin_windows(params, extra, folder),
            "config": pin_config(params, folder),
            "searches": [MODEL, *params["baselines"]],
            "seed": params["seed"],
        }

    @task(pool=TRAINING)
    def finetune(search: str, pins: dict[str, Any]) -> dict[str, Any]:
        """Train one click model; skipped when this run does not want it."""
        from airflow.sdk.exceptions import AirflowSkipException

        from features.reports import plain
        from features.settings import settings
        from model.config import Config, Windows
        from model.train.ctr import finetune

        if search not in pins["searches"]:
            raise AirflowSkipException(f"{search} is not among this run's baselines")
        facts: dict[str, Any] = plain(
            finetune(
                settings().home,
                psu=pins["psu"] if search == MODEL else None,  # a baseline has no PSU
                windows=Windows(**pins["windows"]),
                search=search,
                config=Config.load(pins["config"]),
                seed=pins["seed"],
            )
        )
        return facts

    @task(pool=TRAINING, trigger_rule=TriggerRule.NONE_FAILED)
    def evaluate(pins: dict[str, Any], finetuned: dict[str, dict[str, Any] | None]) -> dict[str, Any]:
        """GAUC, NDCG@10, log loss and calibration of every method on the same later events."""
        from features.reports import save
        from features.settings import settings
        from model.config import Config, Windows
        from model.train.evaluate import evaluate

        home = settings().home
        done = {name: facts for name, facts in finetuned.items() if facts}
        save(home, "ctr", done)
        checkpoints = {name: facts["checkpoint"] for name, facts in done.items()}
        windows, config = Windows(**pins["windows"]), Config.load(pins["config"])
        facts = evaluate(home, checkpoints=checkpoints, windows=windows, config=config, seed=pins["seed"])
        return save(home, "evaluation", facts)

    @task(pool=TRAINING)
    def export(pins: dict[str, Any], finetuned: dict[str, Any], metrics: dict[str, Any]) -> dict[str, Any]:
        """Encode the catalogue and publish the bundle; the pointer stays where it is."""
        from features.reports import plain
        from features.settings import settings
        from model.config import Config, Windows
        from model.train.export import export

        facts: dict[str, Any] = plain(
            export(
                settings().home,
                checkpoint_folder=finetuned["checkpoint"],
                codebooks=pins["codebooks"],
                windows=Windows(**pins["windows"]),
                metrics=metrics,
                config=Config.load(pins["config"]),
                seed=pins["seed"],
            )
        )
        return facts

    @task
    def gate(exported: dict[str, Any]) -> dict[str, Any]:
        """Hold the bundle against the limits; a miss fails the run, and nothing is promoted."""
        from features.errors import SeminarError
        from features.publish import current
        from features.reports import save
        from features.settings import settings
        from model.train.release import gate

        home, bundle = settings().home, exported["version"]
        facts = save(home, "release", gate(home, bundle=bundle))
        missed = [f"{x['name']} {x['value']} (limit {x['limit']})" for x in facts["checks"] if not x["passed"]]
        if missed:
            champion = current(settings().bundles)
            remedy = f"{champion} serves on" if champion else "nothing is served yet; look at the training data"
            raise SeminarError("bundle", bundle, f"failed the gate: {', '.join(missed)}", remedy)
        return facts

    @task(outlets=[BUNDLE])
    def promote(pins: dict[str, Any], gated: dict[str, Any], outlet_events: Any = None) -> dict[str, Any]:
        """Move the pointer that scorers follow."""
        from features.settings import settings
        from model.train.release import promote

        facts = promote(settings().home, bundle=gated["bundle"])
        outlet_events[BUNDLE].extra = {
            "psu": pins["psu"],
            "codebooks": pins["codebooks"],
            "bundle": gated["bundle"],
            "windows": pins["windows"],
        }
        return facts

    pins = pin()
    tuned = {name: finetune.override(task_id=f"finetune_{name}")(name, pins) for name in (MODEL, *BASELINES)}
    exported = export(pins, tuned[MODEL], evaluate(pins, tuned))
    promote(pins, gate(exported))


ctr()
