"""A disk that is full, then has space again; a file that is torn."""

import contextlib
import resource
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks.harness.kafka_broker import KafkaBroker
from benchmarks.harness.members import Members
from benchmarks.harness.stand import Stand
from benchmarks.harness.waiting import until
from features import history
from features.errors import SeminarError

from .conftest import assert_each_once, empty, restored

SIZE = 6_000_000


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own of a few megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)], capture_output=True)
    if made.returncode:
        pytest.skip(f"no file system may be mounted here ({made.stderr.decode().strip()})")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def errors(stand: Stand) -> str:
    """What the members have logged."""
    return stand.members.errors.read_text(errors="replace")


def recovers(stand: Stand, fill: Callable[[int], None], free: Callable[[int], None]) -> None:
    """A member that is at work meets a full disk, goes on trying, and makes up for it once there is space."""
    pid = stand.member()
    stand.send(200)
    stand.settle()
    fill(pid)
    begin = len(errors(stand))
    stand.send(600)
    until(lambda: errors(stand).count("batch of", begin) >= 3, 60, "the disk was never full")
    free(pid)
    stand.settle()
    stand.stop(pid)
    assert_each_once(stand.judge())


def test_a_full_disk_loses_nothing(
    broker: KafkaBroker, members: Members, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    restored(monkeypatch)
    empty(broker.bootstrap)
    filler = small_disk / "filler"

    def fill(pid: int) -> None:
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))

    with Stand(small_disk / "stand", broker.bootstrap, members) as stand:
        # The load's own file must not lie on the disk that is full.
        stand.notes = small_disk.parent
        stand.group = small_disk.parent.name
        recovers(stand, fill, lambda pid: filler.unlink())


def test_files_that_may_not_grow_lose_nothing(stand: Stand) -> None:
    """Every write of the member beyond the first kilobytes of a file fails, as with a quota."""

    def limit(pid: int, size: int) -> None:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    recovers(stand, lambda pid: limit(pid, 10_000), lambda pid: limit(pid, resource.RLIM_INFINITY))


def test_a_torn_history_file_is_named_and_made_up_for_by_reading_the_topic_again(stand: Stand) -> None:
    pid = stand.member()
    stand.send(300)
    stand.settle()
    stand.stop(pid)
    torn = max((stand.home / "history" / "events").rglob("*.parquet"), key=lambda file: file.stat().st_size)
    torn.write_bytes(torn.read_bytes()[: torn.stat().st_size // 2])
    with pytest.raises(SeminarError, match=torn.name):
        history.read_sequences(stand.home)
    torn.unlink()
    assert stand.judge()["lost"] > 0
    stand.group += "-again"
    pid = stand.member()
    stand.settle()
    assert stand.kill(pid, signal.SIGTERM) == 0
    assert_each_once(stand.judge())
