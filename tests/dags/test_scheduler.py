"""The chain under a real scheduler, with broker, consumer and scorer as processes; a training is killed -9 in its middle."""

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from benchmarks import chain
from benchmarks.harness import days, kafka_broker
from features import journal, quality
from features.publish import versions
from features.settings import REPOSITORY
from model.train.lineage import lineage

USERS, LENGTH = 16, 24
EPOCHS = 400  # of pretraining: longer than it takes until a training's state is saved for the first time


def asked(home: Path, question: str, *values: object) -> list[Any]:
    """Rows of Airflow's database."""
    with sqlite3.connect(f"file:{home}/airflow/airflow.db?mode=ro", uri=True) as database:
        return database.execute(question, values).fetchall()


def backfill(home: Path, dag: str, first: str, last: str) -> None:
    """As docs/operations.md says."""
    command = f'eval "$(seminar airflow)" && airflow backfill create --dag-id {dag} --from-date {first} --to-date {last}'
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "SEMINAR_HOME": str(home), "PATH": path, "SEMINAR_HOURLY": chain.HOURLY}
    run = subprocess.run(
        ["bash", "-c", command], env=environment, cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]


def backfilled(home: Path) -> list[str]:
    """The states of all runs of backfills."""
    return [state for (state,) in asked(home, "SELECT state FROM dag_run WHERE run_type = 'backfill'")]


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.skipif(kafka_broker.why_not() is not None, reason=str(kafka_broker.why_not()))
def test_a_day_is_served_without_a_hand_though_its_training_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEMINAR_HOME", "")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    champion = chain.base(home := tmp_path / "home", LENGTH, USERS)
    settings = home / "settings.toml"
    settings.write_text(settings.read_text().replace("psu_epochs = 1\n", f"psu_epochs = {EPOCHS}\n"))

    def ended(dag: str, task: str) -> bool:
        assert not (bad := [x for x in journal.lines(home) if x["state"] == "failed"]), bad
        return any((x["dag"], x["task"], x["state"]) == (dag, task, "success") for x in journal.lines(home))

    with chain.System(home, tmp_path) as system:
        system.produce(days.day(chain.yesterday(), USERS))
        system.schedule()
        system.wait(lambda: bool(list((home / "cache" / "training").glob("*.pt"))), "a training that saved its state")
        ((pid,),) = asked(
            home, "SELECT pid FROM task_instance WHERE dag_id = 'psu' AND task_id = 'pretrain' AND state = 'running'"
        )
        os.kill(pid, signal.SIGKILL)
        system.wait(lambda: ended("ctr", "confirm"), "the release", 900)
        assert system.serving() == "v000002" != champion
        (pretrained,) = [x for x in journal.lines(home) if x["task"] == "pretrain"]
        assert (pretrained["state"], pretrained["attempt"]) == ("success", 2)
        assert versions(home / "psu") == ["v000001", "v000002"]
        assert not list((home / "cache" / "training").glob("*.pt"))
        assert asked(home, "SELECT count(*) FROM asset_dag_run_queue") == [(0,)]  # no event is stranded
        backfill(home, "history", "2026-01-10T00:00:00", "2026-01-10T00:06:00")
        system.wait(lambda: set(backfilled(home)) == {"success"}, "the backfill")
        assert len(backfilled(home)) == 3  # one for each tick of chain.System's cron
    logs = (home / "airflow" / "logs").rglob("*/task_id=pretrain/attempt=2.log")
    assert any("goes on from step" in log.read_text() for log in logs)
    assert system.left == 0
    monkeypatch.setenv("SEMINAR_HOME", str(home))
    served = lineage(home)
    assert served["psu"]["version"] == "v000002"
    assert quality.date_of(chain.yesterday()) in served["history"]["partitions"]
    assert not [x for x in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(x.info["cmdline"] or [])]
