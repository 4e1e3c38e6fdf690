"""The one contract by which PSU checkpoints, codebooks and bundles are published.

1. The version is built in a hidden folder beside its siblings.
2. It is checked there by loading it. A failure removes the folder and moves nothing.
3. Its files are synced, checksummed into SHA256SUMS, and READY is written last.
4. The folder is renamed to the next free number, v000001 and on: a number is taken once, by one publisher.
5. `point` replaces the pointer file atomically. Readers follow the pointer, so they see whole versions only.
"""

import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

from features.errors import SeminarError

READY = "READY"
SUMS = "SHA256SUMS"
POINTER = "current"


def publish(kind: Path, build: Callable[[Path], None], check: Callable[[Path], None] | None = None) -> str:
    """Build, check and publish one version below `kind`; the new version's name. The pointer stays where it is."""
    kind.mkdir(parents=True, exist_ok=True)
    aside = kind / f".building-{uuid.uuid4().hex}"
    aside.mkdir()
    try:
        build(aside)
        if check:
            check(aside)
        sums = checksums(aside)
        (aside / SUMS).write_text("".join(f"{digest}  {name}\n" for name, digest in sums.items()))
        (aside / READY).write_text("")
        for file in sorted(aside.rglob("*")):
            sync(file)
        sync(aside)
        return _rename(aside, kind)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def _rename(aside: Path, kind: Path) -> str:
    while True:
        version = f"v{max((int(name[1:]) for name in _numbered(kind)), default=0) + 1:06d}"
        try:
            os.rename(aside, kind / version)  # fails when a publisher took the number: a READY folder is never empty
        except OSError:
            if not (kind / version).exists():
                raise
            continue
        sync(kind)
        return version


def _numbered(kind: Path) -> list[str]:
    return [p.name for p in kind.iterdir() if re.fullmatch(r"v\d{6,}", p.name)] if kind.is_dir() else []


def versions(kind: Path) -> list[str]:
    """All published versions, oldest first."""
    return sorted(name for name in _numbered(kind) if (kind / name / READY).exists())


def path(kind: Path, version: str) -> Path:
    """The folder of a published version; SeminarError where it is missing or was not finished."""
    folder = kind / version
    if not (folder / READY).exists():
        known = ", ".join(versions(kind)[-3:]) or "none"
        raise SeminarError(f"{kind.name} version", version, "is not published", f"name one that is (newest: {known})")
    return folder


def verify(folder: Path) -> None:
    """Compare every file with SHA256SUMS; SeminarError names the first that is torn or missing."""
    listed = {}
    if (folder / SUMS).exists():
        listed = {name: digest for digest, name in (x.split("  ", 1) for x in (folder / SUMS).read_text().splitlines())}
    found = checksums(folder)
    for name in sorted(listed.keys() | found.keys()) or [SUMS]:
        if listed.get(name) != found.get(name):
            raise SeminarError("file", folder / name, "does not match its checksum", "publish this version again")


def checksums(folder: Path) -> dict[str, str]:
    """SHA-256 by file name, without the contract's own two files."""
    sums = {}
    for file in sorted(folder.rglob("*")):
        if file.is_file() and file.name not in (SUMS, READY):
            with file.open("rb") as stream:
                sums[str(file.relative_to(folder))] = hashlib.file_digest(stream, "sha256").hexdigest()
    return sums


def point(kind: Path, version: str) -> None:
    """Let readers see `version` from now on."""
    path(kind, version)
    aside = kind / f".{POINTER}-{uuid.uuid4().hex}"
    aside.write_text(version + "\n")
    sync(aside)
    os.replace(aside, kind / POINTER)
    sync(kind)


def current(kind: Path) -> str | None:
    """The version that the pointer names, or None before the first."""
    try:
        return (kind / POINTER).read_text().strip() or None
    except FileNotFoundError:
        return None


def sync(file: Path) -> None:
    """fsync a file or a folder: after it, a crash of the machine keeps what was written (or its name)."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
