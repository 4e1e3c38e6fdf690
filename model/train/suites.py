"""Suites: methods trained where they are not yet, tuned alike, and compared on the same later events with several seeds.

A row's figures are means over seeds of each user's value, users resampled; `diff_*_lo` is the lower end of the 95 % interval
of `seminar` (PSU-restored) minus that row, user by user.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from features import reports
from features.errors import SeminarError
from model.compute import tune
from model.config import Config, ModelConfig, TrainConfig, Windows, date_of
from model.train import baselines, runs, trees
from model.train.dataset import Dataset, load
from model.train.evaluate import MODES, RANKED, queries_are
from model.train.lists import Lists, later
from model.train.methods import OURS, SUITES, TUNING, Method, Settings, merged
from model.train.rank import Means, Scored, Scorer, figures, quality, scored, sliced
from model.train.runs import Run
from model.train.scoring import of_checkpoint
from model.train.slices import slices
from model.train.wide import Heads

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Budget:
    """How much a suite may cost. users 0: all; targets: of a mode, in test, 0: all; tuning: runs of a method.

    catalogue: targets that seed 0 of every method ranks among all items on sale, too.
    """

    seeds: int = 3
    users: int = 0
    targets: int = 1000
    tuning: int = 8
    tuning_targets: int = 2000
    catalogue: int = 0


class Suite:
    """The state of one run of a suite: the data, the lists, what was trained. judged: windows whose t3 is `since`, where
    the test begins."""

    def __init__(
        self, home: Path, windows: Windows, config: Config, budget: Budget, retrain: bool, since: int | None = None
    ) -> None:
        self.home, self.work = home, runs.workspace(home)
        self.windows, self.config, self.budget = windows, config, budget
        since = windows.t3 if since is None else since
        if not windows.t3 <= since < windows.end:
            problem = f"is not from t3, {date_of(windows.t3)}, to before the end, {date_of(windows.end)}"
            raise SeminarError("since", date_of(since), problem, "give t3 or later, or a later end")
        self.judged = replace(windows, t3=since)
        self.again: set[str] | None = set() if retrain else None
        self.dataset: Dataset = load(self.work, windows.end, config.model)
        self.data = runs.digest(self.work, load(self.work, windows.t2, config.model), windows.t2)
        self.heads: Heads = {}
        count = len(self.dataset.histories.user_ids)
        drawn = np.random.default_rng(0).permutation(count)[: budget.users or count]
        self.users = np.sort(drawn)

        def lists(since: int, until: int, most: int) -> list[Lists]:
            return [later(self.dataset, since, until, most, mode, 0, self.users) for mode in MODES]

        self.validation = lists(windows.t2, windows.t3, budget.tuning_targets)
        self.test = lists(since, windows.end, budget.targets or len(self.dataset.histories.records))
        self.catalogue = later(self.dataset, since, windows.end, budget.catalogue, "catalogue", 0, self.users)
        self.chosen_on = ",".join(one.digest(self.dataset) for one in self.validation)

    def run(self, method: Method, init: str, seed: int, tuned: Settings) -> Run:
        """The fine-tuning run of a method."""
        psu = None
        if init == "psu":
            heads: Settings = {"model": {"counters": True, "tiers": ModelConfig().tiers}}  # which a PSU has not
            encoders: Settings = {"model": tuned.get("model", {})}
            config = merged(self.config, method.settings, encoders, method.psu_settings, heads)
            psu = Run("psu", self.data, self.windows, config, seed)
        config = merged(self.config, method.settings, tuned)
        return Run("ctr", self.data, self.windows, config, seed, method.search, psu)

    def score(self, run: Run, before: int, search: str = "") -> Scorer:
        """Scores of a run's checkpoint, trained first where it is not; popularity counts before a time."""
        folder = self.work / runs.make(self.work, run, self.again, self.heads)["checkpoint"]
        return of_checkpoint(folder, self.dataset, before, search)

    def tune(self, method: Method) -> list[dict[str, Any]]:
        """The logged runs of a method with seed 0, [{"settings", ... as of `rank.quality`}], the best first; of its first
        initialisation, for all that it has.
        """
        if not any(map(len, self.validation)):
            dates = self.windows.as_dates()
            problem = "have nothing to choose runs by: nobody browsed a known item between them"
            raise SeminarError("windows", f"{dates['t2']} to {dates['t3']}", problem, "give an earlier t2 or a later t3")
        rows, key = [], self.chosen_on
        for settings in TUNING[: max(self.budget.tuning, 1)]:
            run = self.run(method, method.inits[0], 0, settings)
            facts = runs.make(self.work, run, self.again, self.heads)
            known = facts.get("validation", {})
            if "quality" not in known.get(key, {}):
                known = {**known, key: quality(self.score(run, self.windows.t2), self.validation)}
                runs.note(self.work, run, {**facts, "validation": known})
            rows.append({"settings": settings, "run": run.key(), **known[key]})
            log.info("tuning %s %s", method.name, rows[-1])
        return sorted(rows, key=lambda row: -row["quality"])

    def trees(self) -> tuple[Scorer, list[dict[str, Any]]]:
        """Trees over counters, fitted once for these data, windows, lists and what they read of the configuration."""
        encoder, negatives = self.config.model.encoder, self.config.train.negatives
        config = Config(ModelConfig(encoder=encoder), TrainConfig(negatives=negatives))
        run = Run("trees", self.data, self.windows, config, 0, self.chosen_on)
        facts = runs.done(self.work, run)
        if self.again is not None or facts is None:
            folder = self.work / "runs" / run.key()
            text, logged = trees.fit(self.work, self.dataset, self.validation, self.windows, config)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "trees.txt").write_text(text)
            facts = {"kind": "trees", "checkpoint": f"runs/{run.key()}/trees.txt", "runs": logged}
            runs.note(self.work, run, facts)
        text = (self.work / facts["checkpoint"]).read_text()
        return trees.scorer(text, self.work, self.dataset, self.judged), facts["runs"]


def compare(
    home: Path,
    *,
    suite: str,
    windows: Windows,
    config: Config | None = None,
    budget: Budget | None = None,
    retrain: bool = False,
    only: list[str] | None = None,
    since: int | None = None,
    progress: Callable[[str], None] = log.info,
) -> dict[str, Any]:
    """Run a suite, train what is missing (or, with `retrain`, everything), score all checkpoints.

    only: names of methods, beside ours; since: when the test begins (ms), where it is later than t3: what was trained and
    chosen before is judged on what came after it had been looked at. Returns {"methods": [{"name", "mode", "init", "gauc",
    "gauc_lo", "gauc_hi", "ndcg10", "diff_gauc_lo", "diff_ndcg10_lo", "n_users", "seeds", ...}], "tuning": {method: runs},
    "sample", ...}. Where the budget has a catalogue, recommendation's rows have "catalogue_ndcg10" and
    "diff_catalogue_ndcg10", with `_lo`, `_hi`.
    """
    tune()
    begin, budget, config = time.monotonic(), budget or Budget(), config or Config()
    wanted = chosen(suite, only)
    state = Suite(home, windows, config, budget, retrain, since)
    tuning: dict[str, Any] = {}
    scores: dict[tuple[str, str], list[Scorer]] = {}
    for method in wanted:
        # An ablation has the settings of what it takes something from.
        asked = ours(suite) if suite == "ablations" else method
        if asked.name not in tuning:
            tuning[asked.name] = state.tune(asked)
        settings = tuning[asked.name][0]["settings"]
        for init in method.inits:
            made = [state.run(method, init, seed, settings) for seed in range(budget.seeds)]
            scores[method.name, init] = [state.score(run, state.judged.t3, method.scored_by) for run in made]
            progress(f"{method.name} ({init}): {budget.seeds} seeds ready after {time.monotonic() - begin:.0f} s")
    if suite == "peers":
        scores |= trivial(state, tuning, only)
    trained = time.monotonic()
    rows: list[dict[str, Any]] = []
    for lists in state.test:
        masks, queries = slices(state.dataset, lists, state.judged), queries_are(home)
        reference: tuple[Means, Means] | None = None
        among_all: Means | None = None
        for (name, init), each in scores.items():
            found = [scored(score, lists) for score in each]
            gauc, ndcg = Means.over([x.gauc() for x in found]), Means.over([x.ndcg() for x in found])
            reference = reference or (gauc, ndcg)
            row = {"name": name, "mode": lists.mode, "init": init, **means(found, gauc, ndcg), "seeds": len(found)}
            for key, ours_is, this in (("gauc", reference[0], gauc), ("ndcg10", reference[1], ndcg)):
                row[f"diff_{key}"], row[f"diff_{key}_lo"], row[f"diff_{key}_hi"] = ours_is.minus(this)
            row |= {"ranked": RANKED[lists.mode], "queries": queries if lists.mode == "search" else "no query"}
            row["slices"] = {
                key: average([sliced(x, {key: mask})[key] for x in found]) for key, mask in masks.items() if mask.any()
            }
            if lists.mode == "recommendation" and len(state.catalogue):
                whole = Means.over([scored(each[0], state.catalogue).ndcg()])
                among_all = among_all or whole
                told = zip(("", "_lo", "_hi"), whole.interval(), among_all.minus(whole), strict=True)
                for end, value, difference in told:
                    row |= {f"catalogue_ndcg10{end}": value, f"diff_catalogue_ndcg10{end}": difference}
            rows.append(row)
            progress(f"{name} ({init}), {lists.mode}: GAUC {row['gauc']:.4f}, NDCG@10 {row['ndcg10']:.4f}")
    ranked = [lists for lists in (*state.test, state.catalogue) if len(lists)]
    for lists in ranked:
        lists.save(home, state.dataset)
    result = {
        "suite": suite,
        "methods": rows,
        "tuning": tuning,
        "sample": {"users": len(state.users), "of": len(state.dataset.histories.user_ids), "drawn_by_seed": 0},
        "candidates": {lists.mode: lists.digest(state.dataset) for lists in ranked},
        "data": state.data,
        "windows": windows.as_dates() | {"since": state.judged.as_dates()["t3"]},
        "seconds": {"in_all": round(time.monotonic() - begin, 1), "scoring": round(time.monotonic() - trained, 1)},
    }
    return reports.save(home, f"suite-{suite}", result)


def chosen(suite: str, only: list[str] | None) -> list[Method]:
    """The methods of a suite, ours (PSU-restored first, since all are compared with it) and those asked for."""
    if suite not in SUITES:
        raise SeminarError("suite", suite, "is not known", f"use one of {', '.join(SUITES)}")
    known = {method.name for method in SUITES[suite]} | set(TRIVIAL)
    for name in only or ():
        if name not in known:
            raise SeminarError("method", name, f"is not in the suite {suite}", f"use some of {', '.join(sorted(known))}")
    return [method for method in SUITES[suite] if only is None or method.name in (OURS, *only)]


def ours(suite: str) -> Method:
    """Our own method of a suite."""
    return next(method for method in SUITES[suite] if method.name == OURS)


TRIVIAL = ("popularity", "own_frequency", "trees")


def trivial(state: Suite, tuning: dict[str, Any], only: list[str] | None) -> dict[tuple[str, str], list[Scorer]]:
    """The methods without a sequence model; their tuning runs go into `tuning`."""
    found: dict[tuple[str, str], list[Scorer]] = {}
    wanted = [name for name in TRIVIAL if only is None or name in only]
    if "popularity" in wanted:
        found["popularity", "scratch"] = [baselines.popularity(state.dataset, state.judged.t3)]
    if "own_frequency" in wanted:
        score, tuning["own_frequency"] = baselines.tuned_frequency(state.dataset, state.validation, state.judged.t3)
        found["own_frequency", "scratch"] = [score]
    if "trees" in wanted:
        score, tuning["trees"] = state.trees()
        found["trees", "scratch"] = [score]
    return found


def means(found: list[Scored], gauc: Means, ndcg: Means) -> dict[str, Any]:
    """Figures of a method over its seeds; the intervals are those of users' means."""
    row = average([figures(x) for x in found])
    for name, values in (("gauc", gauc), ("ndcg10", ndcg)):
        row[name], row[f"{name}_lo"], row[f"{name}_hi"] = values.interval()
    return row


def average(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Means of figures, key by key; counts stay whole."""
    return {key: rows[0][key] if key.startswith("n_") else float(np.mean([row[key] for row in rows])) for key in rows[0]}
