"""Compiled loops over behaviours: selection, repeats, likeness. For one thread; they hold no interpreter lock.

Letters: n targets (c of each of t moments), l behaviours, k places, i and q distinct items and queries, b gap buckets.
"""

import numba
import numpy as np

_FLAGS = {"reassoc", "contract", "arcp", "nsz"}  # sums may be reordered; infinities keep their meaning
_BINS = 256
DAY = 86_400_000.0


@numba.njit(cache=True, nogil=True)
def distinct(rows):
    """The distinct ones of rows [l] as they come, and where each row is among them [l]; in time proportional to l."""
    size = 16
    while size < 2 * len(rows):
        size *= 2
    marks, mask = np.full(size, -1, np.int64), size - 1
    found, place = np.empty(len(rows), np.int64), np.empty(len(rows), np.int64)
    count = 0
    for e in range(len(rows)):
        at = (rows[e] * 2654435761 >> 7) & mask
        while marks[at] >= 0 and found[marks[at]] != rows[e]:
            at = (at + 1) & mask
        if marks[at] < 0:
            marks[at] = count
            found[count] = rows[e]
            count += 1
        place[e] = marks[at]
    return found[:count].copy(), place


@numba.njit(cache=True, nogil=True)
def touched(places, length):
    """The behaviours, of so many, that places [m, k] name, in order, and the places [m, k] among these; -1 stays."""
    where, count = np.zeros(length, np.int32), 0
    for row in places:
        for p in row:
            if p >= 0:
                where[p] = 1
    found, local = np.empty(length, np.int64), np.full(places.shape, -1, np.int32)
    for p in range(length):
        if where[p]:
            where[p], found[count] = count, p
            count += 1
    for r in range(len(places)):
        for j in range(places.shape[1]):
            if places[r, j] >= 0:
                local[r, j] = where[places[r, j]]
    return found[:count].copy(), local


@numba.njit(cache=True, nogil=True, error_model="numpy")
def gathered(items, queries, item, query):
    """Keys and values [l, d] of behaviours: the halves of the sums of their rows of items [i, 2 d] and queries [q, 2 d]."""
    d = items.shape[1] // 2
    keys, values = np.empty((len(item), d), np.float32), np.empty((len(item), d), np.float32)
    for e in range(len(item)):
        a, b = items[item[e]], queries[query[e]]
        for x in range(d):
            keys[e, x] = a[x] + b[x]
        for x in range(d):
            values[e, x] = a[d + x] + b[d + x]
    return keys, values


@numba.njit(cache=True, nogil=True, error_model="numpy")
def scattered(keys, values, item, query, i, q):
    """The gradient of `gathered`: slopes in keys and values [l, d], added up in rows [i, 2 d] and [q, 2 d]."""
    d = keys.shape[1]
    items, queries = np.zeros((i, 2 * d), np.float32), np.zeros((q, 2 * d), np.float32)
    for e in range(len(item)):
        for side in (items[item[e]], queries[query[e]]):
            for x in range(d):
                side[x] += keys[e, x]
            for x in range(d):
                side[d + x] += values[e, x]
    return items, queries


@numba.njit(cache=True, nogil=True, inline="always")
def _bin(x):
    return min(max(int(x), 0), _BINS - 1)  # of what is no number: any


@numba.njit(cache=True, nogil=True)
def _best(scores, n, k, begin, low, high, counts, near, out):
    """Places of the k best of scores[:n], offset by begin, in order of place; ties at the k-th go to earlier places."""
    scale = (_BINS - 1) / (high - low) if high > low else 0.0
    counts[:] = 0
    for j in range(n):
        counts[_bin((scores[j] - low) * scale)] += 1
    edge, above = _BINS - 1, 0
    while above + counts[edge] < k:
        above += counts[edge]
        edge -= 1
    m = 0
    for j in range(n):
        if _bin((scores[j] - low) * scale) == edge:
            near[m] = scores[j]
            m += 1
    wanted = k - above
    ordered = np.sort(near[:m])
    least = ordered[m - wanted]
    level = wanted
    for j in range(m - wanted, m):
        if ordered[j] > least:
            level -= 1
    place = 0
    for j in range(n):
        if place == k:
            break
        if scores[j] > least:
            out[place] = begin + j
            place += 1
        elif scores[j] == least and level > 0:
            out[place] = begin + j
            place += 1
            level -= 1
    out[place:] = -1  # scores that are no numbers


@numba.njit(cache=True, nogil=True, error_model="numpy")
def select(by_item, by_query, item, query, time, kind, begin, ends, nows, gap_bias, kind_bias, edges, out):
    """The k places out [n, k] of the best scores of one user's behaviours; fewer are padded with -1.

    by_item [n, i], by_query [n, q] scores of distinct parts, item and query [l] their columns; gap_bias [b], kind_bias.
    """
    t, k = len(ends), out.shape[1]
    c, most = len(by_item) // max(t, 1), len(item)
    bias, scores, near = np.empty(most, np.float32), np.empty(most, np.float32), np.empty(most, np.float32)
    counts = np.zeros(_BINS, np.int64)
    for moment in range(t):
        n = ends[moment] - begin
        if n <= k:
            for row in range(moment * c, (moment + 1) * c):
                for j in range(n):
                    out[row, j] = begin + j
                out[row, n:] = -1
            continue
        bucket = len(edges)
        for j in range(n):  # gaps shrink along the history
            gap = nows[moment] - time[j]
            while bucket > 0 and edges[bucket - 1] >= gap:
                bucket -= 1
            bias[j] = gap_bias[bucket] + kind_bias[kind[j]]
        for row in range(moment * c, (moment + 1) * c):
            low, high = np.float32(np.inf), np.float32(-np.inf)
            for j in range(n):
                s = by_item[row, item[j]] + by_query[row, query[j]] + bias[j]
                scores[j] = s
                low, high = min(low, s), max(high, s)
            _best(scores, n, k, begin, low, high, counts, near, out[row])


@numba.njit(cache=True, nogil=True, inline="always")
def _exp(x):
    """exp of x <= 0 to 2e-7, relative: a polynomial (Cephes) that becomes vector instructions, unlike libm's."""
    x = max(np.float32(-87), x)
    i = np.floor(x * np.float32(1.4426950408889634) + np.float32(0.5))
    r = x - i * np.float32(0.693359375) + i * np.float32(2.12194440e-4)
    p = np.float32(1.9875691500e-4)
    p = p * r + np.float32(1.3981999507e-3)
    p = p * r + np.float32(8.3334519073e-3)
    p = p * r + np.float32(4.1665795894e-2)
    p = p * r + np.float32(1.6666665459e-1)
    p = p * r + np.float32(5.0000001201e-1)
    p = p * r * r + r + np.float32(1)
    return p * np.int32((np.int32(i) + np.int32(127)) << np.int32(23)).view(np.float32)


@numba.njit(cache=True, nogil=True, inline="always")
def _exp2(x):
    """2 to the power of x <= 0 to 3e-10, relative: a polynomial that becomes vector instructions."""
    x = max(-1000.0, x)
    i = np.floor(x + 0.5)
    r = (x - i) * 0.6931471805599453
    p = 1 / 40320
    p = p * r + 1 / 5040
    p = p * r + 1 / 720
    p = p * r + 1 / 120
    p = p * r + 1 / 24
    p = p * r + 1 / 6
    p = p * r + 0.5
    p = p * r * r + r + 1
    return p * np.int64((np.int64(i) + 1023) << 52).view(np.float64)


@numba.njit(cache=True, nogil=True, inline="always")
def meet(out, age, same, lives):
    """Count one behaviour, the later ones last, `age` days old: out [len(lives) + 4] as `repeats` has it before `settle`."""
    f = len(lives)
    for life in range(f):
        out[life] += _exp2(-age / lives[life])
    out[f] = age
    if out[f + 2] == 0:
        out[f + 1] = age
    out[f + 2] += 1
    out[f + 3] += same


@numba.njit(cache=True, nogil=True, inline="always")
def settle(out, f):
    """After the last behaviour: the mean of days between two takes the place of the days since the first."""
    if out[f + 2] > 1:
        out[f + 1] = (out[f + 1] - out[f]) / (out[f + 2] - 1)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def repeats(item, query, time, begin, end, now, rows, asked, lives, slots, out):
    """How often candidates rows [t, c] were met in [begin, end): out [t, c, len(lives) + 4]; slots [i] must be -1.

    Days halve a count after `lives` days. Then: days since the last, mean days between two, the count, and the count for the
    query asked [t] (0: none).
    """
    for t in range(len(rows)):
        for c in range(rows.shape[1]):
            if rows[t, c] > 0 and slots[rows[t, c]] < 0:
                slots[rows[t, c]] = c
        for j in range(begin[t], end[t]):
            c = slots[item[j]]
            if c >= 0:
                meet(out[t, c], max(0.0, (now[t] - time[j]) / DAY), asked[t] > 0 and query[j] == asked[t], lives)
        for c in range(rows.shape[1]):
            if rows[t, c] > 0 and slots[rows[t, c]] != c:
                out[t, c] = out[t, slots[rows[t, c]]]
        for c in range(rows.shape[1]):
            slots[rows[t, c]] = -1
            settle(out[t, c], len(lives))


@numba.njit(cache=True, nogil=True, error_model="numpy")
def columns(found, out):
    """Features out [n, f + 3] of what `repeats` found [n, f + 4]; `model.nn.features.repeats` says which."""
    f = found.shape[1] - 4
    for n in range(len(found)):
        since, mean, times = found[n, f], found[n, f + 1], found[n, f + 2]
        for life in range(f):
            out[n, life] = np.log1p(10 * found[n, life]) / 3
        out[n, f] = np.log1p(since) / 3 if times > 0 else 0.0
        out[n, f + 1] = np.log1p(mean) / 3 if times > 1 else 0.0
        out[n, f + 2] = min(max(np.log((since + 1) / (mean + 1)), -3.0), 3.0) if times > 1 else 0.0


@numba.njit(cache=True, nogil=True, fastmath=_FLAGS, error_model="numpy")
def pool(cosines, column, item, time, ends, nows, rings, newest, out):
    """Histograms out [n, 3, b] of cosines [n, i] of one user's candidates and distinct items, in bins around 0 to 1.

    column [l]: of each behaviour's item, which counts where item [l] > 0; rings [2]: ages (ms) that end the first two.
    Of what a moment sees, behaviours [0, ends[t]), the newest count. A cosine is shared by the two bins around it.
    """
    bins = out.shape[2]
    c, steps = len(cosines) // max(len(ends), 1), np.float32(bins - 1)
    held = np.zeros((3, cosines.shape[1]), np.float32)
    for t in range(len(ends)):
        held[:] = 0
        ring = 2
        for j in range(max(0, ends[t] - newest), ends[t]):
            while ring > 0 and nows[t] - time[j] <= rings[ring - 1]:  # ages shrink along the history
                ring -= 1
            if item[j] > 0:
                held[ring, column[j]] += 1
        latest, later, early = held
        for n in range(t * c, (t + 1) * c):
            row = cosines[n]
            for b in range(bins):
                x = y = z = np.float32(0)
                for u in range(len(row)):
                    at = min(max(row[u], np.float32(0)), np.float32(1)) * steps
                    near = max(np.float32(1) - abs(at - np.float32(b)), np.float32(0))
                    x += near * latest[u]
                    y += near * later[u]
                    z += near * early[u]
                out[n, 0, b], out[n, 1, b], out[n, 2, b] = x, y, z
