"""Search by coarse cells: only the cells that can matter to a target are scored, and those exactly.

Letters: t targets, c cells, l behaviours, d width, k retrieved. A part is the centroid of its cell plus a residual; under a
folded query f its score is normal around the centroid's, with variance f' S f for the residuals' covariance S. So, before
any part is read, the centroids' scores say where a target's k-th best score lies and how many of the k best each cell
is expected to hold; cells that together hold less than a stated share of them are left out. What remains is scored cell by
cell, for all targets that want the cell: a part is read once a request.
"""

import math
from dataclasses import dataclass, replace

import numba
import numpy as np
from numpy.typing import NDArray

from model.search.coarse import Coarse
from model.search.kernel import Best
from model.search.keys import Floats, Keys, Rows
from model.search.units import Places, Units, units

LOSSES = (0.03, 0.02, 0.015, 0.007, 0.003, 0.001, 3e-4, 1e-4, 3e-5)
"""Expected losses that are tried."""
WANTED = 0.985
AMPLE = 2
_SUMS = {"reassoc", "nsz", "contract"}  # sums may be taken in any order
_BINS, _STEP = 96, 0.25  # of the expected distribution of scores, in standard deviations


@dataclass(frozen=True)
class Plan:
    """means [c, t]: expected scores; floor [t]: cells below it are left out; least [t]: a score that about AMPLE k
    behaviours exceed; work: scores that remain, as a share of all."""

    means: Floats
    floor: Floats
    least: Floats
    work: float


def plan(folded: Floats, units: Units, coarse: Coarse, k: int, search: Floats, queries: Floats) -> Plan:
    """Which cells folded queries [t, d] want; search [t, s] and queries [t, 1 + q] are the scores of units' other parts."""
    count, items = len(coarse.centroids), len(units.items)
    starts, bias, column = units.behaviours.starts, units.behaviours.bias, units.behaviours.query
    split = starts[items]
    held = np.diff(starts[units.cell_starts]).astype(np.float32)
    of_cell = np.repeat(np.arange(count), np.diff(starts[units.cell_starts]))
    lift = np.bincount(of_cell, bias[:split], count).astype(np.float32) / np.maximum(held, 1)
    spread = float(bias[:split].var()) if split else 0.0
    if len(units.queries) > 1:
        # What queries add to a cell's behaviours, which tend to have queries of its kind; how much that varies within cells.
        added = folded @ (_pool(units.query_parts, column[:split], starts[units.cell_starts]) / held.clip(min=1)[:, None]).T
        often = np.bincount(column[:split], minlength=queries.shape[1]).astype(np.float32)
        spread = spread + ((queries**2) @ often - added**2 @ held) / max(1, split)
    else:
        added = queries[:, -1:]  # the same everywhere
    sigma = np.sqrt(np.maximum(((folded @ coarse.covariance) * folded).sum(1) + spread, 1e-12)).astype(np.float32)
    means = coarse.centroids @ folded.T
    means += lift[:, None]
    means += added.T
    beside = np.diff(starts[items:]).astype(np.float32)
    floor, least, work = _floors(means, held, search, beside, sigma, k, coarse.loss, np.diff(units.cell_starts), _NORMAL)
    return Plan(means, floor, least, work / max(1, items * len(folded)))


def search(folded: Floats, units: Units, coarse: Coarse, k: int) -> tuple[Rows, Floats]:
    """The places [t, min(k, l)] of the best behaviours of the cells that matter, and their exact scores, in no order."""
    searches, queries = units.search_scores(folded), units.query_scores(folded)
    planned = plan(folded, units, coarse, k, searches, queries)
    return follow(planned, folded, units, k, searches, queries)


def follow(planned: Plan, folded: Floats, units: Units, k: int, searches: Floats, queries: Floats) -> tuple[Rows, Floats]:
    """Search the cells of a plan."""
    for least in (planned.least, None):  # a threshold that was too hopeful is given up
        best = Best(units.behaviours, queries, k, least)
        best.offer(searches, len(units.items))
        best.scan(folded, units, planned.means, planned.floor)
        places, scores = best.result()
        if places.shape[1] == k:
            break
    return places, scores


def calibrate(coarse: Coarse, folded: Floats, keys: Keys, k: int) -> Coarse:
    """The cells with the largest expected loss at which folded queries [t, d] of others find WANTED of their exact best.

    Real residuals have heavier tails than normal ones, so more is lost than expected. Without any such loss it is 0, and all
    cells that hold anything are searched.
    """
    truth = folded @ keys.gather(np.arange(len(keys))).T + keys.bias
    least = np.partition(truth, len(keys) - k, 1)[:, -k][:, None] - 1e-6
    found = units(keys, len(coarse.centroids))
    for loss in LOSSES:
        tried = replace(coarse, loss=loss)
        places = search(folded, found, tried, k)[0].astype(np.int64)
        if (np.take_along_axis(truth, places, 1) >= least).mean() >= WANTED:
            return tried
    return replace(coarse, loss=0.0)


_NORMAL = np.array([0.5 * math.erfc(-(i - 2 * _BINS) * _STEP / math.sqrt(2)) for i in range(4 * _BINS)], np.float32)
"""The normal distribution function at multiples of _STEP, from -2 _BINS on."""


@numba.njit(nogil=True, cache=True, fastmath=_SUMS)
def _pool(parts: Floats, column: Rows, bounds: Places) -> Floats:
    """Sums [c, d] of the query parts [1 + q, d] that the behaviours of each cell have."""
    out = np.zeros((len(bounds) - 1, parts.shape[1]), np.float32)
    for cell in range(len(out)):
        for e in range(bounds[cell], bounds[cell + 1]):
            for x in range(parts.shape[1]):  # row 0 is zeros
                out[cell, x] += parts[column[e], x]
    return out


@numba.njit(nogil=True, cache=True, fastmath=_SUMS)
def _quantile(counts: Floats, k: float, normal: Floats) -> int:
    """The bin, counted from _BINS / 2 above the top, below which the k-th best of scores in bins [96] is expected."""
    low, high = 0, 2 * _BINS - 1
    while low < high:
        middle = (low + high) >> 1
        expected = np.float32(0)
        for b in range(_BINS):
            expected += counts[b] * normal[middle - _BINS // 2 - b + 2 * _BINS]
        if expected >= k:
            high = middle
        else:
            low = middle + 1
    return low


@numba.njit(nogil=True, cache=True, fastmath=_SUMS)
def _floors(
    means: Floats,
    held: Floats,
    search: Floats,
    beside: Floats,
    sigma: Floats,
    k: int,
    loss: float,
    sizes: NDArray[np.int64],
    normal: Floats,
) -> tuple[Floats, Floats, int]:
    """A floor [t] to the means [c, t] of cells that hold `held` [c] behaviours, and how many scores lie above the floors.

    The distribution of all scores is that of the means, in bins, widened by sigma [t].
    """
    cells, targets = means.shape
    floor, least, top = np.empty(targets, np.float32), np.empty(targets, np.float32), np.empty(targets, np.float32)
    top[:] = -np.inf
    for j in range(cells):
        if held[j] > 0:
            for t in range(targets):
                top[t] = max(top[t], means[j, t])
    for t in range(targets):
        for j in range(len(beside)):
            top[t] = max(top[t], search[t, j])
    per = 1 / (sigma * np.float32(_STEP))
    bins = np.zeros((targets, _BINS), np.float32)
    for j in range(cells):
        if held[j] > 0:
            for t in range(targets):
                bins[t, int(min((top[t] - means[j, t]) * per[t], np.float32(_BINS - 1)))] += held[j]
    for t in range(targets):
        counts = bins[t]
        for j in range(len(beside)):
            counts[int(min((top[t] - search[t, j]) * per[t], np.float32(_BINS - 1)))] += beside[j]
        at = _quantile(counts, k, normal)
        least[t] = top[t] + (_BINS // 2 - _quantile(counts, AMPLE * k, normal)) / per[t]
        last, lost = _BINS - 1, np.float32(0)
        while last > 0:
            lost += counts[last] * normal[at - _BINS // 2 - last + 2 * _BINS]
            if lost > loss * k:
                break
            last -= 1
        kept = counts[: last + 1].sum()
        while kept < k and last < _BINS - 1:
            last += 1
            kept += counts[last]
        floor[t] = top[t] - (last + 1) / per[t] if last < _BINS - 1 else -np.inf
    work = 0
    for j in range(cells):
        wanted = 0
        for t in range(targets):
            wanted += means[j, t] >= floor[t]
        work += wanted * sizes[j]
    return floor, least, work
