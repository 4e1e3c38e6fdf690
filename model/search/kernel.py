"""The compiled inner loops of the search: `kernel.c` where it was built, else the same in numba (`portable`).

Letters: t targets, u units, l behaviours, n ids, c cells, d width, k retrieved, b slots of a buffer.
"""

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.built import built
from model.search import portable
from model.search.keys import Floats, Parts, Rows
from model.search.units import Behaviours, Places, Units

SLOTS = 4
"""Slots of a target's buffer, as a multiple of k."""
LANES = 16
"""Floats of the widest vector."""
_SAMPLE, _RANK = 1024, 8


class _Best(ctypes.Structure):
    _pointers = ("scores", "places", "fill", "least", "starts", "order", "bias", "ceiling", "column", "queries", "room")
    _fields_ = [(name, ctypes.c_void_p) for name in _pointers] + [(n, ctypes.c_int64) for n in ("slots", "k", "columns")]


def library() -> ctypes.CDLL | None:
    """The compiled code, or None where it was not built."""
    return built("model.search._kernel")


def rows(ids: NDArray[np.uint64], starts: NDArray[np.int32], wanted: NDArray[np.uint64]) -> Rows:
    """Rows [l] of wanted ids [l] among sorted ids [n] (row 1 is the first): 0 for id 0, -1 for one that is not there.

    starts [2^p + 1]: where the ids of each p-bit prefix begin (`prefixes`). Ids are hashes, so a prefix has few ids and
    the time is constant.
    """
    out = np.empty(len(wanted), np.int32)
    shift = 64 - (len(starts) - 1).bit_length() + 1
    compiled = library()
    if compiled is None:
        portable.rows(ids, starts, shift, wanted, out)
    else:
        compiled.rows(
            _at(ids), _at(starts), _long(shift), _at(wanted), _long(wanted.strides[0]), _long(len(wanted)), _at(out)
        )
    return out


def prefixes(ids: NDArray[np.uint64]) -> NDArray[np.int32]:
    """Where the ids [n] of each prefix begin, about two ids a prefix; [2^p + 1], p >= 1."""
    bits = max(1, len(ids).bit_length() - 1)
    edges = np.arange(1 << bits, dtype=np.uint64) << np.uint64(64 - bits)
    return np.append(np.searchsorted(ids, edges), len(ids)).astype(np.int32)


class Best:
    """The k best behaviours of each target, of scores that come in pieces: scores [t, l] are never written out.

    A buffer [b] a target; when it is full it is cut back to the k best, and the least of these is the threshold from then
    on.
    """

    def __init__(self, behaviours: Behaviours, queries: Floats, k: int, least: Floats | None = None) -> None:
        """queries [t, 1 + q]: scores of the history's queries; least [t]: a threshold to begin with."""
        targets = len(queries)
        self._k = k
        self._scores, self._places = np.empty((targets, SLOTS * k), np.float32), np.full((targets, SLOTS * k), -1, np.int32)
        self._fill = np.zeros(targets, np.int64)
        self._behaviours = behaviours
        least = np.full(targets, -np.inf, np.float32) if least is None else least.astype(np.float32)
        self._arrays = (self._scores, self._places, self._fill, least, np.ascontiguousarray(queries), queries.max(1))
        self._state = _Best(
            *map(_address, (*self._arrays[:4], *behaviours, *self._arrays[4:])), SLOTS * k, k, queries.shape[1]
        )

    def offer(self, own: Floats, first: int) -> None:
        """Offer every target the behaviours of units `first` and on, whose own scores are own [t, u]."""
        own = np.ascontiguousarray(own)
        compiled = library()
        if compiled is None:
            portable.offer_all(self._arrays, self._behaviours, self._k, own, first)
        else:
            compiled.offer_all(ctypes.byref(self._state), _at(own), _long(len(own)), _long(first), _long(own.shape[1]))

    def scan(self, folded: Floats, units: Units, means: Floats, floor: Floats) -> None:
        """Score and offer, for folded queries [t, d], the units of cells whose mean [c, t] is not below the floor [t]."""
        items: Parts = units.keys.items
        table, more = items.table.parts, items.table.parts[:0] if items.more is None else items.more.parts
        folded, means, floor = (np.ascontiguousarray(a, np.float32) for a in (folded, means, floor))
        compiled = library()
        if compiled is None:
            portable.scan(
                self._arrays, self._behaviours, self._k, folded, means, floor, units.cell_starts, table, more, units.items
            )
            return
        sizes = [_long(n) for n in (*folded.shape, means.shape[0], len(table))]
        failed = compiled.scan(
            *(ctypes.byref(self._state), _at(folded), sizes[0], sizes[1], _at(means), _at(floor), sizes[2]),
            *(_at(units.cell_starts), _at(table), sizes[3], _at(more), _at(units.items)),
        )
        if failed:
            raise MemoryError

    def result(self) -> tuple[Rows, Floats]:
        """Places and scores [t, k] of the best, in no order; fewer columns where a target was offered fewer."""
        compiled = library()
        if compiled is None:
            portable.finish(self._arrays, self._k)
        else:
            compiled.finish(ctypes.byref(self._state), _long(len(self._fill)))
        width = int(min(self._k, self._fill.min(initial=self._k)))
        return self._places[:, :width], self._scores[:, :width]


class Side:
    """The k best of each target, where all scores of units are at hand: targets lie side by side in the vectors' lanes.

    own_items [i, t'], own_searches [s, t'] and queries [1 + q, t'] are scores with t' >= t a multiple of LANES (`padded`).
    """

    def __init__(
        self, behaviours: Behaviours, own_items: Floats, own_searches: Floats, queries: Floats, targets: int
    ) -> None:
        self._behaviours, self._queries, self._targets = behaviours, queries, targets
        self._own = [(own, first) for own, first in ((own_items, 0), (own_searches, len(own_items))) if len(own)]

    def best(self, k: int) -> tuple[Rows, Floats]:
        """Places and scores [t, k] of the best, in no order; -1 where fewer have a score that is a number."""
        length, targets = len(self._behaviours.order), self._targets
        least = np.full(targets, -np.inf, np.float32)
        stride = length // min(max(length // 8, _SAMPLE), 2 * _SAMPLE)
        if stride > 1:  # a threshold that about three times k exceed: what falls below it is never written down
            rank = max(_RANK, -(-3 * k // stride))
            fill, scores, _ = self._select(rank, least, stride // 2, stride)
            if fill.min() >= rank:
                least = scores[:, :rank].min(1)
        fill, scores, places = self._select(k, least)
        short = fill < k
        if short.any():  # the threshold was too hopeful for these
            again = self._select(k, np.where(short, -np.inf, np.inf).astype(np.float32))
            scores[short], places[short] = again[1][short], again[2][short]
        return places[:, :k], scores[:, :k]

    def _select(self, k: int, least: Floats, offset: int = 0, stride: int = 1) -> tuple[Places, Floats, Rows]:
        """How many were kept [t], and scores and places [t, slots], the k best of them first."""
        behaviours, targets, compiled = self._behaviours, self._targets, library()
        scores, places = np.empty((targets, SLOTS * k), np.float32), np.full((targets, SLOTS * k), -1, np.int32)
        fill, wide = np.zeros(targets, np.int64), np.full(self._queries.shape[1], np.inf, np.float32)
        wide[:targets] = least
        state = _Best(
            *(_address(x) for x in (scores, places, fill, wide, *behaviours, self._queries, self._queries)),
            *(SLOTS * k, k, self._queries.shape[1]),
        )
        for own, first in self._own:
            if compiled is None:
                given = scores, places, fill, wide, behaviours, k, own, first, self._queries
                portable.select_all(*given, offset, stride)
            else:
                compiled.select_all(
                    *(ctypes.byref(state), _at(own), _long(first), _long(len(own)), _at(self._queries)),
                    *(_long(self._queries.shape[1]), _at(wide), _long(offset), _long(stride)),
                )
        if compiled is None:
            portable.finish((scores, places, fill), k)
        else:
            compiled.finish(ctypes.byref(state), _long(targets))
        return fill, scores, places


def padded(folded: Floats) -> Floats:
    """Folded queries [t, d] as columns [d, t'], t' >= t a multiple of LANES."""
    wide = np.zeros((folded.shape[1], -(-len(folded) // LANES) * LANES), np.float32)
    wide[:, : len(folded)] = folded.T
    return wide


def _address(array: NDArray[Any]) -> int:
    address: int = array.__array_interface__["data"][0]
    return address


def _at(array: NDArray[Any]) -> ctypes.c_void_p:
    return ctypes.c_void_p(_address(array))


_long = ctypes.c_long
