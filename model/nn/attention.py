"""Multi-head target attention, shared by the search unit (GSU) and the exact unit (ESU), as in TWIN (arXiv 2302.02352).

Letters: t moments, c candidates of a moment, n = t c targets, l behaviours, k places, h heads, e width of a head, d model
width. The logit of head h is <W_Q^h target, W_K^h key> / sqrt(e) + a bias of time gap and behaviour kind. The GSU's score is
the mean of the heads' logits, one folded query per target; the ESU attends head by head with the same W_Q and W_K. A null
behaviour of logit 0 and value 0 takes part in every softmax: an empty history is a case like any other.
"""

import math
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model.nn import kernels
from model.nn.attend import Given, attend, attend_backward
from model.nn.inputs import History, Interest, Parts, Seen

# Upper ends of the time-gap buckets: 1 minute to 2 years, log-spaced (ms).
GAP_EDGES = tuple(int(60_000 * (2 * 365 * 1440) ** (i / 22)) for i in range(23))
BUCKETS = len(GAP_EDGES) + 1
KINDS = 4
_EDGES = np.array(GAP_EDGES, np.int64)


def gap_buckets(gap_ms: Tensor) -> Tensor:
    """The bucket of each gap (any shape, ms)."""
    return torch.bucketize(gap_ms, torch.tensor(GAP_EDGES))


class TargetAttention(nn.Module):
    """Scores, selects and attends; parameters are PSU-pretrained and restored by the click model."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        width = dim // heads
        # Heads begin as slices of one rotation, alike for targets and keys: logits begin as similarities.
        turn = torch.linalg.qr(torch.randn(dim, dim)).Q.reshape(dim, heads, width).permute(1, 0, 2)
        self.w_q = nn.Parameter(2.0 * turn.clone())
        self.w_k = nn.Parameter(turn.clone())
        self.w_v = nn.Parameter(turn.clone())
        self.w_o = nn.Parameter(torch.eye(dim))
        self.gap_bias = nn.Parameter(torch.zeros(heads, BUCKETS))
        self.kind_bias = nn.Parameter(torch.zeros(heads, KINDS))
        self._scale = 1 / math.sqrt(width)

    def fold(self, targets: Tensor) -> Tensor:
        """Folded queries [..., d] of targets [..., d]: their inner product with a key is the mean head logit."""
        metric = torch.einsum("hde,hfe->df", self.w_q, self.w_k) * (self._scale / len(self.w_q))
        return targets @ metric

    def bias(self, gap_ms: Tensor, kinds: Tensor) -> Tensor:
        """The GSU's bias (any shape) of gaps (ms) and kinds: the mean over heads."""
        return self.gap_bias.mean(0)[gap_buckets(gap_ms)] + self.kind_bias.mean(0)[kinds]

    def select(self, targets: Tensor, parts: Parts, history: History, seen: Seen, k: int) -> Tensor:
        """The places [n, k] in the history of each target's k best behaviours by the GSU; fewer are padded with -1."""
        with torch.no_grad():
            folded = self.fold(targets.detach())
            gap, kind = _array(self.gap_bias.mean(0)), _array(self.kind_bias.mean(0))
            out = np.empty((folded.shape[0] * folded.shape[1], k), np.int32)
            at = 0
            for begin, ends, nows, rows in _by_user(folded, seen):
                here = slice(begin, int(ends.max(initial=begin)))
                items, item = kernels.distinct(history.item[here].numpy())
                queries, query = kernels.distinct(history.query[here].numpy())
                by_item = rows @ parts.item[torch.from_numpy(items)].T
                by_query = rows @ parts.query[torch.from_numpy(queries)].T
                time, kinds = history.time[here].numpy(), history.kind[here].numpy()
                kernels.select(
                    *(by_item.numpy(), by_query.numpy(), item, query, time, kinds),
                    *(begin, ends, nows, gap, kind, _EDGES, out[at : at + len(rows)]),
                )
                at += len(rows)
        return torch.from_numpy(out)

    def forward(self, targets: Tensor, parts: Parts, history: History, seen: Seen, places: Tensor) -> Interest:
        """Attend targets [t, c, d] over places [t or n, k] (int32, -1: none) of the history.

        The mass is log(1 + sum of exp(logits)), a learned count of matching behaviours.
        """
        t, c, d = targets.shape
        # Heads innermost, as the compiled loops want them.
        w_q, w_k, w_v = (w.permute(1, 2, 0).reshape(d, d) for w in (self.w_q, self.w_k, self.w_v))
        w_o = self.w_o.view(len(self.w_q), -1, d).transpose(0, 1).reshape(d, d)
        w_kv = torch.cat([w_k, w_v], 1)
        out, mass, weights = _Attend.apply(  # type: ignore[no-untyped-call]  # torch gives it no types
            (targets.reshape(t * c, d) @ w_q) * self._scale,
            parts.item @ w_kv,  # what repeats in a history is projected once
            parts.query @ w_kv,
            self.gap_bias,
            self.kind_bias,
            tuple(x.numpy() for x in history),
            seen.now.numpy(),
            places.numpy(),
        )
        weights = weights.view(t, c, -1, len(self.w_q)).transpose(2, 3)
        return Interest((out @ w_o).view(t, c, d), mass.view(t, c, -1), weights)


def _array(x: Tensor) -> NDArray[Any]:
    return np.ascontiguousarray(x.detach().numpy())


def _by_user(folded: Tensor, seen: Seen) -> list[tuple[int, NDArray[Any], NDArray[Any], Tensor]]:
    """Stretches of moments that share their begin: begin, ends, nows, folded queries [n, d]."""
    begins, ends, nows = (x.numpy() for x in seen)
    cuts = [0, *(np.flatnonzero(np.diff(begins)) + 1).tolist(), len(begins)]
    return [
        (int(begins[a]), ends[a:b], nows[a:b], folded[a:b].reshape(-1, folded.shape[-1])) for a, b in pairwise(cuts) if b > a
    ]


class _Attend(torch.autograd.Function):
    """`attend.attend` with its gradient: of items and queries [i, 2 d], [q, 2 d], whose sums are keys and values."""

    @staticmethod
    def forward(ctx: Any, *given: Any) -> Any:
        *vectors, gap, kind_bias, history, now, places = given
        q, items, queries = (_array(x) for x in vectors)
        # Only what some target attends to has a key and a value.
        touched, places = kernels.touched(places, len(history[0]))
        item, query, time, kind = (np.ascontiguousarray(x[touched], np.int64) for x in history)
        keys, values = kernels.gathered(items, queries, item, query)
        bias = (gap.T.unsqueeze(1) + kind_bias.T).detach().numpy()
        ctx.given = Given(q, keys, values, bias, time, kind, np.ascontiguousarray(now, np.int64), _EDGES, places)
        ctx.rows = item, query, len(items), len(queries)
        ctx.found = attend(ctx.given)
        result = tuple(torch.from_numpy(x) for x in ctx.found[:3])
        ctx.mark_non_differentiable(result[2])
        return result

    @staticmethod
    def backward(ctx: Any, d_out: Tensor, d_mass: Tensor, _: Any) -> Any:
        slopes = attend_backward(ctx.given, ctx.found, _array(d_out), _array(d_mass))
        sides = kernels.scattered(slopes.keys, slopes.values, *ctx.rows)
        q, items, queries, bias = (torch.from_numpy(x) for x in (slopes.q, *sides, slopes.bias))
        return q, items, queries, bias.sum(1).T, bias.sum(0).T, None, None, None
