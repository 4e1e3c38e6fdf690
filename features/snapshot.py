"""Which files are history now, or were at a version; and scanning them while others write, compact and clear away.

Now: the files of the newest manifest and every loose file that it has not absorbed. A loose file that was written again
since is read beside its first rows: the union on reading drops what repeats. Compacted files that the manifest does not
name are half-published or superseded, and not looked at.
"""

import errno
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.dataset as ds

from features import versions
from features.errors import SeminarError

T = TypeVar("T")
COMPACT = "compact-"
TRIES = 50
LOST_REMEDY = "run `seminar history parity --repair`: the rest is read again, and what is online written back"


def files(
    home: Path, table: str, version: str | None = None, since_ms: int | None = None, until_ms: int | None = None
) -> list[Path]:
    """The files of a table now, or exactly those of a version, in whose dates events of [since, until) may be."""
    folder, dates = home / "history" / table, (_date(since_ms, ""), _date(until_ms, "~"))
    if version is not None:
        return [folder / name for name in versions.load(home, version).of(table).files if _within(name, dates)]
    for _ in range(TRIES):
        manifest = versions.newest(home)
        part = manifest.of(table) if manifest else versions.Part()
        found = [name for name in part.files if _within(name, dates)]
        found += [name for name, stamp in loose(folder, dates) if part.absorbed.get(name) != stamp]
        # What a newer version has absorbed may be gone from the folder, and is not in this one's files.
        if versions.last(home) == (manifest.version if manifest else None):
            return [folder / name for name in sorted(found)]
    raise SeminarError("history", folder, "changes faster than it can be listed", "compact less often")


def loose(folder: Path, dates: tuple[str, str] = ("", "~")) -> Iterator[tuple[str, versions.Stamp]]:
    """Name and stamp of each file that a batch wrote."""
    for day in _entries(folder):
        if day.name.startswith("date=") and _within(day.name, dates):
            for file in _entries(folder / day.name):
                if file.name.endswith(".parquet") and not file.name.startswith((".", COMPACT)):
                    try:
                        stat = file.stat()
                    except FileNotFoundError:
                        continue  # absorbed and cleared away: the look at the versions tells
                    yield f"{day.name}/{file.name}", (stat.st_size, stat.st_mtime_ns)


def scan(
    home: Path,
    table: str,
    schema: pa.Schema,
    take: Callable[[ds.Dataset], T],
    version: str | None = None,
    since_ms: int | None = None,
    until_ms: int | None = None,
) -> T:
    """What `take` makes of the files. It is called again where one was cleared away before it was read.

    SeminarError names a file that is torn, and a version whose files are gone.
    """
    for _ in range(TRIES):
        found = files(home, table, version, since_ms, until_ms)
        try:
            return take(ds.dataset([str(file) for file in found], schema=schema, format="parquet"))
        except FileNotFoundError as error:
            if version is not None:
                raise SeminarError(
                    "history version", version, f"has lost a file ({error})", "pin a version before its grace period ends"
                ) from error
        except (pa.ArrowException, OSError) as error:
            # Where no file is torn, one was written again between its footer and its pages.
            check(found, schema, error)
    missing = next((file for file in files(home, table) if not file.exists()), None)
    if missing:
        raise SeminarError(
            "history version",
            versions.folder(home) / f"{versions.last(home)}.json",
            f"names a file that is not there ({missing.parent.name}/{missing.name})",
            LOST_REMEDY,
        )
    raise SeminarError("history", home / "history" / table, "loses files while it is read", "give compaction a longer grace")


def check(found: list[Path], schema: pa.Schema, error: Exception) -> None:
    """Find out what made reading fail: SeminarError names the first file that cannot be read, now that all are tried.

    What has nothing to do with files (memory) is raised as it came.
    """
    if isinstance(error, MemoryError):
        raise error
    for file in found:
        try:
            for _ in ds.dataset([str(file)], schema=schema, format="parquet").to_batches():
                pass
        except FileNotFoundError:
            continue
        except (pa.ArrowException, OSError) as bad:
            what = str(bad).splitlines()[0][:120]
            if getattr(bad, "errno", None) not in (None, errno.EIO):
                remedy = "look at the disk and the permissions, then run again"
                raise SeminarError("history file", file, f"cannot be read ({what})", remedy) from bad
            remedy = "move it aside, then run `seminar history parity --repair` or `seminar replay`"
            raise SeminarError("history file", file, f"is torn or not of its table ({what})", remedy) from bad


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _date(ms: int | None, open_end: str) -> str:
    return open_end if ms is None else f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d}"


def _within(name: str, dates: tuple[str, str]) -> bool:
    return dates[0] <= name[5:15] <= dates[1]
