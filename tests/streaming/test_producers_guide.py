"""The guide for producers: every block of it runs, against a real broker, and what it says of the bytes is so."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from features.settings import REPOSITORY
from streaming import clients, security
from streaming.checks import CHECKS
from streaming.events import Message, parse
from streaming.positions import Position
from streaming.reading import partitions_of, ranges, read
from streaming.topics import EVENT_TOPICS
from streaming.validate import Limits

from .conftest import caught_up, consuming, wait

TEXT = (REPOSITORY / "docs" / "producers.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.S)


def messages(bootstrap: str) -> list[Message]:
    consumer = clients.reader(bootstrap)
    partitions = [p for topic in EVENT_TOPICS for p in partitions_of(consumer, topic)]
    found = [message for message, _ in read(consumer, ranges(consumer, partitions, Position()))]
    consumer.close()
    return found


def python(block: str, **environment: str) -> str:
    run = subprocess.run(
        [sys.executable, "-c", block],
        cwd=REPOSITORY,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.mark.long
def test_every_block_runs(bootstrap: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours and the foreign client's events arrive; then the commands find nothing wrong, and the event."""
    ours, foreign = blocks("python")
    assert python(ours, KAFKA_BOOTSTRAP_SERVERS=bootstrap) == "4 acknowledged, 0 not\n"
    assert sorted(parse(message).type for message in messages(bootstrap)) == ["browse", "impression", "item", "search"]
    python(foreign, KAFKA_BOOTSTRAP_SERVERS=bootstrap)
    (sent,) = (m for m in messages(bootstrap) if m.headers["ce_source"] == b"shop-app")
    lines = [f"header {name}".ljust(24) + value.decode() for name, value in sent.headers.items()]
    (said,) = blocks("text")
    key, value = ((raw or b"").decode() for raw in (sent.key, sent.value))
    assert said.splitlines() == ["key".ljust(24) + key, *lines, "value".ljust(24) + value]
    assert parse(sent).type == "browse"
    with consuming(bootstrap, home):
        wait(caught_up(bootstrap))
    seminar = tmp_path / "seminar"
    seminar.write_text(f'#!/bin/sh\nexec {sys.executable} -m cli.main "$@"\n')
    seminar.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", bootstrap)
    commands = blocks("bash")
    assert len(commands) == 2
    printed = []
    for command in commands:
        # The example's time is long ago, which is what the checks of lateness and order are for.
        given = command.strip() + (" --limit late=1 --limit disorder=1" if "validate" in command else "")
        run = subprocess.run(["bash", "-euc", given], cwd=REPOSITORY, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stdout + run.stderr
        printed.append(run.stdout)
    assert "FAIL" not in printed[0]
    assert "in the sequence of user-7" in printed[1]


def test_the_settings_file_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (given,) = blocks("yaml")
    file = tmp_path / "kafka.yaml"
    file.write_text(given)
    (tmp_path / "ca.pem").write_text("")
    monkeypatch.setenv("KAFKA_PASSWORD", "p")
    assert security.read(file)["sasl_plain_password"] == "p"


def test_the_table_of_checks_is_that_of_the_code() -> None:
    rows: list[Any] = re.findall(
        r"^\| `(\w+)` \| .* \| (.*) \|$", TEXT.split("## Check before")[1].split("## Where")[0], re.M
    )
    assert [name for name, _ in rows] == ["schema", "keys", *(one.name for one in CHECKS)]
    given = [text for _, limits in rows for text in re.findall(r"`(\w+=[\d.]+)`", limits)]
    assert Limits.parse(given) == Limits()
    assert len(given) == 13
