"""The gate between an exported bundle and the scorer, promotion and rollback.

Promotion is one replacement of the pointer file; the log of promotions (`promotions.jsonl` beside it) is what a rollback
reads. Both are safe to repeat: pointing to what is served already changes nothing.
"""

import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import model.bundle as bundles
from features.errors import SeminarError
from features.publish import current, path, point, sync, verify, versions

LOG = "promotions.jsonl"


@dataclass(frozen=True)
class Limits:
    """What a bundle must reach. GAUC is compared with the champion's own figure on its own test window."""

    gauc: float = 0.55
    gauc_loss: float = 0.01
    codes_recall: float = 0.9
    calibration: float = 0.25  # |mean predicted / observed rate - 1| on later impressions


def gate(home: Path, *, bundle: str, limits: Limits | None = None) -> dict[str, Any]:
    """Load a bundle as the scorer would and hold its figures against the limits.

    Returns {"bundle", "passed", "checks": [{"name", "value", "limit", "passed"}]}; a figure that is missing does not pass.
    """
    limits = limits or Limits()
    kind = home / "bundles"
    folder = path(kind, bundle)
    verify(folder)
    manifest = bundles.load(folder).manifest
    metrics = manifest["metrics"]
    champion = current(kind)
    least = limits.gauc
    if champion and champion != bundle:
        served = json.loads((path(kind, champion) / bundles.MANIFEST).read_text())["metrics"].get("gauc")
        least = max(least, served - limits.gauc_loss) if served is not None else least
    ratio = metrics.get("predicted_to_observed")
    checks = [
        _check("gauc", metrics.get("gauc"), round(least, 4), at_least=True),
        _check("codes_recall", metrics.get("codes_recall"), limits.codes_recall, at_least=True),
        _check("calibration", None if ratio is None else abs(ratio - 1), limits.calibration, at_least=False),
    ]
    return {"bundle": bundle, "passed": all(check["passed"] for check in checks), "checks": checks}


def _check(name: str, value: float | None, limit: float, *, at_least: bool) -> dict[str, Any]:
    passed = value is not None and (value >= limit if at_least else value <= limit)
    return {"name": name, "value": value, "limit": limit, "at": "least" if at_least else "most", "passed": passed}


def promote(home: Path, *, bundle: str, reason: str = "promoted") -> dict[str, Any]:
    """Point the scorers to a bundle, after checking that it is whole and loads; what was served before is logged."""
    kind = home / "bundles"
    folder = path(kind, bundle)
    verify(folder)
    bundles.load(folder)
    former = current(kind)
    if former != bundle:
        entry = {"time": datetime.now(UTC).isoformat(), "bundle": bundle, "former": former, "reason": reason}
        with (kind / LOG).open("a") as log:
            log.write(json.dumps(entry) + "\n")
            log.flush()
            os.fsync(log.fileno())
        sync(kind)
        point(kind, bundle)
    return {"bundle": bundle, "former": former}


def rollback(home: Path) -> dict[str, Any]:
    """Point back to what was served before the newest promotion of the current bundle."""
    kind = home / "bundles"
    serving = current(kind)
    log = kind / LOG
    entries = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    former = next((entry["former"] for entry in reversed(entries) if entry["bundle"] == serving), None)
    if former is None:
        known = ", ".join(versions(kind)) or "none"
        raise SeminarError("bundle", serving, "has no former version", f"name one: `seminar promote` ({known})")
    return promote(home, bundle=former, reason=f"rollback from {serving}")
