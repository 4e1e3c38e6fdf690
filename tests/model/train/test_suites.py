"""Suites on a small history: the rows, the cache, what a kill leaves, what is compared with what."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from features import history as tables
from features.errors import SeminarError
from features.publish import current
from features.settings import REPOSITORY
from model.config import DAY_MS, Config, Windows
from model.train.dataset import load
from model.train.lists import later, targets
from model.train.methods import OURS, PEERS, SUITES, TUNING, merged, of_search
from model.train.runs import digest
from model.train.suites import Budget, Suite, compare
from tests.dags import history

WINDOWS = Windows.from_dates(history.WINDOWS)
CONFIG = Config.load(
    {
        "model": {"dim": 16, "heads": 2, "retrieved": 8, "recent": 8, "encoder": "hashing"},
        "train": {"psu_epochs": 1, "psu_targets": 8, "ctr_epochs": 1, "targets": 32, "lr": 0.01, "table_lr": 0.03},
    }
)
BUDGET = Budget(seeds=2, users=10, targets=60, tuning=2, tuning_targets=40, catalogue=15)
ONLY = ["din_recent", "popularity", "own_frequency"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small history."""
    home = tmp_path_factory.mktemp("suites")
    history.write(home, users=14, days=50, items_each=11)
    return home


@pytest.fixture(scope="module")
def found(home: Path) -> dict[str, Any]:
    """The peers' suite, some methods of it."""
    return compare(home, suite="peers", windows=WINDOWS, config=CONFIG, budget=BUDGET, only=ONLY)


def markers(home: Path) -> dict[str, int]:
    """When each run was done."""
    return {file.parent.name: file.stat().st_mtime_ns for file in (home / "suites" / "runs").glob("*/done.json")}


def checkpoints(home: Path) -> dict[str, str]:
    """Of each run that is done, where its checkpoint is."""
    return {
        key: json.loads((home / "suites" / "runs" / key / "done.json").read_text())["checkpoint"] for key in markers(home)
    }


def test_each_method_has_a_row_a_mode_and_an_initialisation(found: dict[str, Any]) -> None:
    rows = {(row["name"], row["mode"], row["init"]): row for row in found["methods"]}
    inits = {"seminar": ("psu", "scratch"), "din_recent": ("psu", "scratch")}
    expected = {
        (name, mode, init)
        for name in ("seminar", *ONLY)
        for mode in ("recommendation", "search")
        for init in inits.get(name, ("scratch",))
    }
    assert rows.keys() == expected
    for row in rows.values():
        assert row["gauc_lo"] <= row["gauc"] <= row["gauc_hi"]
        assert row["diff_gauc_lo"] <= row["diff_gauc"]
        assert row["n_users"] <= 10
        assert row["seeds"] == (2 if row["name"] in inits else 1)
    for mode in ("recommendation", "search"):
        ours = rows["seminar", mode, "psu"]
        assert ours["diff_gauc"] == ours["diff_gauc_lo"] == ours["diff_ndcg10_lo"] == 0
        for (_, other, _), row in rows.items():
            if other == mode:
                assert row["diff_gauc"] == pytest.approx(ours["gauc"] - row["gauc"])
    assert found["sample"] == {"users": 10, "of": 14, "drawn_by_seed": 0}


def test_recommendation_is_ranked_among_all_on_sale_too(home: Path, found: dict[str, Any]) -> None:
    dataset = load(home, WINDOWS.end, CONFIG.model)
    users = np.sort(np.random.default_rng(0).permutation(14)[:10])
    lists = later(dataset, WINDOWS.t3, WINDOWS.end, 15, "catalogue", 0, users)
    assert found["candidates"]["catalogue"] == lists.digest(dataset)
    counts = dataset.counts(WINDOWS.t3)
    gains = []
    for m in lists.moments:
        for items, real in zip(m.items, m.real, strict=True):
            scores = counts[items[real]]
            assert len(scores) > 30
            better, tied = (scores[1:] > scores[0]).sum(), (scores[1:] == scores[0]).sum()
            rank = 1 + better + tied / 2  # ties share the ranks that they cover
            gains.append(1 / np.log2(1 + rank) if rank <= 10 else 0)
    rows = {(row["name"], row["mode"], row["init"]): row for row in found["methods"]}
    popularity = rows["popularity", "recommendation", "scratch"]
    assert popularity["catalogue_ndcg10"] == pytest.approx(np.mean(gains))
    ours = rows["seminar", "recommendation", "psu"]
    assert ours["diff_catalogue_ndcg10"] == ours["diff_catalogue_ndcg10_hi"] == 0
    for (_, mode, _), row in rows.items():
        assert ("catalogue_ndcg10" in row) == (mode == "recommendation")
        if mode == "recommendation":
            difference = ours["catalogue_ndcg10"] - row["catalogue_ndcg10"]
            assert row["diff_catalogue_ndcg10"] == pytest.approx(difference)
            assert row["catalogue_ndcg10_lo"] <= row["catalogue_ndcg10"] <= row["catalogue_ndcg10_hi"]


def test_every_method_is_tuned_by_as_many_logged_runs(found: dict[str, Any]) -> None:
    for name in ("seminar", "din_recent"):
        runs = found["tuning"][name]
        assert len(runs) == 2
        assert [row["quality"] for row in runs] == sorted((row["quality"] for row in runs), reverse=True)
        assert {json.dumps(row["settings"]) for row in runs} == {json.dumps(settings) for settings in TUNING[:2]}
    assert len(found["tuning"]["own_frequency"]) == 8


def test_checkpoints_are_scored_again_not_trained_again(home: Path, found: dict[str, Any]) -> None:
    before = markers(home)
    again = compare(home, suite="peers", windows=WINDOWS, config=CONFIG, budget=BUDGET, only=ONLY)
    assert markers(home) == before
    assert again["methods"] == found["methods"]


def test_a_run_that_was_killed_is_made_again_and_no_other(home: Path, found: dict[str, Any], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(home, copy, symlinks=True)
    before = markers(copy)
    lost = found["tuning"]["din_recent"][-1]["run"]
    (copy / "suites" / "runs" / lost / "done.json").unlink()
    again = compare(copy, suite="peers", windows=WINDOWS, config=CONFIG, budget=BUDGET, only=ONLY)
    after = markers(copy)
    assert {key for key in after if after[key] != before[key]} == {lost}
    assert again["methods"] == found["methods"]


def test_other_data_or_settings_are_other_runs(home: Path, found: dict[str, Any]) -> None:
    before = set(markers(home))
    small = replace(BUDGET, seeds=1, targets=20)
    compare(home, suite="peers", windows=WINDOWS, config=CONFIG, budget=small, only=["popularity"])
    assert set(markers(home)) == before
    other = merged(CONFIG, {"train": {"id_dropout": 0.2}})
    compare(home, suite="peers", windows=WINDOWS, config=other, budget=small, only=["popularity"])
    assert len(set(markers(home)) - before) == 4  # a PSU, two click models on it, and one from scratch


def test_impressions_that_come_late_are_other_data(home: Path, tmp_path: Path) -> None:
    shutil.copytree(home / "history", tmp_path / "history")
    dataset = load(tmp_path, WINDOWS.end, CONFIG.model)
    before = digest(tmp_path, dataset, WINDOWS.end)
    assert before == digest(home, load(home, WINDOWS.end, CONFIG.model), WINDOWS.end)
    name = tables.IMPRESSIONS
    (row, *_) = tables.read(tmp_path, name).to_pylist()
    late = pa.Table.from_pylist([{**row, "impression_id": "late"}], schema=tables.SCHEMAS[name])
    tables.write(tmp_path, name, late, "late")
    assert digest(tmp_path, dataset, WINDOWS.end) != before


def test_what_comes_after_t2_is_judged_by_what_is_trained(home: Path, found: dict[str, Any]) -> None:
    """Another end, and a test that begins later: other lists, the same runs, chosen on the same lists."""
    before, windows, since = markers(home), replace(WINDOWS, end=WINDOWS.end - DAY_MS), WINDOWS.t3 + DAY_MS
    again = compare(home, suite="peers", windows=windows, config=CONFIG, budget=BUDGET, only=ONLY, since=since)
    assert markers(home) == before  # nor is any scored on validation again: that would be noted in it
    assert [row["run"] for row in again["tuning"]["seminar"]] == [row["run"] for row in found["tuning"]["seminar"]]
    assert again["tuning"]["own_frequency"] == found["tuning"]["own_frequency"]
    assert not set(again["candidates"].values()) & set(found["candidates"].values())
    with np.load(home / "lists" / f"recommendation-{again['candidates']['recommendation']}.npz") as saved:
        assert since <= saved["time"].min() < saved["time"].max() < windows.end
    for outside in (WINDOWS.t3 - 1, WINDOWS.end):
        with pytest.raises(SeminarError, match=r"since: '2025-02-.* is not from t3"):
            Suite(home, WINDOWS, CONFIG, BUDGET, False, outside)


def test_the_homes_own_psu_stays_as_it_is(home: Path, found: dict[str, Any]) -> None:
    assert current(home / "psu") is None
    assert not (home / "checkpoints").exists()
    assert (home / "suites" / "history").resolve() == (home / "history").resolve()


def test_ablations_take_one_thing_away_with_our_tuned_settings(home: Path, found: dict[str, Any]) -> None:
    only = ["seminar-no-alignment", "seminar-scratch"]
    rows = compare(home, suite="ablations", windows=WINDOWS, config=CONFIG, budget=BUDGET, only=only)
    assert set(rows["tuning"]) == {"seminar"}
    assert rows["tuning"]["seminar"] == found["tuning"]["seminar"]
    named = {(row["name"], row["mode"]): row for row in rows["methods"]}
    assert {name for name, _ in named} == {"seminar", *only}
    reference = next(r for r in found["methods"] if (r["name"], r["init"], r["mode"]) == ("seminar", "psu", "search"))
    assert named["seminar", "search"]["gauc"] == reference["gauc"]
    keys = [(mode, key) for mode in ("recommendation", "search") for key in ("gauc", "ndcg10", "mrr", "auc")]
    figures = [[named[name, mode][key] for mode, key in keys] for name in ("seminar", "seminar-no-alignment")]
    assert figures[0] != figures[1]


def test_a_psu_is_restored_where_its_encoders_see_what_the_click_models_do(home: Path) -> None:
    state, ours = Suite(home, WINDOWS, CONFIG, BUDGET, retrain=False), PEERS[0]
    plain, slower, blind = (
        state.run(ours, "psu", 0, tuned) for tuned in ({}, {"train": {"lr": 1e-3}}, {"model": {"without": "text"}})
    )
    assert plain.psu
    assert blind.psu
    assert plain.psu == slower.psu
    assert (blind.psu.config.model.without, blind.config.model.without) == ("text", "text")
    assert len({run.key() for run in (plain, slower, blind, blind.psu)}) == 4


def test_an_ablation_takes_one_more_from_what_tuning_left(home: Path) -> None:
    state, tuned = Suite(home, WINDOWS, CONFIG, BUDGET, retrain=False), {"model": {"without": "text"}}
    for method in SUITES["ablations"]:
        run = state.run(method, "psu", 0, tuned)
        assert run.psu
        taken = {*filter(None, method.settings.get("model", {}).get("without", "").split(","))} | {"text"}
        assert {*run.config.model.without.split(",")} == {*run.psu.config.model.without.split(",")} == taken


def test_tiers_are_ours_alone() -> None:
    assert all(method.settings.get("model", {}).get("tiers") == (None if method.name == OURS else "") for method in PEERS)
    assert of_search(CONFIG, "seminar") == CONFIG
    assert of_search(CONFIG, "din_full") == merged(CONFIG, {"model": {"tiers": ""}}) != CONFIG


def test_unknown_names_are_refused(home: Path) -> None:
    with pytest.raises(SeminarError, match="wings"):
        compare(home, suite="wings", windows=WINDOWS, config=CONFIG)
    with pytest.raises(SeminarError, match="din_wings"):
        compare(home, suite="peers", windows=WINDOWS, config=CONFIG, only=["din_wings"])


@pytest.mark.long
def test_kill_minus_nine_costs_the_run_at_hand_only(found: dict[str, Any], home: Path, tmp_path: Path) -> None:
    shutil.copytree(home / "history", tmp_path / "history")
    (tmp_path / "config.toml").write_text(
        "\n".join(
            line
            for table, values in CONFIG.as_dict().items()
            for line in (f"[{table}]", *(f"{name} = {json.dumps(value)}" for name, value in values.items()))
        )
    )
    dates = [part for name, date in history.WINDOWS.items() for part in (f"--{name}", date)]
    command = [sys.executable, "-m", "cli.main", "evaluate", "--suite", "peers", "--json", "--seeds", "2", "--users", "10"]
    command += [
        "--targets",
        "60",
        "--tuning",
        "2",
        "--only",
        ",".join(ONLY),
        "--config",
        str(tmp_path / "config.toml"),
        *dates,
    ]
    environment = {**os.environ, "SEMINAR_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    child = subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=subprocess.DEVNULL)
    while len(markers(tmp_path)) < 3:
        assert child.poll() is None
        time.sleep(0.05)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    before = checkpoints(tmp_path)
    assert len(before) < 8
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True)
    assert checkpoints(tmp_path).items() >= before.items()
    rows = json.loads(done.stdout.splitlines()[-1])["methods"]
    values = [[row["gauc"] for row in one if row["init"] == "psu"] for one in (rows, found["methods"])]
    assert np.allclose(*values, atol=0.2)  # tuned on other lists, perhaps with another choice
    assert len(rows) == len(found["methods"])


def test_without_a_limit_every_target_of_the_window_is_ranked(home: Path) -> None:
    lists = Suite(home, WINDOWS, CONFIG, replace(BUDGET, users=0, targets=0), False).test[0]
    dataset = load(home, WINDOWS.end, CONFIG.model)
    assert len(lists) == len(targets(dataset, WINDOWS.t3, WINDOWS.end, None)[0]) > BUDGET.targets


@pytest.mark.long
@pytest.mark.parametrize("suite", ["peers", "ablations"])
def test_every_method_trains_and_is_scored(home: Path, suite: str) -> None:
    """One seed and no choice: each search unit and each setting goes all the way."""
    budget = Budget(seeds=1, users=4, targets=12, tuning=1, tuning_targets=12)
    only = [method.name for method in SUITES[suite]]
    rows = compare(home, suite=suite, windows=WINDOWS, config=CONFIG, budget=budget, only=only)["methods"]
    found = {(row["name"], row["init"]): row["gauc"] for row in rows if row["mode"] == "recommendation"}
    assert found.keys() == {(method.name, init) for method in SUITES[suite] for init in method.inits}
    assert all(0 <= value <= 1 for value in found.values())
