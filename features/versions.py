"""VERSIONS of history: manifests, each published whole by exclusive creation.

    <home>/history/versions/v000001.json          which compacted files hold what, and which loose ones they stand for
    <home>/history/versions/v000001.pin-<who>     an empty file: the version is kept while it is there

A version is taken once, by one publisher: the loser of a race sees its number taken. Readers take the newest.
"""

import fcntl
import json
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from features.errors import SeminarError
from features.publish import sync

Stamp = tuple[int, int]
"""Size and modification time (ns) of a file: what tells a file from one that was written again under its name."""


@dataclass(frozen=True)
class Part:
    """One table of a version. Names are relative to the table's folder.

    files: (rows, bytes) of each compacted file when it was written. absorbed: loose files whose rows they hold.
    """

    files: dict[str, tuple[int, int]] = field(default_factory=dict)
    absorbed: dict[str, Stamp] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """A version as it was published. created: RFC 3339, UTC. parent: the version that it was made from."""

    version: str
    created: str
    parent: str | None
    tables: dict[str, Part]

    def of(self, table: str) -> Part:
        """The files of a table; empty where the version has none."""
        return self.tables.get(table, Part())

    def age(self) -> float:
        """Seconds since it was published."""
        return (datetime.now(UTC) - datetime.fromisoformat(self.created)).total_seconds()


def folder(home: Path) -> Path:
    """Where the manifests are."""
    return home / "history" / "versions"


def names(home: Path) -> list[str]:
    """All published versions, oldest first."""
    try:
        found = os.listdir(folder(home))
    except FileNotFoundError:
        return []
    return sorted((x[:-5] for x in found if re.fullmatch(r"v\d{6,}\.json", x)), key=lambda name: int(name[1:]))


def last(home: Path) -> str | None:
    """The newest version, or None before the first."""
    return next(reversed(names(home)), None)


def load(home: Path, version: str) -> Manifest:
    """A published manifest; SeminarError where there is none (any more) or it is torn."""
    file = folder(home) / f"{version}.json"
    try:
        content = json.loads(file.read_text()) if re.fullmatch(r"v\d{6,}", version) else None
        if content is None:
            raise FileNotFoundError
        tables = {
            name: Part(
                {file: (rows, size) for file, (rows, size) in part["files"].items()},
                {file: (size, time) for file, (size, time) in part["absorbed"].items()},
            )
            for name, part in content["tables"].items()
        }
        return Manifest(content["version"], content["created"], content["parent"], tables)
    except FileNotFoundError:
        known = ", ".join(names(home)[-3:]) or "none"
        raise SeminarError("history version", version, "is not published", f"name one that is (newest: {known})") from None
    except (ValueError, KeyError, TypeError) as error:
        raise SeminarError(
            "history version", file, f"is torn ({error})", "move it aside: the version before it holds, with all loose files"
        ) from error


def newest(home: Path) -> Manifest | None:
    """The manifest that readers take, or None before the first."""
    while version := last(home):
        try:
            return load(home, version)
        except SeminarError:
            if version in names(home):
                raise
    return None


def every(home: Path) -> list[Manifest]:
    """All published manifests, oldest first."""
    found = []
    for version in names(home):
        try:
            found.append(load(home, version))
        except SeminarError:
            if version in names(home):
                raise
    return found


def publish(home: Path, parent: str | None, tables: dict[str, Part]) -> Manifest | None:
    """Publish the version after `parent`, durably; None when another one was published meanwhile.

    The caller holds `guard`, so that no file that the manifest names is removed as garbage before it is published.
    """
    place = folder(home)
    if not place.exists():
        place.mkdir(parents=True, exist_ok=True)
        sync(place.parent)
    if last(home) != parent:  # also where the number has been taken and removed again
        return None
    number = int(parent[1:]) + 1 if parent else 1
    manifest = Manifest(f"v{number:06d}", datetime.now(UTC).isoformat(), parent, tables)
    counts = {name: {"files": len(x.files), "rows": sum(rows for rows, _ in x.files.values())} for name, x in tables.items()}
    aside = place / f".{uuid.uuid4().hex}.tmp"
    try:
        aside.write_text(json.dumps(asdict(manifest) | {"counts": counts}))
        sync(aside)
        os.link(aside, place / f"{manifest.version}.json")
    except FileExistsError:
        return None
    finally:
        aside.unlink(missing_ok=True)
    sync(place)
    return manifest


@contextmanager
def guard(home: Path, alone: bool = False) -> Iterator[None]:
    """Shared by who puts files into place, taken alone by who removes them; held for milliseconds.

    A batch may be written again under its name between the look at a file and its removal: not while this is held.
    """
    place = home / "history"
    place.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(place / ".files.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


def pin(home: Path, version: str, who: str) -> None:
    """Keep a version's files until `unpin`; SeminarError where they are gone already."""
    name = _pin(version, who)
    with guard(home):
        manifest = load(home, version)
        for table, part in manifest.tables.items():
            for file in part.files:
                if not (home / "history" / table / file).exists():
                    raise SeminarError("history version", version, "has lost files", "pin the newest version")
        (folder(home) / name).touch()
        sync(folder(home))


def unpin(home: Path, version: str, who: str) -> None:
    """Let a version go; nothing where it was not pinned."""
    with suppress(FileNotFoundError):
        (folder(home) / _pin(version, who)).unlink()
        sync(folder(home))


def pins(home: Path) -> dict[str, list[str]]:
    """Who holds which version."""
    found: dict[str, list[str]] = {}
    for file in sorted(folder(home).glob("v*.pin-*")):
        version, _, who = file.name.partition(".pin-")
        found.setdefault(version, []).append(who)
    return found


def _pin(version: str, who: str) -> str:
    if not re.fullmatch(r"[\w.=:+-]{1,200}", who):
        raise SeminarError("who", who, "is no plain name", "use letters, digits and .=:+-_")
    return f"{version}.pin-{who}"
