"""How far the stream is: freshness and lag by partition, dead letters, what is left to do; with or without a broker."""

import time
from pathlib import Path
from typing import Any

from features import versions
from features.errors import SeminarError
from features.fences import pending
from features.online import Online
from features.state import IdentityLost, check_identity, expected_identity, watermarks
from streaming import consumer
from streaming.deadletters import letters_in_file, letters_in_kafka


def look(online: Online, home: Path, bootstrap: str | None, group: str = "seminar") -> dict[str, Any]:
    """The stream's state: store, partitions, freshness_s, lag, events_per_s, dead_letters, compaction, pending_erasures.

    Of each partition: offset and lag (of the group in Kafka where a broker is named, else as the member last said), rate
    (messages a second), age_s (of the watermark: how long ago everything that had arrived was applied), instance.
    freshness_s: the oldest of these ages; None before the first watermark.
    """
    try:
        store = check_identity(online, home) if expected_identity(home) else "nothing applied yet"
    except IdentityLost as lost:
        store = str(lost)
    now, marks = time.time(), watermarks(online)
    behind = consumer.lag(bootstrap, group) if bootstrap else {}
    partitions: list[dict[str, Any]] = [
        {
            "partition": name,
            "offset": mark.offset,
            "lag": behind.get(name, mark.lag),
            "events_per_s": mark.rate,
            "age_s": round(max(0.0, now - mark.time_ms / 1000), 1),
            "instance": mark.instance,
        }
        for name, mark in sorted(marks.items())
    ] + [
        {"partition": name, "offset": None, "lag": lag, "events_per_s": 0.0, "age_s": None, "instance": ""}
        for name, lag in sorted(behind.items())
        if name not in marks
    ]
    letters = {"imports": len(letters_in_file(home)), "stream": len(letters_in_kafka(bootstrap)) if bootstrap else None}
    return {
        "store": store,
        "partitions": partitions,
        "freshness_s": max((x["age_s"] for x in partitions if x["age_s"] is not None), default=None),
        "lag": sum(x["lag"] for x in partitions),
        "events_per_s": round(sum(x["events_per_s"] for x in partitions), 1),
        "dead_letters": letters,
        "compaction": _compaction(home),
        "pending_erasures": len(pending(home)),
    }


def _compaction(home: Path) -> dict[str, Any] | None:
    """The newest version of history and its age."""
    try:
        newest = versions.newest(home)
    except SeminarError as torn:
        return {"version": None, "problem": str(torn)}
    return {"version": newest.version, "age_s": round(newest.age())} if newest else None
