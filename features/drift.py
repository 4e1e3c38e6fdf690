"""DRIFT of what features are made of: a date of history against the dates before it, by the population stability index.

PSI = sum over bins of (p - q) ln(p / q), less what chance alone gives for so few events; 0.1 is little, 0.25 is much.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features import history
from features.quality import DAY_MS, day
from features.record import KIND_BROWSE, Records
from features.sequences import packed

HOURS = 4  # a bin
GAPS = (1, 60, 600, 3_600, 21_600, 86_400, 604_800)  # s
DWELL = (1, 5, 15, 60, 300)  # s
CATEGORIES = 20


def psi(now: NDArray[np.float64], before: NDArray[np.float64]) -> float:
    """The index of counts [b] against counts [b]; 0 where one side is empty."""
    if not now.sum() or not before.sum():
        return 0.0
    there = (now + before) > 0
    now, before = now[there], before[there]
    p, q = ((x + 0.5) / (x.sum() + 0.5 * len(x)) for x in (now, before))
    chance = (len(now) - 1) * (1 / now.sum() + 1 / before.sum())
    return max(0.0, float(((p - q) * np.log(p / q)).sum() - chance))


def drift(home: Path, date: str, dates: int = 14) -> dict[str, Any]:
    """{"date", "events", "before", "psi": {feature: index}}: the date's events against those of the dates before."""
    since = day(date)
    now, before = (_read(home, *window) for window in ((since, since + DAY_MS), (since - dates * DAY_MS, since)))
    found: dict[str, float] = {}
    for name, (mine, theirs) in _counts(home, now, before).items():
        found[name] = psi(mine, theirs)
    return {"date": date, "events": len(now[1]), "before": len(before[1]), "psi": found}


Rows = tuple[NDArray[np.int64], Records]


def _read(home: Path, since: int, until: int) -> Rows:
    """Owner [n] and record [n] of distinct events, by user in order of time."""
    rows = history.read(home, history.EVENTS, since, until, ["user_id", "sequence"])
    owner = rows["user_id"].combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
    records = packed(rows["sequence"].combine_chunks())
    order = np.lexsort((records["digest"], records["time"], owner))
    owner, records = owner[order], records[order]
    new = np.ones(len(records), bool)
    new[1:] = (records.view("V32")[1:] != records.view("V32")[:-1]) | (owner[1:] != owner[:-1])
    return owner[new], records[new]


def _counts(home: Path, now: Rows, before: Rows) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    category = _categories(home, before[1])

    def of(rows: Rows) -> dict[str, NDArray[np.float64]]:
        owner, records = rows
        seconds = records["time"].astype(np.int64) // 1000
        # Within a date only: one date alone has no gaps between dates.
        near = (owner[1:] == owner[:-1]) & (seconds[1:] // 86_400 == seconds[:-1] // 86_400)
        gaps = np.diff(seconds)[near] if len(owner) else np.zeros(0)
        browsed = records[records["kind"] == KIND_BROWSE]
        return {
            "hour": _bins(seconds % 86_400 // 3600 // HOURS, 24 // HOURS),
            "kind": _bins(records["kind"].astype(np.int64), 4),
            "gap": _bins(np.searchsorted(GAPS, gaps), len(GAPS) + 1),
            "dwell": _bins(np.searchsorted(DWELL, browsed["dwell"]), len(DWELL) + 1),
            "query": _bins((browsed["query"] > 0).astype(np.int64), 2),
            "category": _bins(np.array([category.get(int(x), 0) for x in browsed["item"]], np.int64), CATEGORIES + 2),
        }

    mine, theirs = of(now), of(before)
    return {name: (mine[name], theirs[name]) for name in mine}


def _bins(values: NDArray[Any], count: int) -> NDArray[np.float64]:
    return np.bincount(values.astype(np.int64), minlength=count).astype(np.float64)


def _categories(home: Path, before: Records) -> dict[int, int]:
    """Bin of each item: of its category, where that is one of the most browsed before; else CATEGORIES + 1; 0: unknown."""
    items = history.read_items(home)
    of = dict(zip(items["item"].to_numpy().view(np.uint64).tolist(), items["category"].to_pylist(), strict=True))
    counts: dict[str, int] = {}
    for item in before["item"][before["kind"] == KIND_BROWSE].tolist():
        if name := of.get(item):
            counts[name] = counts.get(name, 0) + 1
    most = {name: i for i, name in enumerate(sorted(counts, key=lambda name: (-counts[name], name))[:CATEGORIES], 1)}
    return {item: most.get(name, CATEGORIES + 1) for item, name in of.items()}
