"""BARRIER: batches that are being applied against an erasure that must see all of them or none.

Whoever writes history holds it shared for a batch; an erasure takes it alone. Locks of the kernel (flock): a killed holder
lets go. They reach as far as the file system's locks do, that is, one machine or a shared file system that has them.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from features.errors import SeminarError

PATIENCE = 1.0
"""s that a writer waits before it gives the batch up, to try again later."""


@contextmanager
def writing(home: Path) -> Iterator[None]:
    """Held while a batch is applied; SeminarError when an erasure takes longer than `PATIENCE`."""
    with ExitStack() as batch:
        # The gate is closed while somebody waits to be alone, and passed only: writers that overlap would never let it in.
        with _lock(home, "gate", fcntl.LOCK_SH, PATIENCE):
            batch.enter_context(_lock(home, "batch", fcntl.LOCK_SH, PATIENCE))
        yield


@contextmanager
def alone(home: Path, patience: float = 600) -> Iterator[None]:
    """Nobody applies a batch meanwhile; SeminarError when one in hand does not end within `patience` s."""
    with _lock(home, "gate", fcntl.LOCK_EX, patience), _lock(home, "batch", fcntl.LOCK_EX, patience):
        yield


@contextmanager
def erasing(home: Path, patience: float = 600) -> Iterator[None]:
    """One erasure at a time, whole: two would take each other's notes for their own."""
    with _lock(home, "erasing", fcntl.LOCK_EX, patience):
        yield


@contextmanager
def _lock(home: Path, name: str, kind: int, patience: float) -> Iterator[None]:
    folder = home / "history"
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / f".{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    deadline = time.monotonic() + patience
    try:
        while True:
            try:
                fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise SeminarError(
                        "history", folder, "is being rewritten or written by another process", "try again when it is done"
                    ) from None
                time.sleep(0.01)
        yield
    finally:
        os.close(descriptor)
