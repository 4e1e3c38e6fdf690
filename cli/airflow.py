"""Airflow without a scheduler: run a DAG file of this repository in-process, on a database of its own below the home.

`prepare` sets the environment, migrates the database once and makes the pool; `run` parses the folder and runs one DAG
through `dag.test()`. Airflow is imported lazily: it reads its environment when it is imported first, and takes seconds.
What it logs goes to `<home>/airflow/logs/demo.log`. `environment` is what a shell needs for stock `airflow` commands.
"""

import logging
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, TextIO

from features.errors import SeminarError
from features.settings import REPOSITORY

DAGS = REPOSITORY / "dags"
POOL = "training"
LOG = "demo.log"


@dataclass(frozen=True)
class Task:
    """One finished try of a task; map_index is -1 unless the task is expanded over a list.

    state: "success", "failed" (a retry may follow) or "skipped"; seconds: its wall time; error: why it failed.
    """

    dag: str
    name: str
    map_index: int
    state: str
    seconds: float
    error: object = None


def environment(home: Path, dags: Path = DAGS) -> dict[str, str]:
    """The variables with which stock `airflow` commands see this repository's DAGs and the state in `home`."""
    root = home.absolute() / "airflow"
    inherited = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    return {
        "SEMINAR_HOME": str(home.absolute()),
        "AIRFLOW_HOME": str(root),
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags.absolute()),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__PARALLELISM": "4",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{root / 'airflow.db'}",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(root / "logs"),
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        # DAG files import `features` and `model` from here, whether or not they are installed.
        "PYTHONPATH": os.pathsep.join(dict.fromkeys([str(REPOSITORY), *inherited])),
    }


def prepare(home: Path, dags: Path = DAGS) -> None:
    """Set the environment, migrate the database if need be, make the pool that serialises training. Safe to repeat.

    SeminarError when this process runs Airflow on another home: once imported, it keeps its database.
    """
    wanted = environment(home, dags)
    root, inherited = Path(wanted["AIRFLOW_HOME"]), os.environ.get("AIRFLOW_HOME")
    if "airflow.settings" in sys.modules and inherited != str(root):
        remedy = "run each SEMINAR_HOME in a process of its own"
        raise SeminarError("AIRFLOW_HOME", inherited, "is in use by this process already", remedy)
    (root / "logs").mkdir(parents=True, exist_ok=True)
    os.environ.update(wanted)
    with _quiet():
        from airflow.models.pool import Pool
        from airflow.utils.db import check_migrations, initdb

        try:
            check_migrations(timeout=0)
        except TimeoutError:  # a fresh file never gets the version that this waits for
            initdb()
        Pool.create_or_update_pool(POOL, slots=1, description="One training at a time", include_deferred=False)


def run(dag_id: str, conf: dict[str, Any] | None = None, on_task: Callable[[Task], None] | None = None) -> dict[str, Any]:
    """Run one DAG to its end, after `prepare`, in the main thread; what its tasks returned, by task id.

    An expanded task returned a list. conf: values of the DAG's params. on_task is called after each try of a task.
    SeminarError when the run does not succeed: the failed task's own error when that is one, else a sentence that names
    the task.
    """
    with _quiet() as log:
        from airflow.models.xcom import XComModel
        from airflow.sdk.listener import get_listener_manager
        from airflow.utils.session import create_session

        dag = _load(dag_id, log)
        failures: list[Task] = []
        watcher = _watcher(on_task or (lambda task: None), failures)
        listeners = get_listener_manager()
        listeners.add_listener(watcher)
        try:
            finished = dag.test(run_conf=conf or {})
        finally:
            listeners.pm.unregister(watcher)
        if finished.state != "success":
            raise _failure(dag_id, failures, log)
        results: dict[str, Any] = {}
        with create_session() as session:
            query = XComModel.get_many(run_id=finished.run_id, dag_ids=dag_id, key="return_value")
            for row in sorted(session.scalars(query), key=lambda row: row.map_index):
                value = XComModel.deserialize_value(row)
                if row.map_index < 0:
                    results[row.task_id] = value
                else:
                    results.setdefault(row.task_id, []).append(value)
        return results


def _load(dag_id: str, log: Path) -> Any:
    # A fresh bag for each run: a DAG object that ran before leaks its conf into the next run.
    from airflow.dag_processing.dagbag import BundleDagBag

    folder = Path(os.environ["AIRFLOW__CORE__DAGS_FOLDER"])
    bag = BundleDagBag(folder, bundle_path=folder, bundle_name="dags-folder")
    for file, problem in bag.import_errors.items():
        reason = problem.strip().splitlines()[-1]
        raise SeminarError("DAG file", file, f"does not import ({reason})", f"correct it, or see {log}")
    if dag_id not in bag.dags:
        known = ", ".join(sorted(bag.dags)) or "none"
        raise SeminarError("DAG", dag_id, f"is not in {folder}", f"name one that is ({known})")
    return bag.dags[dag_id]


def _failure(dag_id: str, failures: list[Task], log: Path) -> SeminarError:
    if not failures:
        return SeminarError("DAG", dag_id, "did not succeed, though no task failed", f"see {log}")
    task = failures[-1]
    if isinstance(task.error, SeminarError):
        return task.error
    reason = f"{type(task.error).__name__}: {task.error}" if isinstance(task.error, BaseException) else task.error
    return SeminarError("task", f"{dag_id}.{task.name}", f"failed ({reason})", f"see {log}")


def _watcher(on_task: Callable[[Task], None], failures: list[Task]) -> object:
    """An Airflow listener that reports every try of a task and keeps the failed ones."""
    from airflow.listeners import hookimpl

    # The task runner installs a SIGTERM handler that does nothing here: give the caller's back to each task.
    on_sigterm = signal.getsignal(signal.SIGTERM)
    begun: dict[object, float] = {}

    def report(instance: Any, state: str, error: object = None) -> None:
        seconds = time.monotonic() - begun.pop(instance.id, time.monotonic())
        task = Task(instance.dag_id, instance.task_id, instance.map_index, state, seconds, error)
        if error is not None:
            failures.append(task)
        on_task(task)

    class Watcher:
        @hookimpl
        def on_task_instance_running(self, previous_state: object, task_instance: Any) -> None:
            signal.signal(signal.SIGTERM, on_sigterm)
            begun[task_instance.id] = time.monotonic()

        @hookimpl
        def on_task_instance_success(self, previous_state: object, task_instance: Any) -> None:
            report(task_instance, "success")

        @hookimpl
        def on_task_instance_skipped(self, previous_state: object, task_instance: Any) -> None:
            report(task_instance, "skipped")

        @hookimpl
        def on_task_instance_failed(self, previous_state: object, task_instance: Any, error: object) -> None:
            report(task_instance, "failed", error)
            if isinstance(error, BaseException) and not isinstance(error, Exception):
                raise error  # Ctrl-C: Airflow took it for a failed task and would run the next one

    return Watcher()


@contextmanager
def _quiet() -> Iterator[Path]:
    """Airflow's log goes to its file meanwhile, the root logger's included; the file's path."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    on_sigterm = signal.getsignal(signal.SIGTERM)
    log = Path(os.environ["AIRFLOW__LOGGING__BASE_LOG_FOLDER"]) / LOG
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        root.handlers[:] = [logging.StreamHandler(_open(log))]
        try:
            import_module("airflow.settings")  # it configures logging to stdout when it is imported first
            from airflow.sdk.log import configure_logging

            configure_logging(output=_open(log), colored_console_log=False, cache_logger_on_first_use=False)
            yield log
        finally:
            root.handlers[:] = handlers
            root.setLevel(level)
            signal.signal(signal.SIGTERM, on_sigterm)


@cache
def _open(log: Path) -> TextIO:
    # Open as long as the process: loggers that Airflow made keep the stream.
    return log.open("a", buffering=1)
