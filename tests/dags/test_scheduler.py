"""The chain under a real scheduler, with broker, consumer and scorer as processes; a task is killed -9 on the way."""

import sqlite3
import time
from pathlib import Path

import psutil
import pytest

from benchmarks import chain
from benchmarks.harness import days, kafka_broker
from features import journal, quality
from features.publish import versions
from model.train.lineage import lineage

USERS, LENGTH = 16, 24


def is_worker(process: psutil.Process) -> bool:
    """Whether it is one of the LocalExecutor's; one that has ended is none."""
    try:
        return "worker" in " ".join(process.cmdline())
    except psutil.Error:
        return False


def kill_the_task(airflow: chain.Process) -> None:
    """SIGKILL what a worker of the LocalExecutor runs for its task."""
    workers = [x for x in airflow.family() if is_worker(x) and x.children()]
    tasks = [child for worker in workers for child in worker.children() if is_worker(child)]
    assert tasks
    for task in tasks:
        task.kill()


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.skipif(kafka_broker.why_not() is not None, reason=str(kafka_broker.why_not()))
def test_a_day_is_served_without_a_hand_though_a_task_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEMINAR_HOME", "")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    champion = chain.base(home := tmp_path / "home", LENGTH, USERS)

    def ended(dag: str, task: str) -> bool:
        return any((x["dag"], x["task"], x["state"]) == (dag, task, "success") for x in journal.lines(home))

    with chain.System(home, tmp_path) as system:
        system.produce(days.day(chain.yesterday(), USERS))
        system.schedule()
        system.wait(lambda: ended("psu", "pin"), "psu.pin")
        time.sleep(1)
        kill_the_task(system.processes["airflow"])
        system.wait(lambda: ended("ctr", "confirm"), "the release", 900)
        assert system.serving() == "v000002" != champion
        (pretrained,) = [x for x in journal.lines(home) if x["task"] == "pretrain"]
        assert (pretrained["state"], pretrained["attempt"]) == ("success", 2)
        assert versions(home / "psu") == ["v000001", "v000002"]
        with sqlite3.connect(f"file:{home}/airflow/airflow.db?mode=ro", uri=True) as database:
            assert database.execute("SELECT count(*) FROM asset_dag_run_queue").fetchone() == (0,)  # no event is stranded
    assert system.left == 0
    monkeypatch.setenv("SEMINAR_HOME", str(home))
    served = lineage(home)
    assert served["psu"]["version"] == "v000002"
    assert quality.date_of(chain.yesterday()) in served["history"]["partitions"]
    assert not [x for x in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(x.info["cmdline"] or [])]
