"""JOURNAL of DAG runs: a line for every task that ended, in `<home>/reports/runs.jsonl`, grouped by run on reading."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from features.json_lines import append, read

KEPT = 5_000
"""Lines; when there are twice as many the older half goes."""


def note(home: Path, **facts: Any) -> None:
    """Append one line: dag, run, task, map_index, attempt, state, begun, seconds, error; OSError where the disk is full."""
    append(_file(home), [{"ended": datetime.now(UTC).isoformat(), **facts}])


def lines(home: Path) -> list[dict[str, Any]]:
    """All lines, oldest first."""
    return read(_file(home))


def runs(home: Path, most: int = 100) -> list[dict[str, Any]]:
    """The newest runs, newest first: {"dag", "run", "state", "begun", "ended", "seconds", "tasks": [lines]}.

    state: "failed" when the newest try of any of its tasks failed; else "success" as far as its tasks have ended.
    """
    found: dict[tuple[str, str], dict[tuple[str, int], dict[str, Any]]] = {}
    for line in lines(home):
        found.setdefault((line["dag"], line["run"]), {})[line["task"], line["map_index"]] = line
    rows = []
    for (dag, run), tasks in found.items():
        ends = [x["ended"] for x in tasks.values()]
        begins = [x["begun"] for x in tasks.values() if x["begun"]]
        state = "failed" if any(x["state"] == "failed" for x in tasks.values()) else "success"
        begun, ended = min(begins, default=min(ends)), max(ends)
        seconds = (datetime.fromisoformat(ended) - datetime.fromisoformat(begun)).total_seconds()
        row = {"dag": dag, "run": run, "state": state, "begun": begun, "ended": ended, "seconds": round(seconds, 1)}
        rows.append(row | {"tasks": list(tasks.values())})
    return sorted(rows, key=lambda row: str(row["ended"]), reverse=True)[:most]


def trim(home: Path) -> int:
    """Drop the oldest lines when there are too many; how many went."""
    known = lines(home)
    if len(known) < 2 * KEPT:
        return 0
    file = _file(home)
    aside = file.with_suffix(".tmp")
    aside.write_text("".join(json.dumps(line) + "\n" for line in known[-KEPT:]))
    os.replace(aside, file)
    return len(known) - KEPT


def _file(home: Path) -> Path:
    return home / "reports" / "runs.jsonl"
