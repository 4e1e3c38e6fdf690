"""Encodings of what the bundle does not know, each kept for a while.

Letters: m ids, d width, s what tiers compare.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from model.search.keys import Floats, Rows

KEEP_S = 60.0
"""How long the encoding of an item's content is kept; an item that has no content is asked for again after a second."""
MOST = 20_000


class One(NamedTuple):
    """A part and below it the unit vectors that tiers compare [1 + s, d], whether anything is known of it, its type, and
    whether it was read: if not, it is unknown for now only."""

    vectors: Floats
    known: bool
    kind: int
    read: bool


class Kept:
    """Encodings by id, each for a while."""

    def __init__(self) -> None:
        self._held: dict[int, tuple[One, float]] = {}

    def get(
        self, ids: list[int], encode: Callable[[list[int]], list[One]]
    ) -> tuple[Floats, NDArray[np.bool_], Rows, NDArray[np.bool_]]:
        """Vectors [m, 1 + s, d], whether anything is known of each [m], what each is [m], and what was read [m]."""
        now, held = time.monotonic(), self._held
        found = {i: kept for i in ids if (kept := held.get(i)) and kept[1] > now}
        missing = [i for i in ids if i not in found]
        if missing:
            for i, one in zip(missing, encode(missing), strict=True):
                found[i] = one, now + (KEEP_S if one.known else 1.0)
            if len(held) + len(missing) > MOST:
                self._held = held = {}
            held.update((i, found[i]) for i in missing if found[i][0].read)
        parts, known, types, read = zip(*(found[i][0] for i in ids), strict=True)
        return np.stack(parts), np.array(known, bool), np.array(types, np.int32), np.array(read, bool)
