"""Fine-tune the click model on pinned PSU and codebooks, judge it on later events, and release it if it holds.

**pin** resolves versions and windows once. **finetune_...** train the model and, beside it, the baselines that it has to
face: the same model with another search unit, on the same labels. **evaluate** compares them on the events after `t3`.
**export** publishes a bundle with the codes of the whole catalogue. **duel** compares it with the champion on the same
events; **smoke** asks it a few requests. **gate** loads it as the scorer would and holds all figures against the limits: if
one is missed the run fails, names it, and the champion serves on. **promote** moves the pointer that scorers follow.
**confirm** asks the scorers (`SEMINAR_SCORERS`) which version they serve, and points back when it is not the new one.

Emits `seminar://bundle` with all versions, once it serves. Figures: `reports/ctr.json`, `reports/evaluation.json`,
`reports/release.json`.
"""

from dataclasses import dataclass, field
from typing import Any

from airflow.sdk import Param, TriggerRule, dag, task

from dags.common import (
    BUNDLE,
    CODEBOOKS,
    START,
    TRAINING,
    USUAL,
    dry_param,
    epochs_param,
    extra_of,
    lineage,
    online,
    pin_config,
    pin_windows,
    pinned,
    seed_param,
    settings_param,
    version_param,
    windows_param,
)
from features.errors import SeminarError

MODEL = "seminar"
BASELINES = ("din_full", "din_recent")


@dataclass(frozen=True)
class Usual:
    """The table `ctr` of `settings.toml`: what a run trains beside the model where its params do not say."""

    baselines: list[str] = field(default_factory=lambda: [*BASELINES])

    def __post_init__(self) -> None:
        for name in self.baselines:
            if name not in BASELINES:
                raise SeminarError("settings.ctr baselines", name, "is none", f"use some of {', '.join(BASELINES)}, or []")


@dag(
    "ctr",
    schedule=[CODEBOOKS],
    start_date=START,
    doc_md=__doc__,
    **USUAL,
    params={
        "psu": version_param("PSU"),
        "codebooks": version_param("Codebooks"),
        "windows": windows_param(),
        "epochs": epochs_param("Fine-tuning"),
        "settings": settings_param(),
        "baselines": Param(
            None,
            type=["array", "null"],
            items={"type": "string", "enum": list(BASELINES)},
            uniqueItems=True,
            title="Baselines",
            description_md=(
                "Trained beside the model for comparison: DIN over the whole history (`din_full`), over the newest 50 "
                "(`din_recent`). Empty: `baselines` in the table `ctr` of `settings.toml`, else both."
            ),
        ),
        "patience_s": Param(
            120,
            type="integer",
            minimum=1,
            title="Patience (s)",
            description_md="How long scorers may take to serve a promoted bundle before the pointer is moved back.",
        ),
        "seed": seed_param(),
        "dry": dry_param("go through the gate, promote nothing"),
    },
)
def ctr() -> None:
    """Pin, fine-tune in parallel branches, evaluate, export, compare, gate, promote, confirm."""

    @task
    def pin(params: dict[str, Any] | None = None, triggering_asset_events: Any = None) -> dict[str, Any]:
        """The versions and the windows that this run reads, whatever is published meanwhile."""
        from features.publish import current
        from features.settings import configured, settings

        assert params is not None
        extra = extra_of(triggering_asset_events, CODEBOOKS)
        usual = configured(settings().home, "ctr", Usual).baselines
        books = pinned(settings().codebooks, params["codebooks"], extra)
        # The PSU that these codebooks were built for: the newest of each may not belong together.
        version = pinned(settings().psu, params["psu"], lineage(settings().codebooks / books))
        folder = settings().psu / version
        return {
            "psu": version,
            "codebooks": books,
            "windows": pin_windows(params, extra, folder),
            "config": pin_config(params, folder),
            "history": lineage(folder).get("history"),
            "champion": current(settings().bundles),
            "searches": [MODEL, *(usual if params["baselines"] is None else params["baselines"])],
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
        from model.train.methods import of_search

        if search not in pins["searches"]:
            raise AirflowSkipException(f"{search} is not among this run's baselines")
        facts: dict[str, Any] = plain(
            finetune(
                settings().home,
                psu=pins["psu"] if search == MODEL else None,  # a baseline has no PSU, and no tiers
                windows=Windows(**pins["windows"]),
                search=search,
                config=of_search(Config.load(pins["config"]), search),
                seed=pins["seed"],
                history=pins["history"],
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
        facts = evaluate(
            home,
            checkpoints=checkpoints,
            windows=Windows(**pins["windows"]),
            config=Config.load(pins["config"]),
            seed=pins["seed"],
            history=pins["history"],
        )
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
                history=pins["history"],
            )
        )
        return facts

    @task(pool=TRAINING)
    def duel(pins: dict[str, Any], exported: dict[str, Any]) -> dict[str, Any]:
        """Challenger minus champion on the same later events, by user."""
        from features.reports import plain
        from features.settings import settings
        from model.config import Config, Windows
        from model.train.duel import duel

        if pins["champion"] is None:
            return {"champion": None, "reason": "there is no champion yet"}
        facts: dict[str, Any] = plain(
            duel(
                settings().home,
                challenger=exported["version"],
                champion=pins["champion"],
                windows=Windows(**pins["windows"]),
                config=Config.load(pins["config"]),
                seed=pins["seed"],
                history=pins["history"],
            )
        )
        return facts

    @task(pool=TRAINING)
    def smoke(pins: dict[str, Any], exported: dict[str, Any]) -> dict[str, Any]:
        """A few requests to the bundle, by a scorer in this process."""
        from features.history import read_sequences
        from features.publish import path
        from features.reports import plain
        from features.settings import settings
        from model.serve.smoke import smoke

        home, store = settings().home, online(settings().home)
        if store is None:
            return {"requests": 0}
        users = read_sequences(home, pins["windows"]["end"], version=pins["history"]).user_ids[:20]
        facts: dict[str, Any] = plain(smoke(path(settings().bundles, exported["version"]), users, online=store))
        return facts

    @task
    def gate(exported: dict[str, Any], compared: dict[str, Any], asked: dict[str, Any]) -> dict[str, Any]:
        """Hold the bundle against the limits; a miss fails the run, and nothing is promoted."""
        from features.checks import missed
        from features.errors import SeminarError
        from features.reports import save
        from features.settings import settings
        from model.train.gate import gate

        home, bundle = settings().home, exported["version"]
        judged = gate(home, bundle=bundle, duel=compared, smoke=asked)
        facts = save(home, "release", {**judged, "duel": compared, "smoke": asked})
        if why := missed(facts["checks"]):
            champion = facts["champion"]
            remedy = f"{champion} serves on" if champion else "nothing is served yet; look at the training data"
            raise SeminarError("bundle", bundle, f"failed the gate: {why}", remedy)
        return facts

    @task
    def promote(gated: dict[str, Any], params: dict[str, Any] | None = None) -> dict[str, Any]:
        """Move the pointer that scorers follow, unless somebody else moved it since the comparison."""
        from airflow.sdk.exceptions import AirflowSkipException

        from features.settings import settings
        from model.train.release import promote

        assert params is not None
        if params["dry"]:
            raise AirflowSkipException("dry run")
        return promote(settings().home, bundle=gated["bundle"], champion=gated["champion"])

    @task(outlets=[BUNDLE])
    def confirm(
        pins: dict[str, Any],
        promoted: dict[str, Any],
        params: dict[str, Any] | None = None,
        outlet_events: Any = None,
    ) -> dict[str, Any]:
        """Whether the scorers serve what was promoted; if not, the pointer goes back and the run fails."""
        from features.publish import current
        from features.settings import settings
        from model.serve.rollout import confirm
        from model.train.release import withdraw

        assert params is not None
        home, bundle, scorers = settings().home, promoted["bundle"], settings().scorers
        if (serving := current(settings().bundles)) != bundle:
            raise SeminarError("bundle", bundle, f"was withdrawn: {serving} is served", "see bundles/promotions.jsonl")
        found = confirm(scorers, bundle, params["patience_s"])
        if not found["served"]:
            why = "; ".join(f"{x['url']} {x['why']}" for x in found["scorers"] if x["why"])
            raise SeminarError("bundle", bundle, f"is not served: {why}", withdraw(home, bundle))
        names = ("psu", "codebooks", "history", "windows")
        outlet_events[BUNDLE].extra = {"bundle": bundle, **{name: pins[name] for name in names}}
        return found

    pins = pin()
    tuned = {name: finetune.override(task_id=f"finetune_{name}")(name, pins) for name in (MODEL, *BASELINES)}
    exported = export(pins, tuned[MODEL], evaluate(pins, tuned))
    confirm(pins, promote(gate(exported, duel(pins, exported), smoke(pins, exported))))


ctr()
