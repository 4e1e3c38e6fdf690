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


def test_the_oldest_lines_go_when_there_are_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "KEPT", 3)
    for number in range(6):
        note(tmp_path, dag="d", run=str(number), task="t", map_index=-1, state="success", begun=None)
    assert trim(tmp_path) == 3
    assert [x["run"] for x in lines(tmp_path)] == ["3", "4", "5"]
    assert trim(tmp_path) == 0
