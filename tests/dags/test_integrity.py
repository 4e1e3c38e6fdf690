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
heavy = [name for name in ("torch", "feast", "pyarrow", "duckdb", "faiss") if name in set(sys.modules) - before]
def described(dag):
    timetable = dag.timetable
    triggers = [] if dag.dag_id == "psu" else [asset.name for asset in timetable.asset_condition.objects]
    params = {name: dag.params.get_param(name) for name in dag.params}
    return {
        "catchup": dag.catchup,
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
            }
            for task in dag.tasks
        },
    }

found = {"errors": bag.import_errors, "heavy": heavy, "dags": {name: described(dag) for name, dag in bag.dags.items()}}
policy = bag.dags["psu"].tasks[0].retry_policy
from features.errors import SeminarError
import sqlite3
errors = {
    "refused": SeminarError("a", 1, "b", "c"),
    "connection": ConnectionRefusedError(),
    "timeout": TimeoutError(),
    "locked": sqlite3.OperationalError("database is locked"),
    "missing": FileNotFoundError(),
    "bug": ZeroDivisionError(),
}
found["retry"] = {name: policy.evaluate(error, 1, 2).action.value for name, error in errors.items()}
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


def test_every_file_imports_and_nothing_heavy_comes_along(found: dict[str, Any]) -> None:
    assert found["errors"] == {}
    assert found["heavy"] == []
    assert set(found["dags"]) >= {"psu", "codebooks", "ctr"}


def test_the_chain_hangs_together_by_assets(found: dict[str, Any]) -> None:
    dags = found["dags"]
    assert dags["psu"]["schedule"] == "CronTriggerTimetable"
    assert dags["psu"]["tasks"]["pretrain"]["outlets"] == ["seminar://psu"]
    assert dags["codebooks"]["triggers"] == ["seminar://psu"]
    assert dags["codebooks"]["tasks"]["build"]["outlets"] == ["seminar://codebooks"]
    assert dags["ctr"]["triggers"] == ["seminar://codebooks"]
    assert dags["ctr"]["tasks"]["promote"]["outlets"] == ["seminar://bundle"]


def test_versions_are_pinned_first_and_promotion_comes_after_the_gate(found: dict[str, Any]) -> None:
    tasks = found["dags"]["ctr"]["tasks"]
    tuned = [f"finetune_{name}" for name in ("din_full", "din_recent", "seminar")]
    assert all(tasks[name]["upstream"] == ["pin"] for name in tuned)
    assert tasks["evaluate"]["upstream"] == [*tuned, "pin"]
    assert set(tasks["export"]["upstream"]) == {"evaluate", "finetune_seminar", "pin"}
    assert tasks["gate"]["upstream"] == ["export"]
    assert tasks["promote"]["upstream"] == ["gate", "pin"]


def test_training_is_serialised_and_nothing_catches_up(found: dict[str, Any]) -> None:
    for dag in found["dags"].values():
        assert dag["catchup"] is False
        assert dag["doc"]
    pools = {name: task["pool"] for dag in found["dags"].values() for name, task in dag["tasks"].items()}
    training = {"pretrain", "build", "finetune_seminar", "finetune_din_full", "finetune_din_recent", "evaluate", "export"}
    assert {name for name, pool in pools.items() if pool == "training"} == training


def test_every_param_is_titled_and_described(found: dict[str, Any]) -> None:
    for dag in ("psu", "codebooks", "ctr"):
        params = found["dags"][dag]["params"]
        assert {"windows", "settings", "seed"} <= set(params)
        assert all(title and description for title, description in params.values()), params


def test_refused_data_fail_at_once_and_lost_connections_are_retried(found: dict[str, Any]) -> None:
    retried = {name for name, action in found["retry"].items() if action == "retry"}
    assert retried == {"connection", "timeout", "locked"}
    assert all(action in ("retry", "fail") for action in found["retry"].values())
    assert all(task["retries"] for dag in found["dags"].values() for task in dag["tasks"].values())


def test_airflow_parses_the_folder_without_this_repositorys_helpers(found: dict[str, Any]) -> None:
    ignored = (Path(REPOSITORY) / "dags" / ".airflowignore").read_text().split()
    assert "common.py" in ignored
