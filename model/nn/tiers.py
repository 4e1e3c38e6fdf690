"""How much of what a user browsed is how similar to a candidate: SimTier (arXiv 2407.19467) over what the model learned, and
over time.

The search keeps the k best behaviours. Whether these are all there was to find, or k of a thousand, attention cannot tell.
This does: for each candidate, a histogram of the cosines between it and what was browsed, of item parts and of what
single modalities say (alike by attributes is another thing than alike by id). A cosine counts for both bins that it lies
between, for the nearer one more (pooling by kernels, as in arXiv 1706.06613), so that an error of rounding moves no count.
Counters say the same of the very item and of its type; this, of all that resembles it.

Letters: s what is compared, t moments, c candidates, n = t c, l behaviours, i distinct items of a user, d width, r rings of
time, b bins.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.nn import kernels
from model.nn.features import Floats, Ints
from model.nn.folded import Rows, read_only
from model.nn.inputs import History, Parts, Seen
from model.nn.modalities import ItemEncoder

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
    """Unit vectors of rows (`model.search.keys.Column`)."""

    def take(self, rows: NDArray[np.integer[Any]]) -> Floats:
        """Vectors [i, d]."""


def compared(names: Sequence[str], parts: Parts) -> list[Floats]:
    """Unit vectors [1 + i, d] of the items by each name: `item`, their parts, or one of `ItemEncoder.modalities`."""
    found = []
    for name in names:
        if name == "item":
            found.append(unit(parts.item.detach().numpy()))
            continue
        assert parts.modalities is not None
        own = parts.modalities[:, ItemEncoder.modalities.index(name)].numpy()
        found.append(unit(np.concatenate([np.zeros_like(own[:1]), own])))
    return found


def tiers(items: Tensor, alike: Sequence[Floats], history: History, seen: Seen) -> Tensor:
    """Features [t, c, 33 s] of candidates, rows items [t, c] of unit vectors [1 + i, d]; without a gradient.

    Logs of counts by bin, of the last 14 and 60 days and of all, for each of the s that are compared.
    """
    rows = items.numpy()
    begins, ends, nows = (x.numpy() for x in seen)
    found = np.zeros((len(alike), *rows.shape, len(DAYS) + 1, BINS), np.float32)
    for a, b in pairwise([0, *(np.flatnonzero(np.diff(begins)) + 1).tolist(), len(begins)]):
        here = slice(int(begins[a]) if b else 0, int(ends[a:b].max(initial=0)))
        item, time = history.item[here].numpy(), history.time[here].numpy()
        distinct, column = kernels.distinct(item)
        for vectors, counts in zip(alike, found, strict=True):
            cosines = vectors[rows[a:b].ravel()] @ vectors[distinct].T
            into = counts[a:b].reshape(len(cosines), *counts.shape[2:])
            kernels.pool(cosines, column, item, time, ends[a:b] - here.start, nows[a:b], _RINGS, NEWEST, into)
    return torch.from_numpy(_features(found))


def tiers_of_moment(wanted: Rows, alike: Sequence[Table], item: Rows, time: Ints, now: int) -> Floats:
    """The same [c, 33 s] in serving, of candidates' rows [c] at a moment (ms): rows and times [l] are what was browsed."""
    item, time = read_only(item[-NEWEST:]), read_only(time[-NEWEST:])
    distinct, column = kernels.distinct(item)
    found = np.zeros((len(alike), len(wanted), len(DAYS) + 1, BINS), np.float32)
    for table, counts in zip(alike, found, strict=True):
        cosines = table.take(wanted) @ table.take(distinct).T
        kernels.pool(cosines, column, item, time, np.array([len(item)]), np.array([now]), _RINGS, NEWEST, counts)
    return _features(found)


def unit(vectors: Floats) -> Floats:
    """Vectors [n, d] at length 1; what is nothing stays nothing."""
    length = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
    found: Floats = vectors / np.maximum(length, _LEAST)[:, None]
    return found


def _features(found: Floats) -> Floats:
    """Of counts [s, ..., r, b] in rings, features [..., s r b]: each ring's counts are added to those of older ones."""
    logs = (np.log1p(found.cumsum(-2)) / 5).reshape(*found.shape[:-2], TIERS)
    features: Floats = np.moveaxis(logs, 0, -2).reshape(*found.shape[1:-2], len(found) * TIERS).astype(np.float32)
    return features
