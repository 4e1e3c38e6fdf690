"""The DAG files parse in any process, cheaply, and say what they are triggered by and what they take."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from features.settings import REPOSITORY

SCRIPT = """
import json, sys
from pathlib import Path
from cli import airflow

airflow.prepare(Path(sys.argv[1]))
from airflow.dag_processing.dagbag import BundleDagBag
before = set(sys.modules)
bag = BundleDagBag(airflow.DAGS, bundle_path=airflow.DAGS, bundle_name="dags-folder")
names = ("torch", "feast", "pyarrow", "duckdb", "faiss", "kafka", "numpy")
heavy = [name for name in names if name in set(sys.modules) - before]
def described(dag):
    timetable = dag.timetable
    condition = getattr(timetable, "asset_condition", None)
    triggers = [asset.name for asset in getattr(condition, "objects", ())]
    params = {name: dag.params.get_param(name) for name in dag.params}
    return {
        "catchup": dag.catchup,
        "active": dag.max_active_runs,
        "doc": dag.doc_md,
        "schedule": type(timetable).__name__,
        "triggers": triggers,
        "params": {name: [param.schema.get("title"), param.schema.get("description_md")] for name, param in params.items()},
        "tasks": {
            task.task_id: {
                "upstream": sorted(task.upstream_task_ids),
                "pool": task.pool,
                "outlets": [asset.name for asset in task.outlets],
                "retries": task.retries,
                "calls": bool(task.on_failure_callback) and bool(task.on_success_callback),
                "reschedules": getattr(task, "mode", "") == "reschedule",
            }
            for task in dag.tasks
        },
    }

found = {"errors": bag.import_errors, "heavy": heavy, "dags": {name: described(dag) for name, dag in bag.dags.items()}}
policy = bag.dags["psu"].tasks[0].retry_policy
from features.errors import SeminarError
import sqlite3
from kafka.errors import KafkaConnectionError
from redis.exceptions import ConnectionError as RedisAway
errors = {
    "broker": KafkaConnectionError(),
    "store": RedisAway(),
    "refused": SeminarError("a", 1, "b", "c"),
    "connection": ConnectionRefusedError(),
    "timeout": TimeoutError(),
    "locked": sqlite3.OperationalError("database is locked"),
    "missing": FileNotFoundError(),
    "bug": ZeroDivisionError(),
}
from dags.ctr import Usual
from features.settings import configured
wrong = Path(sys.argv[1]) / "wrong"
wrong.mkdir()
found["baselines"] = [configured(wrong, "ctr", Usual).baselines]
for told in ('baselines = []', 'baselines = ["din"]', 'baselines = 3', 'baseline = []'):
    (wrong / "settings.toml").write_text(f"[ctr]\\n{told}\\n")
    try:
        found["baselines"].append(configured(wrong, "ctr", Usual).baselines)
    except SeminarError as error:
        found["baselines"].append(error.field)
import os
from types import SimpleNamespace
from dags.common import LABELS
from features import versions
from tests.dags import history
os.environ["SEMINAR_HOME"] = str(home := Path(sys.argv[1]) / "closed")
history.write(home, users=2, days=2)
said, run = {LABELS: SimpleNamespace()}, SimpleNamespace(run_id="scheduled__2025-01-03")
close = bag.dags["labels"].get_task("close").python_callable
close("2025-01-02", {}, params={"dry": False}, dag_run=run, outlet_events=said)
found["closed"] = [said[LABELS].extra["history"], versions.pins(home)]
found["retry"] = {name: policy.evaluate(error, 1, 2).action.value for name, error in errors.items()}

import os
from features.publish import point, publish
from features.settings import settings
os.environ["SEMINAR_HOME"], os.environ["SEMINAR_SCORERS"] = sys.argv[1], "http://[::1"
kind = settings().bundles
publish(kind, lambda folder: (folder / "manifest.json").write_text("{}") and None)
(kind / "promotions.jsonl").write_text('{"bundle": "v000001", "former": null, "reason": "promoted"}')
point(kind, "v000001")
try:
    bag.dags["ctr"].get_task("confirm").python_callable({}, {"bundle": "v000001"}, {"patience_s": 0})
except Exception as error:
    found["first"] = [type(error).__name__, str(error)]
print(json.dumps(found, default=str))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a fresh process finds in dags/."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("AIRFLOW")} | {"PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", SCRIPT, tmp_path_factory.mktemp("home")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


DAGS = {"history", "labels", "psu", "codebooks", "ctr", "health"}


def test_every_file_imports_and_nothing_heavy_comes_along(found: dict[str, Any]) -> None:
    assert found["errors"] == {}
    assert found["heavy"] == []
    assert set(found["dags"]) == DAGS


def test_the_chain_hangs_together_by_assets(found: dict[str, Any]) -> None:
    dags = found["dags"]
    assert dags["history"]["schedule"] == "CronPartitionTimetable"
    assert {dags[name]["schedule"] for name in ("labels", "health")} == {"CronTriggerTimetable"}
    outlets = {
        (dag, asset): name
        for dag, found_ in dags.items()
        for name, task in found_["tasks"].items()
        for asset in task["outlets"]
    }
    assert outlets == {
        ("history", "seminar://history"): "compact",
        ("labels", "seminar://labels"): "close",
        ("psu", "seminar://psu"): "pretrain",
        ("codebooks", "seminar://codebooks"): "build",
        ("codebooks", "seminar://catalogue"): "assemble",
        ("ctr", "seminar://bundle"): "confirm",
    }
    assert {name: dag["triggers"] for name, dag in dags.items() if dag["triggers"]} == {
        "psu": ["seminar://labels"],
        "codebooks": ["seminar://psu"],
        "ctr": ["seminar://codebooks"],
    }


def test_no_event_of_an_asset_is_stranded_by_a_limit_of_runs(found: dict[str, Any]) -> None:
    assert all(found["dags"][name]["active"] > 1 for name in ("psu", "codebooks", "ctr"))


def test_versions_are_pinned_first_and_promotion_comes_after_the_gate(found: dict[str, Any]) -> None:
    tasks = found["dags"]["ctr"]["tasks"]
    tuned = [f"finetune_{name}" for name in ("din_full", "din_recent", "seminar")]
    assert all(tasks[name]["upstream"] == ["pin"] for name in tuned)
    assert tasks["evaluate"]["upstream"] == [*tuned, "pin"]
    assert set(tasks["export"]["upstream"]) == {"evaluate", "finetune_seminar", "pin"}
    assert tasks["gate"]["upstream"] == ["duel", "export", "smoke"]
    assert tasks["promote"]["upstream"] == ["gate"]
    assert tasks["confirm"]["upstream"] == ["pin", "promote"]


def test_a_date_is_closed_after_the_watermark_and_its_check(found: dict[str, Any]) -> None:
    tasks = found["dags"]["labels"]["tasks"]
    assert "wait" in tasks["check"]["upstream"]
    assert tasks["wait"]["reschedules"]
    assert {"check", "wait"} <= set(tasks["join"]["upstream"])
    assert "join" in tasks["close"]["upstream"]
    assert found["dags"]["history"]["tasks"]["erase"]["upstream"] == []  # nothing that is wrong with a date delays it
    assert found["dags"]["history"]["tasks"]["retain"]["upstream"] == ["check"]
    assert found["dags"]["history"]["tasks"]["compact"]["upstream"] == ["retain"]


def test_training_is_serialised_and_nothing_catches_up(found: dict[str, Any]) -> None:
    for dag in found["dags"].values():
        assert dag["catchup"] is False
        assert dag["doc"]
    pools = {name: task["pool"] for dag in found["dags"].values() for name, task in dag["tasks"].items()}
    training = {"pretrain", "build", "finetune_seminar", "finetune_din_full", "finetune_din_recent", "evaluate", "export"}
    assert {name for name, pool in pools.items() if pool == "training"} == training | {"duel", "smoke"}


def test_every_param_is_titled_and_described(found: dict[str, Any]) -> None:
    for name, dag in found["dags"].items():
        assert "dry" in dag["params"], name
        assert all(title and description for title, description in dag["params"].values()), dag["params"]
    for dag in ("psu", "codebooks", "ctr"):
        assert {"windows", "settings", "seed"} <= set(found["dags"][dag]["params"])


def test_every_task_says_how_it_ended(found: dict[str, Any]) -> None:
    assert all(task["calls"] for dag in found["dags"].values() for task in dag["tasks"].values())


def test_refused_data_fail_at_once_and_lost_connections_are_retried(found: dict[str, Any]) -> None:
    retried = {name for name, action in found["retry"].items() if action == "retry"}
    assert retried == {"connection", "timeout", "locked", "broker", "store"}
    assert all(action in ("retry", "fail") for action in found["retry"].values())
    assert all(task["retries"] for dag in found["dags"].values() for task in dag["tasks"].values())


def test_the_version_that_psu_is_told_of_is_held_until_it_starts(found: dict[str, Any]) -> None:
    version, held = found["closed"]
    assert held == {version: ["run-labels-scheduled__2025-01-03"]}


def test_baselines_of_the_settings_are_known_ones(found: dict[str, Any]) -> None:
    wrong = ["settings.ctr baselines", "settings.ctr baselines", "settings.ctr"]
    assert found["baselines"] == [["din_full", "din_recent"], [], *wrong]


def test_a_first_release_that_no_scorer_serves_says_why_and_that_nothing_was_served_before(found: dict[str, Any]) -> None:
    kind, words = found["first"]
    assert kind == "SeminarError"
    assert "is not served: http://[::1 does not answer (InvalidURL); nothing was served before it" in words


def test_airflow_parses_the_folder_without_this_repositorys_helpers(found: dict[str, Any]) -> None:
    ignored = (Path(REPOSITORY) / "dags" / ".airflowignore").read_text().split()
    assert "common.py" in ignored
