"""The runner runs a DAG file for real. In a process of its own: Airflow keeps the home it was imported with."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cli import airflow
from features.settings import REPOSITORY

DAG = """
from airflow.sdk import Param, dag, task
from features.errors import SeminarError

@dag(schedule=None, catchup=False, params={"mode": Param("", type="string"), "n": Param(2, type="integer")})
def tiny():
    @task
    def one(params=None):
        return {"n": params["n"]}

    @task
    def two(pins, params=None):
        import os, signal, time
        if params["mode"] == "refused":
            raise SeminarError("windows", "2017", "are bad", "mend them")
        if params["mode"] == "bug":
            1 / 0
        if params["mode"] == "interrupt":
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        if params["mode"] == "terminate":
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        return pins["n"] * 2

    @task
    def three(item, after):
        return item

    three.partial(after=two(one())).expand(item=["a", "b"])

tiny()
"""

SCRIPT = """
import json, logging, signal, sys
from pathlib import Path
from cli import airflow

class Terminated(BaseException):
    pass

def stop(*_):
    raise Terminated

signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it otherwise
logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="ours: %(message)s")
home, folder = map(Path, sys.argv[1:])
airflow.prepare(home, folder)
airflow.prepare(home, folder)
found = {}
for mode in ("", "refused", "bug", "interrupt", "terminate", "again"):
    seen = []
    watch = lambda task: seen.append([task.name, task.state])
    try:
        results = airflow.run("tiny", {"mode": mode, "n": 5} if mode != "again" else None, on_task=watch)
        found[mode] = {"results": results, "tasks": seen}
    except BaseException as error:
        found[mode] = {"error": type(error).__name__, "text": str(error), "tasks": seen}
for name, call in {"unknown": lambda: airflow.run("none"), "other": lambda: airflow.prepare(home / "other")}.items():
    try:
        call()
    except airflow.SeminarError as error:
        found[name] = str(error)
(folder / "broken.py").write_text("from airflow.sdk import dag\\nimport nowhere_to_be_found\\n")
try:
    airflow.run("tiny")
except airflow.SeminarError as error:
    found["broken"] = str(error)
found["sigterm"] = signal.getsignal(signal.SIGTERM) is stop
logging.getLogger("x").info("heard")
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one process saw that ran the tiny DAG in every mode; its stderr and its home beside it."""
    home, folder = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("dags")
    (folder / "tiny.py").write_text(DAG)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("AIRFLOW")} | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, home, folder], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    # The terminal is the caller's: one line that the script printed, one that it logged.
    assert len(done.stdout.splitlines()) == 1, done.stdout
    return {**json.loads(done.stdout), "stderr": done.stderr, "home": home}


def test_a_run_returns_what_its_tasks_returned(ran: dict[str, Any]) -> None:
    assert ran[""]["results"] == {"one": {"n": 5}, "two": 10, "three": ["a", "b"]}
    assert ran[""]["tasks"] == [[name, "success"] for name in ("one", "two", "three", "three")]


def test_a_later_run_starts_from_the_defaults(ran: dict[str, Any]) -> None:
    assert ran["again"]["results"]["two"] == 4


def test_a_refusal_in_a_task_comes_out_as_it_was(ran: dict[str, Any]) -> None:
    assert ran["refused"]["error"] == "SeminarError"
    assert ran["refused"]["text"] == "windows: '2017' are bad; mend them."
    assert ran["refused"]["tasks"] == [["one", "success"], ["two", "failed"]]


def test_any_other_failure_names_the_task_and_the_log(ran: dict[str, Any]) -> None:
    assert ran["bug"]["error"] == "SeminarError"
    assert "'tiny.two' failed (ZeroDivisionError: division by zero); see " in ran["bug"]["text"]
    assert "1 / 0" in (ran["home"] / "airflow" / "logs" / "demo.log").read_text()


@pytest.mark.parametrize(("mode", "error"), [("interrupt", "KeyboardInterrupt"), ("terminate", "Terminated")])
def test_signals_end_the_run_at_once(ran: dict[str, Any], mode: str, error: str) -> None:
    assert ran[mode]["error"] == error
    assert ran[mode]["tasks"] == [["one", "success"], ["two", "failed"]]


def test_refusals_are_clear(ran: dict[str, Any]) -> None:
    assert "name one that is (tiny)" in ran["unknown"]
    assert "is in use by this process already" in ran["other"]
    assert "does not import (ModuleNotFoundError: No module named 'nowhere_to_be_found')" in ran["broken"]


def test_the_terminal_and_the_signals_stay_the_callers(ran: dict[str, Any]) -> None:
    assert ran["stderr"].splitlines() == ["ours: heard"]
    assert ran["sigterm"] is True


def test_stock_commands_get_the_same_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = airflow.environment(Path("var"))
    assert found["AIRFLOW_HOME"] == str(tmp_path / "var" / "airflow")
    assert found["SEMINAR_HOME"] == str(tmp_path / "var")
    assert found["AIRFLOW__CORE__DAGS_FOLDER"] == str(REPOSITORY / "dags")
    assert str(REPOSITORY) in found["PYTHONPATH"].split(os.pathsep)
