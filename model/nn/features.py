"""Plain features of a moment and of a candidate in it, beside what attention finds; the same in training and serving.

Letters: t moments, c candidates of a moment.
"""

import math

import numpy as np
import torch
from torch import Tensor

from model.nn import kernels
from model.nn.inputs import History, Seen

CONTEXT = 6
HALF_LIVES_DAYS = (7.0, 30.0, 180.0, math.inf)
REPEATS = len(HALF_LIVES_DAYS) + 2
POPULARITY = 3
_DAY, _WEEK = 86_400_000, 7 * 86_400_000


def context(history: History, seen: Seen) -> Tensor:
    """Features [t, 6] of moments: hour and weekday as circles, log gap since the last behaviour, log length."""
    now, length = seen.now, seen.end - seen.begin
    last = history.time[(seen.end - 1).clamp(min=0)] if len(history.time) else now
    turns = torch.stack([(now % _DAY) / _DAY, (now % _WEEK) / _WEEK], 1).double() * 2 * math.pi
    gap = ((now - last).clamp(min=0).double() / 3_600_000).log1p() / 5
    rest = torch.stack([gap * (length > 0), length.double().log1p() / 5], 1)
    return torch.cat([turns.sin(), turns.cos(), rest], 1).float()


def repeats(history: History, seen: Seen, items: Tensor, rows: int) -> Tensor:
    """User-to-item features [t, c, 6] of items [t, c] (rows of the parts, of which there are `rows`).

    log(1 + 10 times how often the item was browsed), each time halved with age, for four half-lives; then the log of days
    since the last time (0: never), and the log of those days over the mean interval (0: fewer than two times): whether
    what is bought regularly is due again.
    """
    found = np.zeros((*items.shape, len(HALF_LIVES_DAYS) + 3))
    slots = np.full(rows, -1, np.int64)
    kernels.repeats(
        *(x.numpy() for x in (history.item, history.time, *seen)), items.numpy(), np.array(HALF_LIVES_DAYS), slots, found
    )
    counts, since, mean, times = np.split(found, [-3, -2, -1], axis=2)
    # Times 10: having bought once, long ago, is far from never.
    columns = [
        np.log1p(10 * counts),
        np.log1p(since) / 3 * (times > 0),
        np.log((since + 1) / (mean + 1)).clip(-3, 3) * (times > 1),
    ]
    return torch.from_numpy(np.concatenate(columns, 2).astype(np.float32))
