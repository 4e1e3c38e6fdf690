"""The inner loops of the search in numba: what `kernel.c` does, for machines without a C compiler (and to test it by).

Letters: t targets, u units, l behaviours, c cells, d width, k retrieved, b slots of a buffer.
"""

from typing import Any

import numba
import numpy as np
from numba.extending import register_jitable
from numpy.typing import NDArray

Any_ = NDArray[Any]
_TILE = 64  # units that are scored, or compared with the threshold, together


@numba.njit(nogil=True, cache=True)
def rows(ids: Any_, starts: Any_, shift: int, wanted: Any_, out: Any_) -> None:
    """out [l]: rows of ids; 0 for id 0, -1 for an unknown one. starts: where the ids of each prefix begin."""
    for e in range(len(wanted)):
        prefix = np.int64(wanted[e] >> np.uint64(shift))
        at, end = starts[prefix], starts[prefix + 1]
        while at < end and ids[at] < wanted[e]:
            at += 1
        out[e] = 0 if wanted[e] == 0 else at + 1 if at < end and ids[at] == wanted[e] else -1


@numba.njit(nogil=True, cache=True)
def _cut(scores: Any_, places: Any_, n: int, k: int) -> Any:
    """Reorder n scores and places so that the k best come first; the k-th best (quickselect, median of three)."""
    low, high, want = 0, n - 1, k - 1
    while low < high:
        a, b, c = scores[low], scores[(low + high) >> 1], scores[high]
        pivot = max(min(a, b), min(max(a, b), c))
        i, j = low, high
        while i <= j:
            while scores[i] > pivot:
                i += 1
            while scores[j] < pivot:
                j -= 1
            if i <= j:
                scores[i], scores[j] = scores[j], scores[i]
                places[i], places[j] = places[j], places[i]
                i += 1
                j -= 1
        if want <= j:
            high = j
        elif want >= i:
            low = i
        else:
            break
    return scores[want]


@register_jitable
def _keep(scores: Any_, places: Any_, fill: Any_, least: Any_, t: int, k: int, score: float, place: int) -> None:
    """Put one into a target's buffer; a full one is cut back to the k best."""
    scores[t, fill[t]] = score
    places[t, fill[t]] = place
    fill[t] += 1
    if fill[t] == scores.shape[1]:
        least[t] = _cut(scores[t], places[t], fill[t], k)
        fill[t] = k


@register_jitable
def _offer(best: Any, behaviours: Any, t: int, k: int, own: Any_, first: int) -> None:
    """Offer target t the behaviours of units `first` and on, whose own scores are own [u].

    A unit's behaviours are looked at only where their highest bias and the target's best query could lift one of them
    over the threshold: this loses nothing.
    """
    scores, places, fill, least, queries, room = best
    starts, order, bias, ceiling, column = behaviours
    for i in range(len(own)):
        if not own[i] + ceiling[first + i] > least[t] - room[t]:
            continue
        for e in range(starts[first + i], starts[first + i + 1]):
            score = own[i] + queries[t, column[e]] + bias[e]
            if score > least[t]:
                _keep(scores, places, fill, least, t, k, score, order[e])


@numba.njit(nogil=True, cache=True)
def offer_all(best: Any, behaviours: Any, k: int, own: Any_, first: int) -> None:
    """Offer all targets the units `first` and on, whose own scores are own [t, u]."""
    for t in range(len(own)):
        _offer(best, behaviours, t, k, own[t], first)


@numba.njit(nogil=True, cache=True)
def select_all(
    scores: Any_,
    places: Any_,
    fill: Any_,
    least: Any_,
    behaviours: Any,
    k: int,
    own: Any_,
    first: int,
    queries: Any_,
    offset: int,
    stride: int,
) -> None:
    """Offer targets every stride-th behaviour of units `first` and on, with scores own [u, t] and queries [1 + q, t]."""
    starts, order, bias, _, column = behaviours
    unit = 0
    for e in range(starts[first] + offset, starts[first + len(own)], stride):
        while starts[first + unit + 1] <= e:
            unit += 1
        for t in range(len(fill)):
            score = own[unit, t] + queries[column[e], t] + bias[e]
            if score > least[t]:
                _keep(scores, places, fill, least, t, k, score, order[e])


@numba.njit(nogil=True, cache=True)
def finish(best: Any, k: int) -> None:
    """Put the k best of each buffer first."""
    for t in range(len(best[2])):
        if best[2][t] > k:
            _cut(best[0][t], best[1][t], best[2][t], k)


@numba.njit(nogil=True, cache=True, fastmath=True)
def _dots(q: Any_, x: Any_, out: Any_) -> None:
    for a in range(len(q)):
        for i in range(len(x)):
            total = np.float32(0)
            for j in range(q.shape[1]):
                total += q[a, j] * x[i, j]
            out[a, i] = total


@numba.njit(nogil=True, cache=True)
def scan(
    best: Any,
    behaviours: Any,
    k: int,
    folded: Any_,
    means: Any_,
    floor: Any_,
    cell_starts: Any_,
    table: Any_,
    more: Any_,
    part_rows: Any_,
) -> None:
    """Score the units of every cell for the targets whose mean [c, t] is not below their floor [t]."""
    targets, width = folded.shape
    tile, out = np.empty((_TILE, width), np.float32), np.empty((targets, _TILE), np.float32)
    active, q = np.empty(targets, np.int64), np.empty_like(folded)
    for cell in range(len(cell_starts) - 1):
        first, end = cell_starts[cell], cell_starts[cell + 1]
        wanted = 0
        for t in range(targets):
            if first < end and means[cell, t] >= floor[t]:
                active[wanted], q[wanted] = t, folded[t]
                wanted += 1
        for start in range(first, end if wanted else first, _TILE):
            n = min(_TILE, end - start)
            for i in range(n):
                row = part_rows[start + i]
                tile[i] = table[row] if row < len(table) else more[row - len(table)]
            _dots(q[:wanted], tile[:n], out)
            for a in range(wanted):
                _offer(best, behaviours, active[a], k, out[a, :n], start)
