"""Plain features of a moment and of a candidate in it, beside what attention finds; the same in training and serving.

Letters: t moments, c candidates of a moment, i distinct items.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.nn import kernels
from model.nn.inputs import History, Seen

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

CONTEXT = 6
HALF_LIVES_DAYS = (7.0, 30.0, 180.0, math.inf)
REPEATS = len(HALF_LIVES_DAYS) + 3
COUNTERS = 2 * REPEATS + 4
POPULARITY = 5
PLAIN = COUNTERS + POPULARITY + CONTEXT + 2
LIVES = np.array(HALF_LIVES_DAYS)
FOUND = len(HALF_LIVES_DAYS) + 4
_DAY, _WEEK = 86_400_000, 7 * 86_400_000


def plain(
    items: Tensor, queries: Tensor, popularity: Tensor, history: History, seen: Seen, types: Tensor, source: Tensor
) -> Tensor:
    """All of them [t, c, 31]: `counters`, popularity [t, c, 5], `context`, 1 where there is a query, 1 for what was shown.

    Rows of items and queries [t, c] as in the history; types [1 + i]: what each item is (0: not known). source [t]: 1 for a
    list that was shown, 0 for candidates from the whole catalogue. What of a list is clicked, and what of everything is gone
    on to, are different questions: a list was chosen with some of what counters say in mind.
    """
    by_type = Keyed(types[history.item], types[items], int(types.max()) + 1)
    counted = counters(history, seen, Keyed(history.item, items, len(types)), by_type, queries)
    about = context(history, seen).unsqueeze(1).expand(-1, items.shape[1], -1)
    shown = source.view(-1, 1, 1).expand(*items.shape, 1)
    return torch.cat([counted, popularity, about, (queries > 0).unsqueeze(-1), shown], -1)


def context(history: History, seen: Seen) -> Tensor:
    """Features [t, 6] of moments, as `moments` gives them."""
    time, end, now = history.time.numpy(), seen.end.numpy(), seen.now.numpy()
    last = time[np.maximum(end - 1, 0)] if len(time) else now
    return torch.from_numpy(moments(now, last, end - seen.begin.numpy()))


def moments(now: Ints, last: Ints, length: Ints) -> Floats:
    """Features [t, 6] of moments (ms), of what came last before them (ms) and of how many came before; all [t].

    Hour and weekday as circles, log gap since the last behaviour, log length.
    """
    turns = np.stack([now % _DAY / _DAY, now % _WEEK / _WEEK], 1) * (2 * math.pi)
    gap = np.log1p(np.maximum(now - last, 0) / 3_600_000) / 5 * (length > 0)
    return np.column_stack([np.sin(turns), np.cos(turns), gap, np.log1p(length) / 5]).astype(np.float32)


class Keyed(NamedTuple):
    """What repeats are counted of: keys [l] of behaviours, wanted [t, c] of candidates, below size; 0 counts as never."""

    behaviours: Tensor
    wanted: Tensor
    size: int


def counters(history: History, seen: Seen, items: Keyed, types: Keyed, queries: Tensor) -> Tensor:
    """User-to-item and user-to-type features [t, c, 18] of candidates; queries [t, c]: rows of what is asked.

    `repeats` of the item, then of its type; the shares of the item and of the type in all that was browsed, the item's in
    its type, and log(1 + 10 times how often the item was browsed for this very query).
    """
    browsed = np.concatenate([np.zeros(1), np.cumsum(history.item.numpy() > 0)])
    total = browsed[seen.end.numpy()] - browsed[seen.begin.numpy()]
    return torch.from_numpy(counted(repeats(history, seen, items, queries), repeats(history, seen, types), total))


class Met(NamedTuple):
    """How often behaviours had a candidate's key: features [t, c, 7], times and times for the same query [t, c]."""

    columns: NDArray[np.float64]
    times: NDArray[np.float64]
    after: NDArray[np.float64]


def counted(items: Met, types: Met, browsed: NDArray[np.float64]) -> Floats:
    """The features of `counters` [t, c, 18]; browsed [t]: behaviours with an item."""
    total = browsed.clip(min=1)[:, None]
    shares = [items.times / total, types.times / total, items.times / types.times.clip(min=1)]
    rest = np.stack([*shares, np.log1p(10 * items.after) / 3], 2)
    return np.concatenate([items.columns, types.columns, rest], 2).astype(np.float32)


def repeats(history: History, seen: Seen, keyed: Keyed, queries: Tensor | None = None) -> Met:
    """What `met` makes of a candidate's key, in the moments' own stretches; queries [t, c]: rows of what is asked."""
    found = np.zeros((*keyed.wanted.shape, FOUND))
    asked = np.zeros(len(found), np.int64) if queries is None else queries[:, 0].numpy()
    kernels.repeats(
        *(x.numpy() for x in (keyed.behaviours, history.query, history.time, *seen, keyed.wanted)),
        *(asked, LIVES, np.full(keyed.size, -1, np.int64), found),
    )
    return met(found)


def met(found: NDArray[np.float64]) -> Met:
    """Features of what `kernels.repeats` found [t, c, FOUND].

    log(1 + 10 times the count), each time halved with age, for four half-lives (having browsed once, long ago, is far from
    never); the log of days since the last time (0: never); of the mean days between two times (0: fewer than two); and the
    log of the former over the latter: whether what is browsed regularly is due again.
    """
    columns = np.empty((*found.shape[:2], REPEATS))
    kernels.columns(found.reshape(-1, FOUND), columns.reshape(-1, REPEATS))
    return Met(columns, found[..., -2], found[..., -1])
