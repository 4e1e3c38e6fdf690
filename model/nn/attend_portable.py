"""Target attention over chosen places, and its gradient, in numba: what `attend.c` does, for any width and number of heads.

Letters as in `model.nn.attend`.
"""

import numba
import numpy as np

from model.nn.kernels import _FLAGS


@numba.njit(cache=True, nogil=True)
def _encode(time, kind, now, edges, kinds, places, codes, table):
    """Codes [m, k] of a moment's places: gap bucket and kind. Gaps shrink along the history, so buckets are walked once."""
    low, high = len(time), 0
    for row in places:
        for p in row:
            if p >= 0:
                low, high = min(low, p), max(high, p + 1)
    bucket = len(edges)
    for p in range(low, high):
        while bucket > 0 and edges[bucket - 1] >= now - time[p]:
            bucket -= 1
        table[p] = bucket * kinds + kind[p]
    for r in range(len(places)):
        for j in range(places.shape[1]):
            if places[r, j] >= 0:
                codes[r, j] = table[places[r, j]]


@numba.njit(cache=True, nogil=True, fastmath=_FLAGS, error_model="numpy")
def attend(
    first, last, c, q, keys, values, bias, time, kind, now, edges, kinds, places, codes, out, mass, weights
):  # fmt: skip
    """Targets first to last; fills codes, out, mass and weights. A null behaviour of logit 0 and value 0 takes part."""
    (n_all, d), k, h = q.shape, places.shape[1], mass.shape[1]
    e, share = d // h, n_all // len(places)
    table = np.empty(len(time), np.uint8)
    top, total, mixed = np.empty(h, np.float32), np.empty(h, np.float32), np.empty(d, np.float32)
    for n in range(first, last):
        if n == first or n % c == 0:
            rows = slice(n // share, (min((n // c + 1) * c, last) - 1) // share + 1)
            _encode(time, kind, now[n // c], edges, kinds, places[rows], codes[rows], table)
        row, code = places[n // share], codes[n // share]
        found = 0
        top[:] = 0
        while found < k and row[found] >= 0:
            for head in range(h):
                s = bias[code[found], head]
                for i in range(e):
                    s += q[n, i * h + head] * keys[row[found], i * h + head]
                weights[n, found, head] = s
                top[head] = max(top[head], s)
            found += 1
        for head in range(h):
            total[head] = np.exp(-top[head])
        mixed[:] = 0
        for j in range(found):
            for head in range(h):
                weights[n, j, head] = np.exp(weights[n, j, head] - top[head])
                total[head] += weights[n, j, head]
            for i in range(e):
                for head in range(h):
                    mixed[i * h + head] += weights[n, j, head] * values[row[j], i * h + head]
        for head in range(h):
            mass[n, head] = top[head] + np.log(total[head])
            for i in range(e):
                out[n, i * h + head] = mixed[i * h + head] / total[head]
            for j in range(found):
                weights[n, j, head] /= total[head]
        weights[n, found:] = 0


@numba.njit(cache=True, nogil=True, fastmath=_FLAGS, error_model="numpy")
def attend_backward(
    first, last, q, keys, values, places, codes, weights, d_out, d_mass, d_q, d_keys, d_values, d_bias
):  # fmt: skip
    """Adds to d_keys, d_values and d_bias, which no other call may share meanwhile, and fills d_q."""
    (n_all, d), k, h = q.shape, places.shape[1], d_mass.shape[1]
    e, share = d // h, n_all // len(places)
    slope, mean = np.empty((k, h), np.float32), np.empty(h, np.float32)
    for n in range(first, last):
        row, code = places[n // share], codes[n // share]
        found = 0
        for head in range(h):
            mean[head] = -d_mass[n, head]
        while found < k and row[found] >= 0:
            for head in range(h):
                s, weight = np.float32(0), weights[n, found, head]
                for i in range(e):
                    s += d_out[n, i * h + head] * values[row[found], i * h + head]
                    d_values[row[found], i * h + head] += weight * d_out[n, i * h + head]
                slope[found, head] = s
                mean[head] += weight * s
            found += 1
        d_q[n] = 0
        for j in range(found):
            for head in range(h):
                s = weights[n, j, head] * (slope[j, head] - mean[head])
                d_bias[code[j], head] += s
                for i in range(e):
                    d_q[n, i * h + head] += s * keys[row[j], i * h + head]
                    d_keys[row[j], i * h + head] += s * q[n, i * h + head]
