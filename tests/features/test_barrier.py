"""The barrier between batches and an erasure, between processes; a killed holder lets go."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from features import barrier
from features.errors import SeminarError
from features.settings import REPOSITORY

HOLDER = """
import sys, time
from pathlib import Path
from features import barrier
with getattr(barrier, sys.argv[1])(Path(sys.argv[2])):
    print("held", flush=True)
    time.sleep(60)
"""


def holder(kind: str, home: Path) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, kind, str(home)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stdout.readline() == "held\n"
    return process


def test_batches_go_side_by_side_and_an_erasure_waits_for_them(tmp_path: Path) -> None:
    batch = holder("writing", tmp_path)
    try:
        with barrier.writing(tmp_path):
            pass
        with pytest.raises(SeminarError, match="being rewritten"), barrier.alone(tmp_path, patience=0.1):
            pass
        batch.send_signal(signal.SIGKILL)
        batch.wait()
        with barrier.alone(tmp_path, patience=5):
            pass
    finally:
        batch.kill()
        batch.wait()


OVERLAPPING = """
import sys, time
from pathlib import Path
from features import barrier
while True:
    try:
        with barrier.writing(Path(sys.argv[1])):
            print("held", flush=True)
            time.sleep(0.3)
    except Exception:
        pass
"""


def test_batches_that_overlap_let_an_erasure_in(tmp_path: Path) -> None:
    command = [sys.executable, "-c", OVERLAPPING, str(tmp_path)]
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    writers = [subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    try:
        for writer in writers:
            assert writer.stdout
            assert writer.stdout.readline() == "held\n"
        for _ in range(3):
            with barrier.alone(tmp_path, patience=20):
                pass
    finally:
        for writer in writers:
            writer.kill()
            writer.communicate()


def test_no_batch_goes_on_beside_an_erasure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(barrier, "PATIENCE", 0.1)
    erasure = holder("alone", tmp_path)
    try:
        with pytest.raises(SeminarError, match="try again when it is done"), barrier.writing(tmp_path):
            pass
    finally:
        erasure.kill()
        erasure.wait()
    with barrier.writing(tmp_path):
        pass
