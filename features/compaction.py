"""COMPACTION: loose files of history merged into few sorted ones, published as the next version.

In each date the loose files are merged with those compacted files that are not much larger than they are: a date has a few
files of growing size, a late event does not rewrite all of its day, and every version holds all that there was. Two
compactors may run at once: one publishes, the other discards its files and starts again from there.

Files of a version are removed by `features.garbage` alone, after the grace period.
"""

import errno
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from features import garbage, snapshot, versions
from features.barrier import writing
from features.errors import SeminarError
from features.fences import Fences, fences
from features.history import QUERIES, SCHEMAS
from features.lost import lost as lost_files
from features.merging import merge
from features.versions import Manifest, Part, Stamp

GRACE_S = 3600
ATTEMPTS = 20
RATIO = 4
"""A compacted file is merged again when it is at most this many times as large as what is merged into it."""
TICK_S = 0.02
"""Longer than the tick of a file system's clock: a file written after that has another modification time."""


@dataclass(frozen=True)
class _Plan:
    """What is merged: one date of one table."""

    table: str
    day: str
    loose: dict[str, Stamp]
    compacted: list[str]


class _Lost(Exception):
    """Another compactor published, a fence was raised, or files went away meanwhile: start again."""


def compact(
    home: Path,
    grace_s: float = GRACE_S,
    keep: int = 1,
    rows_per_file: int | None = None,
    step: Callable[[str], None] = lambda name: None,
) -> dict[str, Any]:
    """Absorb all loose files into the next version, then remove garbage.

    keep: how many of the newest versions stay, whatever their age. rows_per_file: else as large as a table's rows allow.
    `step` is told the name of each step after it is done: plan, merge (each), files, manifest, garbage.

    Returns version (the newest now), published (whether this call made it), lost (how often another was first), by table
    the files and rows that went in and came out, and removed (garbage). SeminarError names a file that is torn, or that the
    newest version has lost; what was written then is discarded, and nothing removed.
    """
    tables: dict[str, dict[str, int]] = {}
    published, lost = None, 0
    while lost < ATTEMPTS:
        try:
            published, tables = _round(home, rows_per_file, step)
            break
        except (_Lost, FileNotFoundError):
            lost += 1
            _refuse_lost(home)
    if published:
        step("manifest")
    removed = garbage.collect(home, grace_s, keep)
    step("garbage")
    return {
        "version": versions.last(home),
        "published": published is not None,
        "lost": lost,
        "tables": tables,
        "removed": removed,
    }


def _refuse_lost(home: Path) -> None:
    """SeminarError where the newest version has lost a file: starting again would come to the same."""
    with versions.guard(home):
        for _, file in lost_files(home, filter(None, [versions.newest(home)])):
            raise SeminarError("history file", file, "is named by the newest version and is not there", snapshot.LOST_REMEDY)


def _round(
    home: Path, rows_per_file: int | None, step: Callable[[str], None]
) -> tuple[Manifest | None, dict[str, dict[str, int]]]:
    parent, fence = versions.newest(home), fences(home)
    parts, plans = dict[str, Part](), list[_Plan]()
    for table in SCHEMAS:
        found = dict(snapshot.loose(home / "history" / table))
        part = parent.of(table) if parent else Part()
        absorbed = {name: stamp for name, stamp in found.items() if part.absorbed.get(name) == stamp}
        parts[table] = Part(dict(part.files), absorbed)
        plans += _plans(table, part, {name: stamp for name, stamp in found.items() if name not in absorbed})
    if not plans:
        return None, {}
    step("plan")
    time.sleep(TICK_S)
    written, texts = list[Path](), dict[str, Stamp]()
    try:
        facts = {plan.table: dict.fromkeys(("loose", "rows_in", "rows", "files"), 0) for plan in plans}
        for plan in plans:
            if plan.table == QUERIES:
                texts |= _stamps(home / "history" / QUERIES, (*plan.loose, *plan.compacted))
            rows_in, files = _merge(home, plan, fence, rows_per_file, written)
            part, fact = parts[plan.table], facts[plan.table]
            for name in plan.compacted:
                del part.files[name]
            part.files.update(files)
            now = _stamps(home / "history" / plan.table, plan.loose)
            part.absorbed.update({name: stamp for name, stamp in plan.loose.items() if now.get(name) == stamp})
            fact["loose"] += len(plan.loose)
            fact["rows_in"] += rows_in
            fact["rows"] += sum(rows for rows, _ in files.values())
            fact["files"] += len(files)
            step("merge")
        step("files")
        manifest = _publish(home, parent, parts, fence, texts)
    except BaseException:
        for file in written:
            file.unlink(missing_ok=True)
        raise
    return manifest, facts


def _plans(table: str, part: Part, loose: dict[str, Stamp]) -> list[_Plan]:
    plans = []
    for day in sorted({name.partition("/")[0] for name in loose}):
        mine = {name: stamp for name, stamp in loose.items() if name.startswith(f"{day}/")}
        size, merged = sum(stamp[0] for stamp in mine.values()), []
        compacted = sorted((size, name) for name, (_, size) in part.files.items() if name.startswith(f"{day}/"))
        for more, name in compacted:
            if more > RATIO * size:
                break
            merged.append(name)
            size += more
        plans.append(_Plan(table, day, mine, merged))
    return plans


def _merge(
    home: Path, plan: _Plan, fence: Fences, rows_per_file: int | None, written: list[Path]
) -> tuple[int, dict[str, tuple[int, int]]]:
    folder = home / "history" / plan.table
    inputs = [folder / name for name in (*plan.compacted, *plan.loose)]
    try:
        rows_in, files = merge(plan.table, inputs, folder / plan.day, fence, rows_per_file, written)
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError) as error:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            raise
        snapshot.check(inputs, SCHEMAS[plan.table], error)
        raise _Lost(f"a file of {plan.day} was written again while it was read ({error})") from error
    return rows_in, {f"{plan.day}/{file.name}": (rows, file.stat().st_size) for file, rows in files}


def _stamps(folder: Path, names: Iterable[str]) -> dict[str, Stamp]:
    found = {}
    for name in names:
        try:
            stat = (folder / name).stat()
        except FileNotFoundError:
            continue
        found[name] = (stat.st_size, stat.st_mtime_ns)
    return found


@contextmanager
def _patiently(home: Path) -> Iterator[None]:
    """`writing`, waiting for an erasure that is at work."""
    with ExitStack() as held:
        for left in reversed(range(60)):
            try:
                held.enter_context(writing(home))
                break
            except SeminarError:
                if not left:
                    raise
        yield


def _publish(
    home: Path, parent: Manifest | None, parts: dict[str, Part], fence: Fences, texts: dict[str, Stamp]
) -> Manifest:
    # `writing`: an erasure sees this version whole, or this sees the fence that it raised.
    with _patiently(home), versions.guard(home):
        if fences(home) != fence:
            raise _Lost
        if _stamps(home / "history" / QUERIES, texts) != texts:
            raise _Lost  # an erasure may have taken a text that only the forgotten user had
        for table, part in parts.items():
            for name in part.files:
                if not (home / "history" / table / name).exists():
                    raise _Lost
        manifest = versions.publish(home, parent.version if parent else None, parts)
        if manifest is None:
            raise _Lost
        return manifest
