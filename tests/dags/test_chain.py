"""The three DAGs, for real, on a small history: what each built upon, what was released, and what a failed gate leaves."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from features.publish import current, versions
from features.reports import load
from features.settings import REPOSITORY
from tests.dags import history

SETTINGS = {
    "model": {"dim": 32, "heads": 2, "retrieved": 8, "recent": 8, "encoder": "hashing"},
    "train": {"eval_targets": 60, "users": 4, "lr": 0.01, "table_lr": 0.03},
}

SCRIPT = """
import json, sys
from pathlib import Path
from cli import airflow

home, (windows, settings) = Path(sys.argv[1]), json.loads(sys.argv[2])
airflow.prepare(home)
found = {}
found["psu"] = airflow.run("psu", {"windows": windows, "settings": settings, "epochs": 0.34})
found["codebooks"] = airflow.run("codebooks")
found["psu_again"] = airflow.run("psu", {"windows": windows, "settings": settings, "epochs": 0.34, "seed": 1})
states = {}
train = {"settings": {"train": settings["train"]}, "baselines": ["din_recent"]}
found["ctr"] = airflow.run("ctr", train, on_task=lambda task: states.update({task.name: task.state}))
found["states"] = states

# A champion that nothing will reach: the next one must be stopped at the gate.
manifest = home / "bundles" / "v000001" / "manifest.json"
facts = json.loads(manifest.read_text())
facts["metrics"]["gauc"] = 2.0
manifest.write_text(json.dumps(facts))
states = {}
watch = lambda task: states.update({task.name: task.state})
try:
    airflow.run("ctr", {**train, "baselines": [], "epochs": 0.25}, on_task=watch)
except airflow.SeminarError as error:
    found["stopped"] = {"message": str(error), "states": states}

for name, conf in {
    "bad_date": {"windows": {**windows, "t1": "yesterday"}},
    "bad_order": {"windows": {**windows, "t1": windows["end"]}},
    "bad_setting": {"windows": windows, "settings": {"model": {"wings": 2}}},
}.items():
    try:
        airflow.run("psu", conf)
    except airflow.SeminarError as error:
        found[name] = str(error)
try:
    airflow.run("ctr", {"codebooks": "v000009"})
except airflow.SeminarError as error:
    found["bad_version"] = str(error)

from types import SimpleNamespace
from dags.common import PSU, extra_of, pinned
events = {PSU: [SimpleNamespace(extra={"psu": "v000002"}), SimpleNamespace(extra={"psu": "v000001"})]}
found["pinned"] = {
    "named": pinned(home / "psu", "v000002", extra_of(events, PSU)),
    "triggered": pinned(home / "psu", None, extra_of(events, PSU)),
    "by hand": pinned(home / "psu", None, extra_of({}, PSU)),
}

from airflow.models.asset import AssetEvent
from airflow.utils.session import create_session
with create_session() as session:
    found["events"] = [[event.asset.name, event.extra] for event in session.query(AssetEvent).order_by(AssetEvent.id)]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a small history."""
    home = tmp_path_factory.mktemp("home")
    history.write(home)
    return home


@pytest.fixture(scope="module")
def ran(home: Path) -> dict[str, Any]:
    """What one process saw that ran the chain."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("AIRFLOW")}
    # So small a model runs many times faster on one thread than on threads that wait for a busy core.
    environment = {**inherited, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SCRIPT, home, json.dumps([history.WINDOWS, SETTINGS])]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    log = home / "airflow" / "logs" / "demo.log"
    assert done.returncode == 0, done.stderr + (log.read_text()[-3000:] if log.exists() else "")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def test_pretraining_publishes_and_reports_all_three_objectives(ran: dict[str, Any], home: Path) -> None:
    found = ran["psu"]["pretrain"]
    assert found["version"] == "v000001"
    assert {name: len(values) for name, values in found["losses"].items()} == {
        "next_pair": 1,
        "alignment": 1,
        "relevance": 1,
    }
    assert load(home, "psu") == ran["psu_again"]["pretrain"]


def test_each_dag_builds_on_what_belongs_together(ran: dict[str, Any], home: Path) -> None:
    assert ran["codebooks"]["pin"]["psu"] == "v000001"
    assert ran["codebooks"]["pin"]["windows"] == ran["psu"]["pin"]["windows"]
    # A newer PSU exists, for which no codebooks were built: it is left alone.
    assert versions(home / "psu") == ["v000001", "v000002"]
    pins = ran["ctr"]["pin"]
    assert (pins["psu"], pins["codebooks"]) == ("v000001", "v000001")
    assert pins["windows"] == ran["psu"]["pin"]["windows"]
    assert pins["config"]["model"] == ran["psu"]["pin"]["config"]["model"]
    assert ran["ctr"]["finetune_seminar"]["restored"]["restored"] > 0


def test_a_version_is_the_named_one_else_the_triggers_else_the_newest(ran: dict[str, Any]) -> None:
    assert ran["pinned"] == {"named": "v000002", "triggered": "v000001", "by hand": "v000002"}


def test_every_method_was_judged_on_the_same_events(ran: dict[str, Any], home: Path) -> None:
    methods = {row["name"] for row in ran["ctr"]["evaluate"]["methods"]}
    assert methods == {"seminar", "din_recent", "popularity", "own_frequency"}
    assert ran["states"]["finetune_din_full"] == "skipped"
    assert load(home, "evaluation") is not None


def test_a_bundle_that_passes_is_promoted(ran: dict[str, Any], home: Path) -> None:
    assert ran["ctr"]["gate"]["passed"] is True
    assert ran["ctr"]["promote"]["bundle"] == "v000001"
    assert current(home / "bundles") == "v000001"


def test_a_bundle_that_fails_the_gate_leaves_the_champion(ran: dict[str, Any], home: Path) -> None:
    stopped = ran["stopped"]
    assert "bundle: 'v000002' failed the gate: gauc " in stopped["message"]
    assert "v000001 serves on" in stopped["message"]
    assert stopped["states"]["gate"] == "failed"
    assert "promote" not in stopped["states"]
    assert current(home / "bundles") == "v000001"
    released = load(home, "release")
    assert released is not None
    assert released["passed"] is False


def test_assets_carry_versions_and_windows(ran: dict[str, Any]) -> None:
    windows = ran["psu"]["pin"]["windows"]
    assert ran["events"] == [
        ["seminar://psu", {"psu": "v000001", "windows": windows}],
        ["seminar://codebooks", {"psu": "v000001", "codebooks": "v000001", "windows": windows}],
        ["seminar://psu", {"psu": "v000002", "windows": windows}],
        ["seminar://bundle", {"psu": "v000001", "codebooks": "v000001", "bundle": "v000001", "windows": windows}],
    ]


def test_bad_params_are_refused_in_one_sentence(ran: dict[str, Any]) -> None:
    assert "'yesterday' is no date" in ran["bad_date"]
    assert ran["bad_order"].startswith("windows: ")
    assert "'wings' is not known" in ran["bad_setting"]
    assert "'v000009' is not published" in ran["bad_version"]
