"""What each worker serves and refuses, in memory that they share: whichever worker is asked for it tells of all.

Made before the workers are forked, like their counters. Each worker writes its own slot, with a checksum, so that nobody
waits: a slot that is being written says nothing at that moment.
"""

import json
import mmap
import struct
import zlib

from model.serve.answers import Serving

_SLOT, _REASON, _VERSION = 8192, 1000, 100
"""Bytes of a slot, and characters of what is kept: of at most 6 bytes each, they fit."""
_HEAD = struct.Struct("<II")  # checksum and length of the body


class Board:
    """A slot a worker."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._memory = mmap.mmap(-1, workers * _SLOT)

    def write(self, worker: int, version: str | None, refused: dict[str, str] | None) -> None:
        """Say what a worker serves, and the version that it refuses with the reason."""
        if refused:
            refused = {"version": refused["version"][:_VERSION], "reason": refused["reason"][:_REASON]}
        body = json.dumps({"worker": worker, "model_version": version, "refused": refused}).encode()
        self._memory[worker * _SLOT : worker * _SLOT + _HEAD.size + len(body)] = (
            _HEAD.pack(zlib.crc32(body), len(body)) + body
        )

    def clear(self, worker: int) -> None:
        """Forget what a worker said: it has ended."""
        self._memory[worker * _SLOT : worker * _SLOT + _HEAD.size] = bytes(_HEAD.size)

    def read(self) -> list[Serving]:
        """What every worker said; nothing served and nothing refused by one that has not said anything (yet)."""
        return [self._read(worker) for worker in range(self._workers)]

    def _read(self, worker: int) -> Serving:
        checksum, length = _HEAD.unpack_from(self._memory, worker * _SLOT)
        begin = worker * _SLOT + _HEAD.size
        body = self._memory[begin : begin + min(length, _SLOT - _HEAD.size)]
        if not body or zlib.crc32(body) != checksum:
            return {"worker": worker, "model_version": None, "refused": None}
        found: Serving = json.loads(body)
        return found
