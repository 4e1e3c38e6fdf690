"""How much of what a user browsed is how similar to a candidate: SimTier (arXiv 2407.19467) over item parts, and over time.

The search keeps the k best behaviours. Whether these are all there was to find, or k of a thousand, attention cannot tell.
This does: for each candidate, a histogram of the cosines of its item part and those of what was browsed. A cosine counts for
both bins that it lies between, for the nearer one more (pooling by kernels, as in arXiv 1706.06613), so that an error of
rounding moves no count. Counters say the same of the very item and of its type; this, of all that resembles it.

Letters: t moments, c candidates, n = t c, l behaviours, i distinct items of a user, d width, r rings of time, b bins.
"""

from itertools import pairwise
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from model.nn import kernels
from model.nn.features import Floats, Ints
from model.nn.folded import Rows, read_only
from model.nn.inputs import History, Seen

BINS = 11
"""Cosines of 0, .1, ..., 1; below 0 is as 0."""
DAYS = (14, 60)
"""Counts are of behaviours at most so old, and of all: two of them, since `kernels.pool` sums three rings in one pass."""
TIERS = BINS * (len(DAYS) + 1)
NEWEST = 10_000
"""No more behaviours than these are compared, so that a lifetime of any length costs no more."""
_RINGS = np.array(DAYS, np.int64) * 86_400_000
_LEAST = np.float32(1e-8)


class Table(Protocol):
    """Item parts of rows (`model.search.keys.Parts`)."""

    def take(self, rows: Ints) -> Floats:
        """Parts [i, d]."""


def tiers(items: Tensor, parts: Tensor, history: History, seen: Seen) -> Tensor:
    """Features [t, c, 33] of candidates, rows items [t, c] of the item parts [1 + i, d]; without a gradient.

    Logs of counts by bin, of the last 14 and 60 days and of all.
    """
    unit, rows = _unit(parts.detach().numpy()), items.numpy()
    begins, ends, nows = (x.numpy() for x in seen)
    found = np.zeros((*rows.shape, len(DAYS) + 1, BINS), np.float32)
    for a, b in pairwise([0, *(np.flatnonzero(np.diff(begins)) + 1).tolist(), len(begins)]):
        here = slice(int(begins[a]) if b else 0, int(ends[a:b].max(initial=0)))
        item, time = history.item[here].numpy(), history.time[here].numpy()
        distinct, column = kernels.distinct(item)
        cosines = unit[rows[a:b].ravel()] @ unit[distinct].T
        into = found[a:b].reshape(len(cosines), *found.shape[2:])
        kernels.pool(cosines, column, item, time, ends[a:b] - here.start, nows[a:b], _RINGS, NEWEST, into)
    return torch.from_numpy(_features(found))


def tiers_of_moment(wanted: Floats, table: Table, item: Rows, time: Ints, now: int) -> Floats:
    """The same [c, 33] in serving, of item parts [c, d] at a moment (ms): rows and times [l] are what was browsed before."""
    item, time = read_only(item[-NEWEST:]), read_only(time[-NEWEST:])
    distinct, column = kernels.distinct(item)
    cosines = _unit(wanted) @ _unit(table.take(distinct)).T
    found = np.zeros((len(wanted), len(DAYS) + 1, BINS), np.float32)
    kernels.pool(cosines, column, item, time, np.array([len(item)]), np.array([now]), _RINGS, NEWEST, found)
    return _features(found)


def _features(found: Floats) -> Floats:
    """Of counts [..., r, b] in rings, features [..., r b]: each ring's counts are added to those of older ones."""
    features: Floats = (np.log1p(found.cumsum(-2)) / 5).reshape(*found.shape[:-2], TIERS).astype(np.float32)
    return features


def _unit(parts: Floats) -> Floats:
    """Rows [n, d] of length 1; what is nothing stays nothing."""
    length = np.sqrt(np.einsum("nd,nd->n", parts, parts))
    unit: Floats = parts / np.maximum(length, _LEAST)[:, None]
    return unit
