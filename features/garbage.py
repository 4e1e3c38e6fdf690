"""GARBAGE of history: what no reader can need any more, removed after a grace period.

Kept: the newest version, those younger than the grace period, the one that was the newest when it began, the newest
`keep`, and every pinned one, each with its files. Loose files go when a version that absorbed them is older than that.
"""

import time
from pathlib import Path

from features import snapshot, versions

TEMPORARY_S = 86_400
"""Age at which a writer's temporary file is certainly not being written any more."""
STEP = 500
"""Files removed under one hold of the guard: writers wait for it."""


def collect(home: Path, grace_s: float, keep: int = 1) -> dict[str, int]:
    """Remove garbage; how many files of each kind went: loose, compacted, temporary, versions."""
    removed = {"loose": _loose(home, grace_s)}
    now = time.time()
    found = [
        (kind, file)
        for kind, pattern, age in (
            ("compacted", f"*/date=*/{snapshot.COMPACT}*.parquet", grace_s),
            ("temporary", f"*/date=*/.{snapshot.COMPACT}*.tmp", grace_s),
            ("temporary", "*/date=*/.*.tmp", max(grace_s, TEMPORARY_S)),
            ("temporary", "versions/.*.tmp", max(grace_s, TEMPORARY_S)),
        )
        for file in (home / "history").glob(pattern)
        if _older(file, now - age)
    ]
    with versions.guard(home, alone=True):
        manifests = versions.every(home)
        kept = _kept(manifests, set(versions.pins(home)), grace_s, keep)
        named = {home / "history" / table / name for m in kept for table, part in m.tables.items() for name in part.files}
        for kind, file in found:
            if file not in named:
                removed[kind] = removed.get(kind, 0) + _unlink(file)
        gone = [versions.folder(home) / f"{manifest.version}.json" for manifest in manifests if manifest not in kept]
        removed["versions"] = sum(map(_unlink, gone))
    return {kind: removed.get(kind, 0) for kind in ("loose", "compacted", "temporary", "versions")}


def _kept(manifests: list[versions.Manifest], pinned: set[str], grace_s: float, keep: int) -> list[versions.Manifest]:
    base = _base(manifests, grace_s)
    newest = {m.version for m in manifests[-max(keep, 1) :]}
    return [m for m in manifests if m is base or m.age() < grace_s or m.version in pinned | newest]


def _base(manifests: list[versions.Manifest], grace_s: float) -> versions.Manifest | None:
    """The version that was the newest one when the grace period began: its readers may still be reading."""
    return next((m for m in reversed(manifests) if m.age() >= grace_s), None)


def _loose(home: Path, grace_s: float) -> int:
    manifests = versions.every(home)
    base = _base(manifests, grace_s)
    if base is None:
        return 0
    removed = 0
    for table, part in base.tables.items():
        # Who absorbs names what was there: what the newest version does not name any more is gone or was written again.
        newest, folder = manifests[-1].of(table).absorbed, home / "history" / table
        names = [name for name, stamp in part.absorbed.items() if newest.get(name) == stamp]
        for start in range(0, len(names), STEP):
            with versions.guard(home, alone=True):
                for name in names[start : start + STEP]:
                    removed += _remove(folder / name, part.absorbed[name])
    return removed


def _remove(file: Path, stamp: versions.Stamp) -> int:
    try:
        stat = file.stat()
    except FileNotFoundError:
        return 0
    if (stat.st_size, stat.st_mtime_ns) != stamp:
        return 0  # written again after it was absorbed: perhaps with more rows
    return _unlink(file)


def _unlink(file: Path) -> int:
    """1 where this removed it, 0 where it was gone: a compactor that was second discards its files without the guard."""
    try:
        file.unlink()
    except FileNotFoundError:
        return 0
    return 1


def _older(file: Path, moment: float) -> bool:
    try:
        return file.stat().st_mtime <= moment
    except FileNotFoundError:
        return False
