"""FENCES: users who asked to be forgotten, and until which time: what is older is dropped wherever it comes from.

    <home>/history/fences/<hash of the user>-<fence in ms>            done
    <home>/history/fences/<hash of the user>-<fence in ms>.pending    files with older rows may still be there

A fence is an empty file: its name is the whole fact, so that setting one is atomic, and the user's id is not kept here. Of
several the highest holds.
"""

import hashlib
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features.publish import sync

PENDING = ".pending"


@lru_cache(maxsize=1 << 18)
def user_hash(user_id: str) -> str:
    """Under which name a user's fence is kept."""
    return hashlib.blake2b(user_id.encode(), digest_size=16, person=b"fence").hexdigest()


@dataclass(frozen=True)
class Fences:
    """All fences of a home as they were read: ms by user hash."""

    by_hash: Mapping[str, int]

    def __bool__(self) -> bool:
        return bool(self.by_hash)

    def of(self, user_id: str) -> int:
        """Older events of this user are dropped; 0: none."""
        return self.by_hash.get(user_hash(user_id), 0) if self.by_hash else 0

    def of_all(self, user_ids: Iterable[str]) -> NDArray[np.int64]:
        """The fences [n] of n users."""
        return np.array([self.of(user) for user in user_ids], np.int64)


NONE = Fences({})


def fences(home: Path) -> Fences:
    """The fences now. Reading them again costs one `stat` while nothing has changed."""
    try:
        stamp = _folder(home).stat()
    except FileNotFoundError:
        return NONE
    if time.time_ns() - stamp.st_mtime_ns < 1_000_000_000:
        return _read_now(_folder(home))  # a change in the same tick of the file system's clock would not show
    return _read(str(_folder(home)), stamp.st_mtime_ns, stamp.st_ino)


@lru_cache(maxsize=4)
def _read(folder: str, *stamp: int) -> Fences:
    found: dict[str, int] = {}
    for name in os.listdir(folder):
        user, _, fence = name.removesuffix(PENDING).partition("-")
        found[user] = max(found.get(user, 0), int(fence))
    return Fences(found)


def raise_fence(home: Path, user: str, fence: int) -> None:
    """Set the fence of a user hash, durably, and note that files are still to be erased; a lower one changes nothing."""
    folder = _folder(home)
    folder.mkdir(parents=True, exist_ok=True)
    if _read_now(folder).by_hash.get(user, 0) >= fence:
        return
    (folder / f"{user}-{fence}{PENDING}").touch()
    sync(folder)


def pending(home: Path) -> dict[str, int]:
    """Fences (ms by user hash) whose older rows may still be in files."""
    folder = _folder(home)
    names = [x.removesuffix(PENDING).partition("-") for x in _names(folder) if x.endswith(PENDING)]
    return {user: max(int(f) for u, _, f in names if u == user) for user, _, _ in names}


def settle(home: Path, user: str, fence: int) -> None:
    """Note that no file holds anything older any more; lower fences of the user go."""
    folder = _folder(home)
    (folder / f"{user}-{fence}").touch()
    for name in _names(folder):
        owner, _, ms = name.removesuffix(PENDING).partition("-")
        if owner == user and int(ms) <= fence and name != f"{user}-{fence}":
            (folder / name).unlink(missing_ok=True)
    sync(folder)


def _folder(home: Path) -> Path:
    return home / "history" / "fences"


def _names(folder: Path) -> list[str]:
    return os.listdir(folder) if folder.is_dir() else []


def _read_now(folder: Path) -> Fences:
    return _read.__wrapped__(str(folder))
