"""What a SEMINAR_HOME holds, and which command comes next."""

from pathlib import Path
from typing import Any

from features.history import EVENTS, ITEMS, read
from features.publish import current, versions


def look(home: Path) -> dict[str, Any]:
    """{"home", "state": {what: words}, "next": command}."""
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
        (events, "seminar history import FILE, or seminar topics apply and seminar consume"),
        (published["psu"], "seminar train psu"),
        (published["codebooks"], "seminar codebooks build"),
        (published["bundles"], "run the DAG ctr: it fine-tunes, exports and promotes a bundle"),
        (serving, f"seminar promote {(published['bundles'] or ['VERSION'])[-1]}"),
    ]
    return {"home": str(home), "state": state, "next": next((step for done, step in steps if not done), "seminar serve")}
