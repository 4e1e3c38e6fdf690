import subprocess
import sys
from pathlib import Path

import pytest

from features import journal
from features.health_page import write
from features.journal import lines, note, runs, trim


def test_runs_are_grouped_by_their_newest_tries_and_shown(tmp_path: Path) -> None:
    for run, task, state in (
        ("a", "one", "failed"),
        ("a", "one", "success"),
        ("b", "one", "success"),
        ("b", "two", "failed"),
    ):
        facts = {"map_index": -1, "attempt": 1, "begun": "2026-01-01T00:00:00+00:00", "seconds": 1.0}
        note(tmp_path, dag="psu", run=run, task=task, state=state, error="<b>" if state == "failed" else None, **facts)
    assert [(x["run"], x["state"], len(x["tasks"])) for x in runs(tmp_path)] == [("b", "failed", 2), ("a", "success", 1)]
    check = {"name": "lag", "value": 3.0, "limit": 1.0, "at": "most", "applies": True, "passed": False, "why": ""}
    report = {"looked": "2026-01-01T00:00:00+00:00", "passed": False, "sections": {"stream": {"checks": [check]}}}
    page = write(tmp_path, [report]).read_text()
    assert "look here" in page
    assert "two: &lt;b&gt;" in page
    assert "data:image/png" in page


def test_a_line_that_was_torn_costs_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "KEPT", 1)
    facts = {"dag": "d", "task": "t", "map_index": -1, "state": "success", "begun": None}
    note(tmp_path, run="a", **facts)
    with (tmp_path / "reports" / "runs.jsonl").open("a") as file:
        file.write('{"ended": "2026-01-01T00:0')
    note(tmp_path, run="b", **facts)
    assert {x["run"] for x in runs(tmp_path)} == {"a", "b"}
    assert trim(tmp_path) == 1
    assert [x["run"] for x in lines(tmp_path)] == ["b"]


FULL = """
import resource, signal, sys
from pathlib import Path
from features import alerts, journal

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (60, 60))
print(alerts.alert(Path(sys.argv[1]), "w" * 80)["what"])
journal.note(Path(sys.argv[1]), dag="d" * 80)
"""


def test_a_full_disk_leaves_no_part_of_a_line_and_is_said(tmp_path: Path) -> None:
    ran = subprocess.run([sys.executable, "-c", FULL, tmp_path], capture_output=True, text=True, timeout=60, check=False)
    assert "File too large" in (ran.stderr.splitlines() or [""])[-1]
    assert ran.stdout == "w" * 80 + "\n"  # whoever can be posted to is told
    assert [file.read_text() for file in (tmp_path / "reports" / "runs.jsonl", tmp_path / "alerts.jsonl")] == ["", ""]


def test_the_oldest_lines_go_when_there_are_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "KEPT", 3)
    for number in range(6):
        note(tmp_path, dag="d", run=str(number), task="t", map_index=-1, state="success", begun=None)
    assert trim(tmp_path) == 3
    assert [x["run"] for x in lines(tmp_path)] == ["3", "4", "5"]
    assert trim(tmp_path) == 0
