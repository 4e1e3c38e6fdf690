"""ALERTS: what an operator must know, appended to `<home>/alerts.jsonl` and posted as JSON to `SEMINAR_ALERT_URL`."""

import json
import logging
import urllib.request
from datetime import UTC, datetime
from http.client import HTTPException
from pathlib import Path
from typing import Any

from features.json_lines import append, read
from features.settings import settings

log = logging.getLogger(__name__)


def alert(home: Path, what: str, **facts: Any) -> dict[str, Any]:
    """Keep an alert and post it; a disk that is full costs only the keeping, an address that does not answer only the post:
    both are logged.
    """
    entry = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "what": what, **facts}
    try:
        append(home / "alerts.jsonl", [entry])
    except OSError as error:  # a full disk is what somebody must hear of
        log.error("alert was not kept: %s", error)
    if url := settings().alert_url:
        try:
            body = json.dumps(entry, default=str).encode()
            request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
            urllib.request.urlopen(request, timeout=5).close()
        except (OSError, ValueError, HTTPException) as error:  # ValueError: an address without a scheme
            log.error("alert was not posted to %s: %s", url, error)
    return entry


def recent(home: Path, most: int = 50) -> list[dict[str, Any]]:
    """The newest alerts, newest first."""
    return read(home / "alerts.jsonl")[-most:][::-1]
