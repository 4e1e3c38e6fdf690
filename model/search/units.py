"""Units of a history: what repeats in it is scored once, and where it repeats is looked up.

A behaviour's unit is its item, or its query where it has no item (a search). Letters: l behaviours, i distinct items,
s distinct queries of searches, u = i + s units, q distinct queries beside items, t targets, d width, c coarse cells.
Units come in the order of their cells, those of searches last; behaviours come in the order of their units.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from model.search.keys import Floats, Keys, Rows

Places = NDArray[np.int64]


class Behaviours(NamedTuple):
    """Behaviours by unit: unit j has those from starts[j] to starts[j + 1].

    starts [u + 1]; order [l]: places in the history; bias [l]; ceiling [u]: the highest bias of a unit; query [l]: column of
    the query's score, 0 where the unit has it already.
    """

    starts: Places
    order: Rows
    bias: Floats
    ceiling: Floats
    query: Rows


@dataclass(frozen=True)
class Units:
    """Item rows [i], rows of searches' queries [s] and of other queries [q]; cell_starts [c + 1]: units of each cell."""

    keys: Keys
    behaviours: Behaviours
    items: Rows
    searches: Rows
    queries: Rows
    cell_starts: Places

    @cached_property
    def query_parts(self) -> Floats:
        """Parts [1 + q, d] of the other queries; row 0: nothing to add."""
        parts = np.zeros((1 + len(self.queries), self.keys.queries.table.parts.shape[1]), np.float32)
        parts[1:] = self.keys.queries.take(self.queries)
        return parts

    @cached_property
    def search_parts(self) -> Floats:
        """Keys [s, d] of the searches: a query and no item."""
        return self.keys.queries.take(self.searches) + self.keys.items.take(np.zeros(1, np.int32))

    def query_scores(self, folded: Floats) -> Floats:
        """Scores [t, 1 + q] of the other queries under folded queries [t, d]; column 0 is 0."""
        scores: Floats = folded @ self.query_parts.T
        return scores

    def search_scores(self, folded: Floats) -> Floats:
        """Scores [t, s] of the searches."""
        scores: Floats = folded @ self.search_parts.T
        return scores


def units(keys: Keys, cell_count: int = 1, least: int = 0) -> Units:
    """Group a history, in time proportional to its length; by this many coarse cells where it has `least` distinct items.

    Else items stay in the order in which they came: the frequent ones come early, and raise thresholds.
    """
    items, searches, queries, unit, column = _distinct(keys.item_rows, keys.query_rows)
    cell_count = cell_count if len(items) >= least else 1
    cells = keys.items.cells(items) if cell_count > 1 else np.zeros(len(items), np.uint16)
    cell_starts, by_cell = _sort(cells, cell_count)
    behaviours = Behaviours(*_arrange(unit, column, keys.bias, by_cell, len(searches)))
    return Units(keys, behaviours, items[by_cell], searches, queries, cell_starts)


@numba.njit(nogil=True, cache=True)
def _number(row: np.int32, marks: Rows, distinct: Rows, count: int) -> int:
    """The number of a row among `count` distinct ones; `count` when it is new, and then it is written down."""
    mask = len(marks) - 1
    at = (row * 2654435761 >> 7) & mask
    while marks[at] >= 0:
        if distinct[marks[at]] == row:
            return int(marks[at])
        at = (at + 1) & mask
    marks[at] = count
    distinct[count] = row
    return count


@numba.njit(nogil=True, cache=True)
def _sort(labels: NDArray[np.integer[Any]], count: int) -> tuple[Places, Rows]:
    """Starts [count + 1] of each label and the stable order [n] of labels [n] (counting sort)."""
    starts = np.zeros(count + 2, np.int64)
    for label in labels:
        starts[label + 2] += 1
    for j in range(2, count + 2):
        starts[j] += starts[j - 1]
    order = np.empty(len(labels), np.int32)
    for e in range(len(labels)):
        order[starts[labels[e] + 1]] = e
        starts[labels[e] + 1] += 1
    return starts[:-1], order


@numba.njit(nogil=True, cache=True)
def _distinct(item_rows: Rows, query_rows: Rows) -> tuple[Rows, Rows, Rows, Rows, Rows]:
    """Distinct rows of items, searches' queries and other queries; the unit [l] (-1 - s: a search) and query column [l]."""
    length = len(item_rows)
    size = 16
    while size < 2 * length:
        size *= 2
    marks = np.full((3, size), -1, np.int32)
    items, searches, queries = np.empty(length, np.int32), np.empty(length, np.int32), np.empty(length, np.int32)
    unit, column = np.empty(length, np.int32), np.zeros(length, np.int32)
    i = s = q = 0
    for e in range(length):
        if item_rows[e] == 0:
            number = _number(query_rows[e], marks[0], searches, s)
            s += number == s
            unit[e] = -1 - number
        else:
            number = _number(item_rows[e], marks[1], items, i)
            i += number == i
            unit[e] = number
            number = _number(query_rows[e], marks[2], queries, q)
            q += number == q
            column[e] = 1 + number
    return items[:i].copy(), searches[:s].copy(), queries[:q].copy(), unit, column


@numba.njit(nogil=True, cache=True)
def _arrange(
    unit: Rows, column: Rows, bias: Floats, by_cell: Rows, searches: int
) -> tuple[Rows, Rows, Floats, Floats, Rows]:
    """The fields of `Behaviours`, with items in the order by_cell [i] and searches after them."""
    i = len(by_cell)
    place = np.empty(i, np.int32)
    for j in range(i):
        place[by_cell[j]] = j
    ceiling = np.full(i + searches, -np.inf, np.float32)
    moved = np.empty(len(unit), np.int32)
    for e in range(len(unit)):
        moved[e] = place[unit[e]] if unit[e] >= 0 else i - 1 - unit[e]
        ceiling[moved[e]] = max(ceiling[moved[e]], bias[e])
    starts, order = _sort(moved, i + searches)
    return starts, order, bias[order], ceiling, column[order]
