"""LOST FILES: what a version of history names and is not there, because it was torn and moved aside, or never copied.

Nothing that the version holds can be read, compacted or pinned then. An empty file in its place, as an erasure may leave
one, makes the rest readable; what it held comes back from where else it is (`features.parity`, a replay).
"""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from features import versions
from features.erasure import replace
from features.history import SCHEMAS


def lost(home: Path, manifests: Iterable[versions.Manifest]) -> list[tuple[str, Path]]:
    """Table and file of what these versions name and is not there. The caller holds `versions.guard`."""
    tables = [x for manifest in manifests for x in manifest.tables.items()]
    named = {(table, home / "history" / table / name) for table, part in tables for name in part.files}
    return sorted(x for x in named if not x[1].exists())


def stand_in(home: Path) -> list[Path]:
    """Put an empty file in the place of each that is lost; which. Loose files that it stood for and that are still there
    are history again.
    """
    with versions.guard(home):
        manifests = versions.every(home)
        gone = lost(home, manifests)
        for table, file in gone:
            file.parent.mkdir(parents=True, exist_ok=True)
            replace(file, SCHEMAS[table].empty_table())
            for name in manifests[-1].of(table).absorbed:
                if name.startswith(f"{file.parent.name}/"):
                    with suppress(FileNotFoundError):
                        os.utime(home / "history" / table / name)  # as if written again: read, and compacted again
        return [file for _, file in gone]
