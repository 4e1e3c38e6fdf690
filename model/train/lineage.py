"""LINEAGE: from a served bundle back to its checkpoint, codebooks, PSU, the history partitions they read, and the code."""

import json
import platform
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from features import versions
from features.errors import SeminarError
from features.json_lines import read
from features.publish import current, path
from features.settings import REPOSITORY
from model.bundle import MANIFEST

LOG = "promotions.jsonl"
FACTS = {"psu": "checkpoint.json", "codebooks": "codebooks.json", "catalogue": "catalogue.json", "bundles": MANIFEST}
"""Which file of a published version says what it was made from."""


@cache
def code() -> dict[str, Any]:
    """The code that runs: package version, git commit (None outside a checkout) and whether files differ from it."""
    found: dict[str, Any] = {"seminar": version("seminar"), "torch": version("torch"), "python": platform.python_version()}
    try:
        commit = _git("rev-parse", "HEAD")
        return found | {"commit": commit.strip(), "changed": bool(_git("status", "--porcelain", "-uno").strip())}
    except (OSError, subprocess.SubprocessError):
        return found | {"commit": None, "changed": None}


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(REPOSITORY), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout


def facts(kind: Path, name: str) -> dict[str, Any]:
    """What a published PSU, codebooks, catalogue or bundle says of itself."""
    found: dict[str, Any] = json.loads((path(kind, name) / FACTS[kind.name]).read_text())
    return found


def promotions(home: Path) -> list[dict[str, Any]]:
    """Every move of the pointer, oldest first: time, bundle, former, reason."""
    return read(home / "bundles" / LOG)


def made_from(home: Path, bundle: str) -> dict[str, str | None]:
    """{"psu", "codebooks", "checkpoint", "history"} of a bundle; None for what it does not say."""
    found = facts(home / "bundles", bundle).get("lineage", {})
    return {name: found.get(name) for name in ("psu", "codebooks", "checkpoint", "history")}


def lineage(home: Path, bundle: str | None = None) -> dict[str, Any]:
    """All that a bundle (else the served one) came from; SeminarError where there is none.

    `history.partitions`: rows of each table by the date of the events. A version that was pruned says so instead.
    """
    name = bundle or current(home / "bundles")
    if name is None:
        raise SeminarError("bundle", "", "is not served yet", "name one, or promote one")
    manifest = facts(home / "bundles", name)
    origin = manifest.get("lineage", {})
    return {
        "bundle": name,
        "served": current(home / "bundles") == name,
        "created": manifest.get("created"),
        "promotions": [x for x in promotions(home) if name in (x["bundle"], x["former"])],
        "metrics": manifest.get("metrics"),
        "windows": manifest.get("windows"),
        "labels": manifest.get("labels"),
        "code": origin.get("code") or {key: origin.get(key) for key in ("seminar", "torch", "python")},
        "checkpoint": origin.get("checkpoint"),
        "codebooks": _stage(home / "codebooks", origin.get("codebooks"), ("recall", "chosen", "windows", "history", "seed")),
        "psu": _stage(home / "psu", origin.get("psu"), ("losses", "warm", "data", "windows", "history", "seed")),
        "history": _history(home, origin.get("history")),
    }


def _stage(kind: Path, name: str | None, fields: tuple[str, ...]) -> dict[str, Any]:
    try:
        found = facts(kind, name) if name else {}
    except SeminarError as pruned:
        return {"version": name, "problem": str(pruned)}
    return {"version": name, **{field: found.get(field) for field in fields}}


def _history(home: Path, name: str | None) -> dict[str, Any]:
    if name is None:
        return {"version": None, "problem": "it was trained on history as it was, not on a version"}
    try:
        manifest = versions.load(home, name)
    except SeminarError as gone:
        return {"version": name, "problem": str(gone)}
    partitions: dict[str, dict[str, int]] = {}
    for table, part in sorted(manifest.tables.items()):
        for file, (rows, _) in part.files.items():
            day = partitions.setdefault(file[len("date=") : len("date=2026-01-01")], {})
            day[table] = day.get(table, 0) + rows
    return {"version": name, "created": manifest.created, "partitions": dict(sorted(partitions.items()))}
