"""ALERTS: what an operator must know, appended to `<home>/alerts.jsonl` and posted as JSON to `SEMINAR_ALERT_URL`."""

import json
import logging
import os
import urllib.request
from datetime import UTC, datetime
from http.client import HTTPException
from pathlib import Path
from typing import Any

from features.settings import settings

log = logging.getLogger(__name__)


def alert(home: Path, what: str, **facts: Any) -> dict[str, Any]:
    """Keep an alert and post it; an address that does not answer is logged, and costs the alert nothing but the post."""
    entry = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "what": what, **facts}
    line = json.dumps(entry, default=str)
    home.mkdir(parents=True, exist_ok=True)
    with (home / "alerts.jsonl").open("a") as file:
        file.write(line + "\n")
        file.flush()
        os.fsync(file.fileno())
    if url := settings().alert_url:
        try:
            request = urllib.request.Request(url, line.encode(), {"Content-Type": "application/json"})
            urllib.request.urlopen(request, timeout=5).close()
        except (OSError, ValueError, HTTPException) as error:  # ValueError: an address without a scheme
            log.error("alert was not posted to %s: %s", url, error)
    return entry


def recent(home: Path, most: int = 50) -> list[dict[str, Any]]:
    """The newest alerts, newest first."""
    file = home / "alerts.jsonl"
    lines = file.read_text().splitlines()[-most:] if file.exists() else []
    return [json.loads(line) for line in reversed(lines)]
