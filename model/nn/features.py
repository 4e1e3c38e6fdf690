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

CONTEXT = 6
HALF_LIVES_DAYS = (7.0, 30.0, 180.0, math.inf)
REPEATS = len(HALF_LIVES_DAYS) + 3
COUNTERS = 2 * REPEATS + 4
POPULARITY = 5
_DAY, _WEEK = 86_400_000, 7 * 86_400_000


def context(history: History, seen: Seen) -> Tensor:
    """Features [t, 6] of moments: hour and weekday as circles, log gap since the last behaviour, log length."""
    now, length = seen.now, seen.end - seen.begin
    last = history.time[(seen.end - 1).clamp(min=0)] if len(history.time) else now
    turns = torch.stack([(now % _DAY) / _DAY, (now % _WEEK) / _WEEK], 1).double() * 2 * math.pi
    gap = ((now - last).clamp(min=0).double() / 3_600_000).log1p() / 5
    rest = torch.stack([gap * (length > 0), length.double().log1p() / 5], 1)
    return torch.cat([turns.sin(), turns.cos(), rest], 1).float()


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
    own, times, after = repeats(history, seen, items, queries)
    kinds, kind_times, _ = repeats(history, seen, types)
    browsed = np.concatenate([np.zeros(1), np.cumsum(history.item.numpy() > 0)])
    total = (browsed[seen.end.numpy()] - browsed[seen.begin.numpy()]).clip(min=1)[:, None]
    shares = [times / total, kind_times / total, times / kind_times.clip(min=1)]
    rest = np.stack([*shares, np.log1p(10 * after) / 3], 2)
    return torch.from_numpy(np.concatenate([own, kinds, rest], 2).astype(np.float32))


def repeats(
    history: History, seen: Seen, keyed: Keyed, queries: Tensor | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """How often behaviours had a candidate's key: features [t, c, 7], times [t, c], times for the same query [t, c].

    log(1 + 10 times the count), each time halved with age, for four half-lives (having browsed once, long ago, is far from
    never); the log of days since the last time (0: never); of the mean days between two times (0: fewer than two); and the
    log of the former over the latter: whether what is browsed regularly is due again.
    """
    found = np.zeros((*keyed.wanted.shape, len(HALF_LIVES_DAYS) + 4))
    asked = np.zeros(len(found), np.int64) if queries is None else queries[:, 0].numpy()
    kernels.repeats(
        *(x.numpy() for x in (keyed.behaviours, history.query, history.time, *seen, keyed.wanted)),
        *(asked, np.array(HALF_LIVES_DAYS), np.full(keyed.size, -1, np.int64), found),
    )
    counts, since, mean, times, after = np.split(found, [-4, -3, -2, -1], axis=2)
    columns = [
        np.log1p(10 * counts) / 3,
        np.log1p(since) / 3 * (times > 0),
        np.log1p(mean) / 3 * (times > 1),
        np.log((since + 1) / (mean + 1)).clip(-3, 3) * (times > 1),
    ]
    return np.concatenate(columns, 2), times[..., 0], after[..., 0]
