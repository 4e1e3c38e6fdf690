"""From which PSU pretraining starts: the served one, so that what a gate stopped leaves nothing behind, or none."""

from pathlib import Path
from typing import Any

from features.errors import SeminarError
from features.publish import current, versions
from model.train.lineage import facts, made_from


def start(home: Path, how: str, scratch_every: int, model: dict[str, Any]) -> str | None:
    """The PSU version to start from; None: from scratch.

    how: "warm" (SeminarError where it cannot), "scratch", or "auto": warm unless there is no PSU of these shapes, or
    `scratch_every` - 1 warm starts followed each other.
    """
    if how == "scratch":
        return None
    former = _former(home)
    said = facts(home / "psu", former) if former else {}
    if former is None or said["config"]["model"] != model:
        if how == "warm":
            raise SeminarError("start", former or "warm", "has other shapes or does not exist", "start from scratch")
        return None
    if how == "auto" and said.get("warm_starts", 0) >= scratch_every - 1:
        return None
    return former


def _former(home: Path) -> str | None:
    published, serving = versions(home / "psu"), current(home / "bundles")
    served = made_from(home, serving)["psu"] if serving else None
    return served if served in published else next(reversed(published), None)
