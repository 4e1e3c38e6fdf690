"""JSON LINES: files to which several processes append whole lines, read whatever became of one of them.

A full disk or a killed process may leave part of a line: it is none, and costs no other.
"""

import contextlib
import fcntl
import json
import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)


def append(file: Path, entries: Iterable[Mapping[str, Any]]) -> None:
    """Append one line each, all or none, durably; OSError where they cannot be written."""
    lines = b"".join(json.dumps(entry, default=str).encode() + b"\n" for entry in entries)
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("ab+", buffering=0) as stream:  # a buffer would be written again when the file is closed
        fcntl.flock(stream, fcntl.LOCK_EX)
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(size - 1, 0))
        torn = stream.read(1) not in (b"", b"\n")  # a writer was killed in the middle of a line
        rest = b"\n" * torn + lines
        try:
            while rest:
                rest = rest[stream.write(rest) :]
            os.fsync(stream.fileno())
        except OSError:  # a full disk: half a line is none
            with contextlib.suppress(OSError):
                os.ftruncate(stream.fileno(), size)
            raise


def read(file: Path) -> list[dict[str, Any]]:
    """All lines, oldest first; [] where there is no file. What is no JSON object is passed over, and the log says so."""
    found = []
    for line in file.read_text(errors="replace").splitlines() if file.exists() else ():
        try:
            entry = json.loads(line)
        except ValueError:
            entry = None
        if isinstance(entry, dict):
            found.append(entry)
        else:
            log.warning("%s: a line that was torn is passed over", file)
    return found
