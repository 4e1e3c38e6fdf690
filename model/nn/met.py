"""What `features.counters` counts, for one moment of one user: serving's way, in one pass over the behaviours.

Letters: l behaviours, c candidates, i items, m of them not in the table. The same numbers as training's `repeats`.
"""

from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from model.nn.features import FOUND, LIVES, Floats, counted, met
from model.nn.folded import Past, Rows, read_only
from model.nn.kernels import DAY, meet, settle


class Wanted(NamedTuple):
    """Candidates: rows [c] of the items' table, their types [c]; types by row [i] and of the rows after it [m]; how many
    types there are; the row of the query that is asked (0: none)."""

    rows: Rows
    types: Rows
    table: Rows
    more: Rows
    type_count: int
    asked: int


def counters(past: Past, time: NDArray[np.int64], now: int, wanted: Wanted) -> Floats:
    """The counters [c, 18] of candidates as of now (ms), after behaviours past and their times [l]."""
    own, kin = np.zeros((2, 1, len(wanted.rows), FOUND))
    given = [read_only(x) for x in (past.item, past.query, time, wanted.rows, wanted.types, wanted.table, wanted.more)]
    browsed = _count(*given, now, wanted.type_count, wanted.asked, LIVES, own[0], kin[0])
    found: Floats = counted(met(own), met(kin), np.array([browsed], float))[0]
    return found


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _count(
    item: Rows,
    query: Rows,
    time: NDArray[np.int64],
    rows: Rows,
    types: Rows,
    table: Rows,
    more: Rows,
    now: int,
    type_count: int,
    asked: int,
    lives: NDArray[np.float64],
    own: NDArray[np.float64],
    kin: NDArray[np.float64],
) -> int:
    """Fill own and kin [c, FOUND], of items and of types, which must be 0; how many behaviours have an item."""
    size = 16
    while size < 4 * len(rows):
        size *= 2
    marks, slots, mask = np.full(size, -1, np.int32), np.full(type_count, -1, np.int32), size - 1
    first = np.empty((2, len(rows)), np.int32)  # the first candidate with the same item, and with the same type
    for c in range(len(rows)):
        at = _place(rows[c], rows, marks, mask)
        if rows[c] > 0 and marks[at] < 0:
            marks[at] = c
        if types[c] > 0 and slots[types[c]] < 0:
            slots[types[c]] = c
        first[0, c], first[1, c] = marks[at], slots[types[c]]
    browsed = 0
    for e in range(len(item)):
        row = item[e]
        if row == 0:
            continue
        browsed += 1
        c = marks[_place(row, rows, marks, mask)]
        kind = slots[table[row] if row < len(table) else more[row - len(table)]]
        if c >= 0 or kind >= 0:
            age, same = max(0.0, (now - time[e]) / DAY), asked > 0 and query[e] == asked
            if c >= 0:
                meet(own[c], age, same, lives)
            if kind >= 0:
                meet(kin[kind], age, same, lives)
    for c in range(len(rows)):
        if first[0, c] >= 0:
            own[c] = own[first[0, c]]
        if first[1, c] >= 0:
            kin[c] = kin[first[1, c]]
    for c in range(len(rows)):
        settle(own[c], len(lives))
        settle(kin[c], len(lives))
    return browsed


@numba.njit(cache=True, nogil=True, inline="always")
def _place(row: int, rows: Rows, marks: Rows, mask: int) -> int:
    """Where a row is marked among candidates' rows [c], or where it would be."""
    at = (row * 2654435761 >> 7) & mask
    while marks[at] >= 0 and rows[marks[at]] != row:
        at = (at + 1) & mask
    return at
