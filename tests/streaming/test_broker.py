"""The embedded broker starts, keeps what it was given over a stop, and ends with its parent."""

import os
import signal
import subprocess
import sys
from importlib import util
from pathlib import Path

import pytest
from kafka import KafkaConsumer

from features.errors import SeminarError
from features.settings import REPOSITORY
from streaming import topics
from streaming.broker import EmbeddedBroker

from .conftest import wait


def test_data_survive_a_stop(tmp_path: Path) -> None:
    with EmbeddedBroker(tmp_path) as first:
        topics.apply(first.bootstrap)
    with EmbeddedBroker(tmp_path) as second:
        consumer = KafkaConsumer(bootstrap_servers=second.bootstrap)
        assert topics.DEADLETTER in consumer.topics()
        consumer.close()
    assert (tmp_path / "broker.log").exists()


def test_two_at_once_do_not_meet(tmp_path: Path) -> None:
    with EmbeddedBroker(tmp_path / "a") as a, EmbeddedBroker(tmp_path / "b") as b:
        assert a.bootstrap != b.bootstrap


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux signals a child when its parent dies")
def test_it_dies_with_a_killed_parent(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from streaming.broker import EmbeddedBroker\n"
        "with EmbeddedBroker(Path(sys.argv[1])) as b: print(b._process.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout
    broker = int(parent.stdout.readline())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    wait(lambda: not running(broker), 10)


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_missing_package_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(util, "find_spec", lambda name: None)
    with pytest.raises(SeminarError, match="noida-db"), EmbeddedBroker(tmp_path):
        pass
