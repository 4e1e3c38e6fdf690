"""The main job, from event to score, on real purchase histories: `make demo`.

Each stage calls what its own command calls. Broker, consumer and scorer are real processes on loopback; they end with
this one. What it measured stays in `<home>/report.json` and `<home>/report.html`.
"""

import fcntl
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from cli import airflow, report
from cli.demo_stages import bulk_import, day, score, stream
from cli.output import Output
from cli.timing import Stages
from features.errors import SeminarError
from features.history import read_sequences
from features.repository import configure
from features.settings import REPOSITORY, settings
from streaming import broker
from streaming.datasets.complete_journey import NOTICE, CompleteJourney

DATES = {
    "past": "2017-01-01",
    "t1": "2017-09-11",  # PSU before; fine-tuning from here, with impressions
    "t2": "2017-10-30",  # validation from here; also where the stream begins
    "t3": "2017-11-13",  # test from here
    "end": "2017-11-27",  # what comes later is streamed to one user at the end
}
MADE = (
    "airflow broker bundles cache catalogue checkpoints codebooks deadletters feature_store.yaml history lists logs "
    "online.db online.db-shm online.db-wal psu registry.db report.html report.json reports suites"
)
"""What a demo makes in its home, and what the next one removes first."""
MARK = ".demo"
"""Says that a home belongs to the demo: it never removes what others made."""


def run(out: Output, households: int) -> dict[str, Any]:
    """Run all stages; the facts that the report shows."""
    home = settings().home
    home.mkdir(parents=True, exist_ok=True)
    stages = Stages()
    facts: dict[str, Any] = {"notice": NOTICE, "dates": DATES, "started": datetime.now(UTC).isoformat()}
    with only_one(home), interruptible(), ExitStack() as stack:
        clear(home)
        stack.enter_context(stages.sampling())
        with stages.stage("feature repository"):
            feature_repository(out)
        with stages.stage("import"):
            data = CompleteJourney(households=households, cut_ms=day(DATES["t1"]))
            facts["households"] = len(data.users)
            facts["import"] = bulk_import(out, data, home, DATES)
        with stages.stage("stream"):
            bootstrap = settings().bootstrap_servers
            if bootstrap is None:
                bootstrap = stack.enter_context(broker.EmbeddedBroker(home / "broker")).bootstrap
            consumer, facts["stream"] = stream(out, stack, data, home, bootstrap, DATES)
        facts["training"] = train(out, home, stages)
        with stages.stage("scoring"):
            facts["scoring"] = score(out, stack, data, home, bootstrap, consumer, DATES)
        facts["lengths"] = np.diff(read_sequences(home).offsets).tolist()
        facts |= {"stages_s": stages.seconds, "wall_s": stages.total, "peak_mb": stages.peak_mb, "machine": machine()}
        (home / "report.json").write_text(json.dumps(facts, default=str, indent=1))
        report.write(home, facts)
    closing(out, facts, home)
    out.result(facts)
    return facts


def feature_repository(out: Output) -> None:
    """Stage 1: stock `feast apply`, in a process of its own."""
    out.heading("1 Feature repository: feast apply")
    config = configure()
    feast = Path(sys.executable).parent / "feast"
    run = subprocess.run([feast, "-f", config, "apply"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if run.returncode:
        raise SeminarError("feast apply", config, f"failed: {(run.stderr or run.stdout).strip()[-400:]}", "run it by hand")
    out.line("entities user, item, query; views user_sequence, item_content, query_text; service ctr_v1")


def train(out: Output, home: Path, stages: Stages) -> dict[str, Any]:
    """Stage 4: the DAG files, run by Airflow in this process; each builds on the versions of the one before."""
    out.heading("4 Training under Airflow: DAGs psu, codebooks, ctr")
    windows = {name: DATES[name] for name in ("t1", "t2", "t3", "end")}
    with stages.stage("airflow database"):
        airflow.prepare(home)
    found = {}
    for dag in ("psu", "codebooks", "ctr"):
        with stages.stage(f"DAG {dag}"):
            found[dag] = airflow.run(
                dag,
                {"windows": windows},
                on_task=lambda task: out.line(f"{task.dag}.{task.name}: {task.state} in {task.seconds:.1f} s"),
            )
    for check in found["ctr"]["gate"]["checks"]:
        out.line(f"gate {check['name']}: {figure(check['value'])}, at {check['at']} {check['limit']}")
    out.table(
        ["method", "mode", "GAUC", "NDCG@10", "log loss"],
        [
            (m["name"], m["mode"], figure(m["gauc"]), figure(m["ndcg10"]), figure(m["logloss"]))
            for m in found["ctr"]["evaluate"]["methods"]
        ],
    )
    out.line(f"promoted: bundle {found['ctr']['promote']['bundle']}")
    return found


def figure(value: float | None) -> str:
    """A figure with four places, or that there is none."""
    return "none" if value is None else f"{value:.4f}"


def closing(out: Output, facts: dict[str, Any], home: Path) -> None:
    """What to do next, on what this run left."""
    shown = facts["scoring"]["explained"]
    seminar = Path(sys.executable).parent / "seminar"
    few, when = shown["candidates"][:5], f"{DATES['end']}T00:00:00Z"
    body = json.dumps({"user": shown["user"], "query": shown["query"], "candidates": few, "time": when})
    prefix = f"SEMINAR_HOME={home} " if home != Path("var").absolute() else ""
    program = seminar.relative_to(Path.cwd()) if seminar.is_relative_to(Path.cwd()) else seminar
    out.line(f"\nDone in {facts['wall_s']:.0f} s, {facts['peak_mb']:,.0f} MB at most. Report: {home / 'report.html'}")
    out.line("Next:")
    out.line(f"  {prefix}{program} serve")
    out.line(f"  curl -s http://127.0.0.1:8080/v1/score -H 'content-type: application/json' -d '{body}'")
    asked = f"--user {shown['user']} --query '{shown['query']}' --candidates {','.join(few)} --time {when}"
    out.line(f"  {prefix}{program} score {asked} --explain")


def open_page(out: Output, facts: dict[str, Any], port: int) -> None:
    """Become `seminar serve` (what the run has in memory goes); the page of the user whose score was explained."""
    user = facts["scoring"]["explained"]["user"]
    out.line(f"\nThe page: http://127.0.0.1:{port}/inspect#/user/{user} (until Ctrl-C)")
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "cli.main", "serve", "--port", str(port)])


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    import torch

    packages = ("feast", "apache-airflow", "kafka-python", "duckdb", "torch", "faiss-cpu")
    return {"python": platform.python_version(), "threads": torch.get_num_threads()} | {p: version(p) for p in packages}


def clear(home: Path) -> None:
    """Remove what a former demo made here; SeminarError when something is here that no demo made."""
    if not (home / MARK).exists() and any((home / name).exists() for name in MADE.split()):
        raise SeminarError("SEMINAR_HOME", home, "holds what no demo made", "set another SEMINAR_HOME for the demo")
    (home / MARK).touch()
    for name in MADE.split():
        path = home / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


@contextmanager
def only_one(home: Path) -> Iterator[None]:
    """Hold the home's lock; SeminarError when another demo does."""
    with (home / ".demo.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            remedy = "wait for it, or set another SEMINAR_HOME"
            raise SeminarError("SEMINAR_HOME", home, "is in use by another demo", remedy) from error
        yield


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM ends the run as Ctrl-C does: the processes that it started are stopped in order."""

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    former = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)
