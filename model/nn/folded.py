"""Target attention for serving: the projections are folded into the targets, and keys are taken from tables.

Letters: n targets, l behaviours, k places, h heads, e width of a head, d model width. The logit <W_Q^h t, W_K^h key> is the
inner product of the key with t W_Q^h W_K^h', and what a head adds is (sum of weights times keys) W_V^h W_O^h: so nothing of
a history is projected, whatever its length, and a key is read once. The same numbers as `TargetAttention` gives, up to the
order of sums; gradients are `TargetAttention`'s alone.
"""

from functools import lru_cache
from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from model.nn.attention import BUCKETS, GAP_EDGES, TargetAttention
from model.nn.kernels import _FLAGS, _exp

Floats = NDArray[np.float32]
Rows = NDArray[np.int32]
_EDGES = np.array(GAP_EDGES, np.int64)


class Past(NamedTuple):
    """Behaviours in order of time: rows of the item and query tables, gap buckets as of the request and kinds; all [l]."""

    item: Rows
    query: Rows
    bucket: NDArray[np.uint8]
    kind: NDArray[np.uint8]


class Tables(NamedTuple):
    """Parts of items and queries: tables [i, d] and [q, d], and what was encoded since, whose rows follow theirs."""

    items: Floats
    more_items: Floats
    queries: Floats
    more_queries: Floats


class Attended(NamedTuple):
    """vector [n, d], mass [n, h] and weights [n, k, h], as in `Interest`."""

    vector: Floats
    mass: Floats
    weights: Floats


def buckets(time: NDArray[np.int64], now: int) -> NDArray[np.uint8]:
    """The bucket of each gap [l] to times [l] in order (ms): constant on stretches, of which there are few."""
    cuts = np.searchsorted(time, now - _EDGES[::-1], "left")  # a gap of exactly an edge is in the bucket that it ends
    cuts = np.concatenate([[0], cuts, [len(time)]])
    return np.repeat(np.arange(BUCKETS - 1, -1, -1, dtype=np.uint8), np.diff(cuts))


class Folded:
    """One `TargetAttention`, folded."""

    def __init__(self, attention: TargetAttention) -> None:
        w_q, w_k, w_v = (w.detach().numpy() for w in (attention.w_q, attention.w_k, attention.w_v))
        h, d, e = w_q.shape
        self.heads = h
        self._query = np.concatenate([q @ k.T for q, k in zip(w_q, w_k, strict=True)], 1) * np.float32(1 / np.sqrt(e))
        w_o = attention.w_o.detach().numpy().reshape(h, e, d)
        self._value = np.concatenate([v @ o for v, o in zip(w_v, w_o, strict=True)]).astype(np.float32)
        self._gap, self._kind = (_own(b) for b in (attention.gap_bias, attention.kind_bias))
        self._attend = _kernel(h, d)

    def fold(self, targets: Floats) -> tuple[Floats, Floats]:
        """Folded queries by head [n, h, d] of targets [n, d], and the search's: their mean [n, d]."""
        by_head = (targets @ self._query).reshape(len(targets), self.heads, -1)
        return by_head, by_head.mean(1)

    def bias(self, past: Past) -> Floats:
        """The search's bias [l]: the mean over heads."""
        table, found = self._gap.mean(0)[:, None] + self._kind.mean(0), np.empty(len(past.item), np.float32)
        _look_up(table, read_only(past.bucket), read_only(past.kind), found)
        return found

    def attend(self, by_head: Floats, tables: Tables, past: Past, places: Rows) -> Attended:
        """Attend folded queries [n, h, d] over places [n or 1, k] (-1: none, and none after it)."""
        (n, h, d), k = by_head.shape, places.shape[1]
        mixed, mass, weights = (np.empty(shape, np.float32) for shape in ((n, h, d), (n, h), (n, k, h)))
        self._attend(
            np.ascontiguousarray(by_head),
            *(read_only(x) for x in (*tables, *past)),
            *(self._gap, self._kind, read_only(np.ascontiguousarray(places)), mixed, mass, weights),
        )
        return Attended(mixed.reshape(n, h * d) @ self._value, mass, weights)


def _own(weight: Tensor) -> Floats:
    return np.ascontiguousarray(weight.detach().numpy())


def read_only(array: NDArray[Any]) -> NDArray[Any]:
    """The same memory as a plain array that must not be written: one type for mapped and other arrays, compiled once."""
    view = np.asarray(array)[:]
    view.flags.writeable = False
    return view


@numba.njit(cache=True, nogil=True)
def _look_up(table: Floats, bucket: Rows, kind: Rows, out: Floats) -> None:
    for p in range(len(out)):
        out[p] = table[bucket[p], kind[p]]


@lru_cache(maxsize=8)
def _kernel(h: int, d: int) -> Any:
    @numba.njit(cache=True, nogil=True, fastmath=_FLAGS, error_model="numpy")
    def attend(
        q: NDArray[Any],
        items: NDArray[Any],
        more_items: NDArray[Any],
        queries: NDArray[Any],
        more_queries: NDArray[Any],
        item: NDArray[Any],
        query: NDArray[Any],
        bucket: NDArray[Any],
        kind: NDArray[Any],
        gap_bias: NDArray[Any],
        kind_bias: NDArray[Any],
        places: NDArray[Any],
        mixed: NDArray[Any],
        mass: NDArray[Any],
        weights: NDArray[Any],
    ) -> None:
        k = places.shape[1]
        keys, top, total = np.empty((max(k, 1), d), np.float32), np.empty(h, np.float32), np.empty(h, np.float32)
        known, asked = len(items), len(queries)
        for n in range(len(q)):
            row, w = places[n if len(places) > 1 else 0], weights[n]
            found = 0
            top[:] = 0  # the null behaviour's logit
            for j in range(k):  # by itself: rows come from far apart, and many are fetched at once
                p = row[j]
                if p < 0:
                    break
                found += 1
                a, b = item[p], query[p]
                part = items[a] if a < known else more_items[a - known]
                words = queries[b] if b < asked else more_queries[b - asked]
                key = keys[j]
                for x in range(d):
                    key[x] = part[x] + words[x]
            for j in range(found):
                p, key = row[j], keys[j]
                for head in range(h):
                    target = q[n, head]
                    s = np.float32(0)
                    for x in range(d):
                        s += target[x] * key[x]
                    s += gap_bias[head, bucket[p]] + kind_bias[head, kind[p]]
                    w[j, head] = s
                    top[head] = max(top[head], s)
            for head in range(h):
                total[head] = np.exp(-top[head])
            mixed[n] = 0
            for j in range(found):
                key = keys[j]
                for head in range(h):
                    share = _exp(w[j, head] - top[head])
                    w[j, head] = share
                    total[head] += share
                    out = mixed[n, head]
                    for x in range(d):
                        out[x] += share * key[x]
            for head in range(h):
                mass[n, head] = top[head] + np.log(total[head])
                scale = np.float32(1) / total[head]
                for x in range(d):
                    mixed[n, head, x] *= scale
                for j in range(found):
                    w[j, head] *= scale
            w[found:] = 0

    return attend
