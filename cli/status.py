"""What a SEMINAR_HOME holds, and which command comes next."""

from pathlib import Path
from typing import Any

from cli.output import Output
from features.history import EVENTS, ITEMS, read
from features.publish import current, versions


def look(home: Path, bootstrap: str | None = None) -> dict[str, Any]:
    """{"home", "state": {what: words}, "stream": streaming.status.look or None, "next": command}."""
    applied = (home / "registry.db").exists()
    events = len(read(home, EVENTS, columns=["user_id"])) if applied else 0
    items = len(read(home, ITEMS, columns=["item"])) if applied else 0
    published = {kind: versions(home / kind) for kind in ("psu", "codebooks", "bundles")}
    serving = current(home / "bundles")
    state = {
        "home": str(home),
        "feature repository": "applied" if applied else "not applied",
        "history": f"{events:,} rows of events, {items:,} of items" if applied else "none",
        **{kind: f"{len(found)} versions, newest {found[-1]}" if found else "none" for kind, found in published.items()},
        "served bundle": serving or "none",
    }
    steps = [
        (applied, "seminar apply (or `make demo` for the whole tour)"),
        (events, "seminar history import (see --help; docs/your-own-data.md), or seminar topics apply and seminar consume"),
        (published["psu"], "seminar train psu"),
        (published["codebooks"], "seminar codebooks build"),
        (
            published["bundles"],
            "run the DAG ctr: it fine-tunes, exports and promotes a bundle (by hand: seminar train ctr, seminar export)",
        ),
        (serving, f"seminar promote {(published['bundles'] or ['VERSION'])[-1]}"),
    ]
    stream = None
    if applied:
        from features.online import Online
        from streaming.status import look as look_at_stream

        stream = look_at_stream(Online(), home, bootstrap)
    following = next((step for done, step in steps if not done), "seminar serve")
    if stream and stream["pending_erasures"]:
        following = "seminar forget --pending"
    return {"home": str(home), "state": state, "stream": stream, "next": following}


def show_stream(out: Output, stream: dict[str, Any]) -> None:
    """The stream's state as a table and a few lines."""
    if stream["partitions"]:
        columns = ["partition", "offset", "lag", "events_per_s", "age_s", "instance"]
        out.table(columns, [[x[name] for name in columns] for x in stream["partitions"]])
        out.line(f"lag {stream['lag']:,}, {stream['events_per_s']:,} events/s, oldest watermark {stream['freshness_s']} s")
    letters, made = stream["dead_letters"], stream["compaction"]
    out.line(f"online store: {stream['store']}")
    stream_letters = "?" if letters["stream"] is None else letters["stream"]
    out.line(f"dead letters: {letters['imports']} of imports, {stream_letters} of the stream")
    out.line(f"history: {made or 'never compacted'}; erasures to finish: {stream['pending_erasures']}")
