"""Promotion and rollback of bundles; what they must pass is in `model.train.gate`.

Promotion is one replacement of the pointer file; the log of promotions (`promotions.jsonl` beside it) is what a rollback
reads. Both are safe to repeat: to promote what is pointed to already logs nothing, but writes the pointer anew, so that
scorers which refused it try again.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import model.bundle as bundles
from features.errors import SeminarError
from features.json_lines import append
from features.publish import current, path, point, sync, verify, versions
from model.train.lineage import LOG, promotions

ROLLBACK = "rollback from"


def promote(home: Path, *, bundle: str, reason: str = "promoted", champion: str | None = None) -> dict[str, Any]:
    """Point the scorers to a bundle, after checking that it is whole and loads; what was served before is logged.

    champion: the bundle that it was compared with, if any; SeminarError when another one is served meanwhile.
    """
    kind = home / "bundles"
    folder = path(kind, bundle)
    verify(folder)
    bundles.load(folder)
    former = current(kind)
    if champion is not None and former not in (champion, bundle):
        raise SeminarError("champion", former, f"is not the one that was compared ({champion})", "run the DAG ctr again")
    if former != bundle:
        entry = {"time": datetime.now(UTC).isoformat(), "bundle": bundle, "former": former, "reason": reason}
        append(kind / LOG, [entry])
        sync(kind)
    point(kind, bundle)
    return {"bundle": bundle, "former": former}


def formers(home: Path) -> Iterator[str]:
    """What rollbacks lead to from the bundle that is served, one after the other."""
    # A rollback is not what is rolled back: after it, another one goes further back, not forth again.
    moves = [entry for entry in promotions(home) if not entry["reason"].startswith(ROLLBACK)]
    before = {entry["bundle"]: entry["former"] for entry in moves}  # of a bundle the newest promotion holds
    bundle = current(home / "bundles")
    for _ in before:  # promotions may go round in a circle
        bundle = before.get(bundle)
        if bundle is None:
            return
        yield bundle


def rollback(home: Path, bundle: str | None = None) -> dict[str, Any]:
    """Point back to what was served before the newest promotion of the current bundle.

    bundle: the one that is to be withdrawn; SeminarError where another one is served by now.
    """
    kind = home / "bundles"
    serving = current(kind)
    if bundle is not None and serving != bundle:
        raise SeminarError("bundle", bundle, f"was withdrawn: {serving} is served", f"see bundles/{LOG}")
    former = next(formers(home), None)
    if former is None:
        known = ", ".join(versions(kind)) or "none"
        raise SeminarError("bundle", serving, "has no former version", f"name one: `seminar promote` ({known})")
    return promote(home, bundle=former, reason=f"{ROLLBACK} {serving}")


def withdraw(home: Path, bundle: str) -> str:
    """Roll back a bundle that is served by no scorer; what the pointer names now, in words. Never raises for its state."""
    if current(home / "bundles") == bundle and next(formers(home), None) is None:
        return "nothing was served before it, so the pointer stays"
    try:
        return f"{rollback(home, bundle)['bundle']} is pointed to again"
    except SeminarError as error:
        return f"it could not be rolled back ({error})"
