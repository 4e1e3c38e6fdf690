"""Figures of the stages as JSON files in `<home>/reports`: what a page or a later run reads."""

import json
import math
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from features.publish import sync


def save(home: Path, name: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Write `<home>/reports/<name>.json`, replacing a former one atomically; what was written, as `plain` makes it."""
    file = home / "reports" / f"{name}.json"
    folder = file.parent
    folder.mkdir(parents=True, exist_ok=True)
    written: dict[str, Any] = plain(facts)
    aside = folder / f".{uuid.uuid4().hex}.tmp"
    try:
        aside.write_text(json.dumps(written, indent=1, allow_nan=False))
        sync(aside)
        os.replace(aside, file)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    sync(folder)
    return written


def load(home: Path, name: str) -> dict[str, Any] | None:
    """What `save` wrote last under this name, or None."""
    try:
        facts: dict[str, Any] = json.loads((home / "reports" / f"{name}.json").read_text())
    except FileNotFoundError:
        return None
    return facts


def plain(value: Any) -> Any:
    """The value in what every JSON reader and database takes: builtins only, a figure that is no number as None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, str | bool | int | None):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return plain(value.item()) if hasattr(value, "item") else str(value)
