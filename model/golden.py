"""GOLDEN requests: what a bundle must answer, as training computes it; a scorer that answers otherwise refuses the bundle.

Letters: g requests, l records of all of them, c candidates of each.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features.record import RECORD, Records

FILE = "golden.npz"
TOLERANCE = 1e-4
"""Rates may differ by this much: sums are taken in another order."""


@dataclass(frozen=True)
class Golden:
    """records [l] with offsets [g + 1]; times [g] (ms), queries [g] ("": none), candidates' ids [g, c], rates [g, c]."""

    records: Records
    offsets: NDArray[np.int64]
    times: NDArray[np.int64]
    queries: NDArray[np.str_]
    candidates: NDArray[np.uint64]
    rates: NDArray[np.float64]

    @classmethod
    def none(cls) -> "Golden":
        """No requests: of a bundle that no training has made."""
        empty, texts = np.empty(0, np.int64), np.empty(0, np.str_)
        nothing = np.empty((0, 0), np.uint64), np.empty((0, 0), np.float64)
        return cls(np.empty(0, RECORD), np.zeros(1, np.int64), empty, texts, *nothing)

    def __iter__(self) -> Iterator[tuple[Records, int, str, NDArray[np.uint64], NDArray[np.float64]]]:
        """(records, time, query, candidates, rates) of each request."""
        for i in range(len(self.times)):
            here = slice(self.offsets[i], self.offsets[i + 1])
            yield self.records[here], int(self.times[i]), str(self.queries[i]), self.candidates[i], self.rates[i]

    def save(self, folder: Path) -> None:
        """Write `golden.npz`."""
        np.savez(folder / FILE, allow_pickle=False, **vars(self))

    @classmethod
    def load(cls, folder: Path) -> "Golden":
        """Read `golden.npz`."""
        with np.load(folder / FILE) as stored:
            return cls(**{name: stored[name] for name in stored.files})
