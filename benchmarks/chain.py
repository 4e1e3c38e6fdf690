"""From a day of events to a served version without a hand, and days that must not get there.

    python -m benchmarks.chain --json [--days good,empty,tenfold,...] [--users 24] [--length 24]

A real broker (KAFKA_HOME), consumer, scorer and Airflow (`seminar airflow --run`: LocalExecutor), each a process. For each
day: a home in which a champion is served, made from `length` imported days; broker, consumer and scorer start; the day is
produced to Kafka; Airflow starts, with `labels` due every other minute; nobody touches anything. A good day is served when
the scorer answers with another version; a poisoned one has been stopped when a task failed: the champion must serve on.

chain_s: from the first task of the run that closes the day until the scorer was found to serve the new version; parse_s:
reading the DAG folder, CPU, in a process that has Airflow; tasks: that ended in the good day's runs.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import psutil

from benchmarks.consume import machine
from benchmarks.harness import days, kafka_broker
from benchmarks.harness.kafka_broker import KafkaBroker, free_ports
from benchmarks.harness.waiting import until
from features import journal, quality
from features.children import die_with_parent
from features.settings import REPOSITORY
from streaming.events import Event

NEVER = "0 0 1 1 *"
HOURLY = "1-59/2 * * * *"
REST_S = 10  # after a refusal: nothing may come of the day any more
SETTINGS = f"""{days.SMALL}ctr_epochs = 2
eval_targets = 100

[release]
margin = 0.2  # of 24 users the paired interval is wide
events = 0.4
calibration = 0.6
latency_ms = 2000.0
"""
PARSE = """
import sys, time
from pathlib import Path
from cli import airflow

airflow.prepare(Path(sys.argv[1]))
from airflow.dag_processing.dagbag import BundleDagBag

begin = time.process_time()
bag = BundleDagBag(airflow.DAGS, bundle_path=airflow.DAGS, bundle_name="dags-folder")
assert not bag.import_errors and len(bag.dags) == 6
print(time.process_time() - begin)
"""


class Process:
    """A `seminar` command; stopped with SIGTERM."""

    def __init__(self, arguments: list[str], log: Path, environment: dict[str, str]) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self.log = log
        with log.open("ab") as stream:
            command = [sys.executable, "-W", "ignore", "-m", "cli.main", *arguments]
            self._process = subprocess.Popen(
                command,
                cwd=REPOSITORY,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
                preexec_fn=die_with_parent(),
            )

    def check(self) -> None:
        """RuntimeError when it has ended."""
        if self._process.poll() is not None:
            raise RuntimeError(f"{self.log.stem} ended: {self.log.read_text()[-2000:]}")

    def family(self) -> list[psutil.Process]:
        """It and all that it started."""
        try:
            process = psutil.Process(self._process.pid)
            return [process, *process.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def stop(self) -> None:
        """SIGTERM, and wait."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(90)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def yesterday() -> int:
    """Its first ms (UTC)."""
    now = int(time.time() * 1000)
    return now - now % days.DAY_MS - days.DAY_MS


def base(home: Path, length: int, users: int) -> str:
    """A home with `length` days before yesterday and a champion trained on them; its version."""
    os.environ["SEMINAR_HOME"] = str(home)
    home.mkdir(parents=True)
    (home / "settings.toml").write_text(SETTINGS)
    import tomllib

    from features.compaction import compact
    from features.history import read_sequences
    from features.online import Online
    from features.repository import apply
    from model.config import Config, Windows
    from model.train.codebooks import build
    from model.train.ctr import finetune
    from model.train.evaluate import evaluate
    from model.train.export import export
    from model.train.psu import pretrain
    from model.train.release import promote
    from streaming.deadletters import FileSink
    from streaming.importer import import_events

    apply()
    online, sink, first = Online(), FileSink(home), yesterday() - length * days.DAY_MS
    import_events("items", days.catalogue(first), online, home, sink)
    past = [event for i in range(length) for event in days.day(first + i * days.DAY_MS, users)]
    import_events("past", past, online, home, sink)
    version = compact(home)["version"]
    config = Config.load({k: v for k, v in tomllib.loads(SETTINGS).items() if k in ("model", "train")})
    windows = Windows.from_history(read_sequences(home, version=version))
    told: dict[str, Any] = {"windows": windows, "config": config, "history": version}
    psu = pretrain(home, **told)["version"]
    books = build(home, psu=psu, **told)["version"]
    tuned = finetune(home, psu=psu, **told)["checkpoint"]
    metrics = evaluate(home, checkpoints={"seminar": tuned}, **told)
    bundle: str = export(home, checkpoint_folder=tuned, codebooks=books, metrics=metrics, **told)["version"]
    promote(home, bundle=bundle)
    return bundle


class System:
    """Broker, consumer and scorer on a home, and Airflow when it is asked for; all are gone afterwards."""

    def __init__(self, home: Path, folder: Path) -> None:
        self.home, self._folder = home, folder
        self.processes: dict[str, Process] = {}
        self.left = 0  # processes that were still there after all were stopped
        self._stack = ExitStack()

    def __enter__(self) -> "System":
        from streaming import topics

        self.bootstrap = self._stack.enter_context(KafkaBroker(self._folder / "kafka")).bootstrap
        self._stack.callback(self._stop)
        topics.apply(self.bootstrap)
        scorer_port, self._airflow_port = free_ports(2)
        self.url = f"http://127.0.0.1:{scorer_port}"
        self._environment = {k: v for k, v in os.environ.items() if not k.startswith("AIRFLOW")} | {
            "SEMINAR_HOME": str(self.home),
            "KAFKA_BOOTSTRAP_SERVERS": self.bootstrap,
            "SEMINAR_SCORERS": self.url,
            "SEMINAR_HOURLY": HOURLY,
            "SEMINAR_DAILY": "*/2 * * * *",
            "SEMINAR_HEALTH": NEVER,
        }
        self._start("consumer", ["consume", "--bootstrap", self.bootstrap])
        self._start("scorer", ["serve", "--port", str(scorer_port)])
        self.wait(lambda: bool(self.serving()), "the scorer")
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _start(self, name: str, arguments: list[str]) -> None:
        self.processes[name] = Process(arguments, self._folder / "logs" / f"{name}.log", self._environment)

    def _stop(self) -> None:
        family = [process for one in self.processes.values() for process in one.family()]
        for name in reversed(self.processes):
            self.processes[name].stop()
        self.left = sum(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in family)

    def produce(self, events: list[Event]) -> None:
        """Send events, and wait until the consumer has committed them."""
        from streaming import consumer
        from streaming.producer import Producer

        with Producer(self.bootstrap, days.SOURCE) as producer:
            for event in events:
                producer.send(event)
        self.wait(lambda: not any(consumer.lag(self.bootstrap).values()), "the consumer")

    def schedule(self) -> None:
        """Start Airflow, and wait until it is healthy."""
        self._start("airflow", ["airflow", "--run", "--port", str(self._airflow_port)])
        self.wait(lambda: "Airflow: http" in self.processes["airflow"].log.read_text(), "Airflow")

    def serving(self) -> str | None:
        """The version that the scorer serves."""
        try:
            answer = httpx.get(f"{self.url}/v2/health/ready", timeout=5)
            version: str | None = answer.json().get("model_version") if answer.status_code == 200 else None
        except (httpx.HTTPError, ValueError):
            return None
        return version

    def wait(self, done: Callable[[], bool], what: str, patience: float = 600) -> None:
        """Wait until something holds; RuntimeError when a process ends or it takes too long."""

        def look() -> bool:
            for process in self.processes.values():
                process.check()
            return done()

        until(look, patience, f"waited {patience:.0f} s for {what}", 0.5)


def scenario(name: str, base_home: Path, folder: Path, champion: str, users: int) -> dict[str, Any]:
    """One day: what it led to."""
    from features.repository import apply

    home = folder / "home"
    shutil.copytree(base_home, home, ignore=shutil.ignore_patterns("registry.db", "feature_store.yaml"))
    os.environ["SEMINAR_HOME"] = str(home)
    apply()
    good = name == "good"

    def over() -> bool:
        if good and any(x["task"] == "confirm" and x["state"] == "success" for x in journal.lines(home)):
            return True
        return any(run["state"] == "failed" for run in journal.runs(home) if run["dag"] != "history")

    with System(home, folder) as system:
        events = days.day(yesterday(), users, "" if good else name)
        system.produce(events)
        produced = time.time()
        system.schedule()
        healthy = time.time()
        system.wait(over, "a release or a refusal", 1500)
        if not good:
            time.sleep(REST_S)
        system.wait(lambda: bool(system.serving()), "the scorer")
        version, now = system.serving(), time.time()
        lines = journal.lines(home)
        failed = [x for x in lines if x["state"] == "failed"]
        ran = [x for x in lines if x["begun"] and x["dag"] != "history"]
        begun = min((datetime.fromisoformat(x["begun"]).timestamp() for x in ran), default=None)
        served = next((datetime.fromisoformat(x["ended"]).timestamp() for x in lines if x["task"] == "confirm"), now)
    return {
        "day": name,
        "events": len(events),
        "champion": champion,
        "served": version,
        "new_version_served": version != champion,
        "stopped_by": sorted({f"{x['dag']}.{x['task']}" for x in failed}),
        "why": [x["error"] for x in failed][:1],
        "tasks": len(lines),
        "runs": sorted({x["dag"] for x in lines}),
        "airflow_start_s": round(healthy - produced, 1),
        "chain_s": round(served - begun, 1) if begun and good else None,
        "refused_dates": quality.refused(home),
        "left_processes": system.left,
    }


def parse_s(folder: Path) -> float:
    """CPU seconds to read the DAG folder."""
    command = [sys.executable, "-W", "ignore", "-c", PARSE, str(folder)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("AIRFLOW")} | {"PYTHONPATH": str(REPOSITORY)}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return float(run.stdout.splitlines()[-1])


def main() -> None:
    """Run the days and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", default=",".join(("good", *days.POISONS)))
    parser.add_argument("--users", type=int, default=24)
    parser.add_argument("--length", type=int, default=24, help="imported days")
    parser.add_argument("--keep", type=Path, default=None, help="keep the homes here")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if why := kafka_broker.why_not():
        sys.exit(f"chain: needs a broker: {why}")
    with ExitStack() as stack:
        folder = given.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        champion = base(folder / "base", given.length, given.users)
        found = []
        for name in given.days.split(","):
            (folder / name).mkdir(parents=True)
            found.append(scenario(name, folder / "base", folder / name, champion, given.users))
            print(json.dumps(found[-1]), file=sys.stderr, flush=True)
        good = next((x for x in found if x["day"] == "good"), None)
        poisoned = [x for x in found if x["day"] != "good"]
        result = {
            "good_day_served": bool(good and good["new_version_served"]),
            "poisoned_day_served": any(x["new_version_served"] for x in poisoned),
            "chain_s": good and good["chain_s"],
            "parse_s": round(parse_s(folder / "parse"), 3),
            "tasks": good and good["tasks"],
            "days": found,
            "sizes": {"users": given.users, "imported_days": given.length, "events_of_a_day": good and good["events"]},
            "machine": machine(),
        }
    print(json.dumps(result) if given.json else json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
