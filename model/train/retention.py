"""RETENTION: what no live version points to goes, after a grace period; what one points to never does.

Live are the served bundle, those that rollbacks lead to, and the newest of each kind; with the checkpoint, the codebooks,
the PSU and the history version that each was made from. A version disappears by one renaming.
"""

import re
import shutil
import time
from itertools import islice
from pathlib import Path
from typing import Any

from features import versions as history
from features.errors import SeminarError
from features.publish import current, path, versions
from model.train.lineage import FACTS, facts
from model.train.release import formers

KEEP = 3
GRACE_S = 86_400
RUN_S = 7 * 86_400
"""How long a run may go on that pinned a version of history."""
WHO = "live"
KINDS = ("bundles", "catalogue", "codebooks", "psu")  # who points comes before whom it points to


def live(home: Path, keep: int = KEEP) -> dict[str, set[str]]:
    """Names by kind (bundles, catalogue, codebooks, psu, checkpoints, history) that must stay."""
    found: dict[str, set[str]] = {kind: set(versions(home / kind)[-keep:]) for kind in KINDS}
    found |= {"checkpoints": set(), "history": set()}
    serving = current(home / "bundles")
    found["bundles"] |= {serving} if serving else set()
    found["bundles"] |= set(islice(formers(home), keep))
    found["bundles"] &= set(versions(home / "bundles"))
    for pointer in ("psu", "codebooks", "catalogue"):
        if name := current(home / pointer):
            found[pointer].add(name)
    for kind in KINDS:
        for name in sorted(found[kind]):
            try:
                said = facts(home / kind, name)
            except SeminarError:
                continue  # pruned by an earlier run of other settings
            said = said.get("lineage", said)
            for other, key in (("codebooks",) * 2, ("psu",) * 2, ("checkpoints", "checkpoint"), ("history",) * 2):
                if said.get(key):
                    found[other].add(said[key])
    return found


def prune(home: Path, keep: int = KEEP, grace_s: float = GRACE_S, dry: bool = False) -> dict[str, Any]:
    """Remove what is not live and older than the grace period, and hold the history versions that are.

    dry: say what would go, and change nothing. Returns {"removed": {kind: [names]}, "live": {kind: [names]}, "pinned",
    "released"}.
    """
    stay = live(home, keep)
    removed: dict[str, list[str]] = {}
    for kind in KINDS:
        removed[kind] = [
            name for name in versions(home / kind) if name not in stay[kind] and _old(home / kind / name, grace_s)
        ]
    checkpoints = home / "checkpoints"
    folders = sorted(x.name for x in checkpoints.iterdir() if not x.name.startswith(".")) if checkpoints.is_dir() else []
    removed["checkpoints"] = [x for x in folders if x not in stay["checkpoints"] and _old(checkpoints / x, grace_s)]
    if not dry:
        for kind, names in removed.items():
            for name in names:
                _remove(home / kind / name)
            for left in (home / kind).glob(".removing-*"):  # by a run that was killed
                shutil.rmtree(left, ignore_errors=True)
            for left in (home / kind).glob(".building-*"):  # likewise; none is built for so long
                if _old(left, GRACE_S):
                    shutil.rmtree(left, ignore_errors=True)
    pinned, released = _hold(home, stay["history"], dry)
    return {
        "removed": removed,
        "live": {kind: sorted(names) for kind, names in stay.items()},
        "pinned": pinned,
        "released": released,
    }


def _hold(home: Path, wanted: set[str], dry: bool) -> tuple[list[str], list[str]]:
    """Pin the wanted versions of history; let go the others, and pins of runs that are long over."""
    held = history.pins(home)
    pinned = sorted(name for name in wanted if WHO not in held.get(name, ()) and name in history.names(home))
    released = []
    for version, holders in held.items():
        for who in holders:
            file = history.folder(home) / f"{version}.pin-{who}"
            if (who == WHO and version not in wanted) or (who.startswith("run-") and _old(file, RUN_S)):
                released.append(f"{version}.pin-{who}")
    if not dry:
        for name in pinned:
            history.pin(home, name, WHO)
        for entry in released:
            version, _, who = entry.partition(".pin-")
            history.unpin(home, version, who)
    return pinned, released


def hold_for_run(home: Path, version: str, run: str) -> str:
    """Pin a version of history for a run; by whom it is held."""
    who = "run-" + re.sub(r"[^\w.=:+-]", "_", run)[:180]
    history.pin(home, version, who)
    return who


def checkpoint_of(home: Path, bundle: str) -> Path | None:
    """The folder of the checkpoint that a bundle was exported from; None where it is gone."""
    path(home / "bundles", bundle)
    name = facts(home / "bundles", bundle).get("lineage", {}).get("checkpoint")
    folder = home / "checkpoints" / str(name)
    return folder if name and (folder / FACTS["psu"]).exists() else None


def _old(file: Path, age_s: float) -> bool:
    try:
        return file.stat().st_mtime <= time.time() - age_s
    except FileNotFoundError:
        return False


def _remove(folder: Path) -> None:
    aside = folder.with_name(f".removing-{folder.name}")
    try:
        folder.rename(aside)
    except FileNotFoundError:
        return  # by another run
    shutil.rmtree(aside, ignore_errors=True)
