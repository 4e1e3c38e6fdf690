"""The trivial methods that often win: popularity, and the user's own frequency with recency decay.

Letters: t moments, c candidates, n items, l behaviours of a user.
"""

import logging
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.train.dataset import Dataset
from model.train.lists import Lists
from model.train.moments import Moments
from model.train.rank import Scorer, quality

log = logging.getLogger(__name__)
Floats = NDArray[np.float64]
DAY_MS = 86_400_000
HALF_LIVES_DAYS = (7, 14, 30, 60, 90, 180, 365, math.inf)
"""The runs among which validation chooses."""


def popularity(dataset: Dataset, before: int) -> Scorer:
    """Log count of browses before a time."""
    counts = np.log1p(dataset.counts(before))
    return lambda moments: [counts[m.items] for m in moments]


def frequency(dataset: Dataset, before: int, half_life_days: float) -> Scorer:
    """Log of how often the user browsed the item, each time halved with age; ties are broken by popularity before a time."""
    counts = dataset.counts(before)
    tie = 1e-3 * np.log1p(counts) / max(np.log1p(counts.max()), 1.0)

    def one(start: int, prefix: int, now: int) -> Floats:
        past = slice(start, start + prefix)
        age = (now - dataset.histories.records["time"][past].astype(np.int64)) / DAY_MS
        counted: Floats = np.bincount(dataset.item_rows[past], 0.5 ** (age / half_life_days), len(tie)).astype(np.float64)
        return counted

    def score(moments: list[Moments]) -> list[Floats]:
        out = []
        for m in moments:
            start = int(dataset.histories.offsets[m.user])
            values = np.zeros(m.items.shape)
            for i, (prefix, now) in enumerate(zip(m.prefix.tolist(), m.now.tolist(), strict=True)):
                items = m.items[i]
                values[i] = np.log(one(start, prefix, now)[items] + tie[items] + 1e-4)
            out.append(values)
        return out

    return score


def tuned_frequency(dataset: Dataset, validation: list[Lists], before: int) -> tuple[Scorer, list[dict[str, Any]]]:
    """The own frequency of the half-life that ranks validation lists best, counted before a time; and the runs."""
    runs = []
    for days in HALF_LIVES_DAYS:
        found = quality(frequency(dataset, validation[0].since, days), validation)
        runs.append({"half_life_days": days, **found})
    best = max(runs, key=lambda row: row["quality"])
    log.info("own frequency: half-life %s days, on validation %.4f", best["half_life_days"], best["quality"])
    return frequency(dataset, before, best["half_life_days"]), runs
