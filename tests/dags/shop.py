"""A home with a feature repository and a history of the small shop, and days that arrive by stream."""

import os
import shutil
import time
from pathlib import Path

from benchmarks.harness import days
from streaming.events import Event, Message
from streaming.topics import topic_of

SETTINGS = f"""{days.SMALL}ctr_epochs = 1
eval_targets = 60
users = 4

[release]
margin = 0.3
events = 0.5
calibration = 0.9
latency_ms = 5000.0

[health]
freshness_s = 86400.0
"""


def yesterday() -> int:
    """Its first ms (UTC)."""
    now = int(time.time() * 1000)
    return now - now % days.DAY_MS - days.DAY_MS


def make(home: Path, until_ms: int, length: int = 40, users: int = 24) -> None:
    """A home with the catalogue and `length` days before `until_ms`, imported; SEMINAR_HOME is set to it."""
    from features.repository import apply

    os.environ["SEMINAR_HOME"] = str(home)
    home.mkdir(parents=True, exist_ok=True)
    (home / "settings.toml").write_text(SETTINGS)
    apply()
    first = until_ms - length * days.DAY_MS
    past(home, days.catalogue(first))
    past(home, [event for i in range(length) for event in days.day(first + i * days.DAY_MS, users)])


def past(home: Path, events: list[Event]) -> None:
    """Import events."""
    from features.online import Online
    from streaming.deadletters import FileSink
    from streaming.importer import import_events

    import_events(events[0].id, events, Online(), home, FileSink(home))


def copy(home: Path, to: Path) -> None:
    """Another home that starts from what this one holds; SEMINAR_HOME is set to it."""
    from features.repository import apply

    shutil.copytree(home, to, ignore=shutil.ignore_patterns("airflow", "registry.db", "feature_store.yaml"))
    os.environ["SEMINAR_HOME"] = str(to)
    apply()


def stream(home: Path, events: list[Event]) -> None:
    """Apply events as the consumer does, and say how far the stream is."""
    from features.online import Online
    from features.state import Watermark, write_watermarks
    from streaming.apply import Applier
    from streaming.deadletters import FileSink

    online = Online()
    messages = [message(event, i) for i, event in enumerate(events)]
    if messages:
        Applier(online, home, FileSink(home)).apply(messages)
    write_watermarks(online, {"seminar.browse/0": Watermark(len(messages), int(time.time() * 1000))})


def message(event: Event, offset: int) -> Message:
    """An event as it comes from Kafka."""
    return event.message(topic_of(event.type), 0, offset)
