"""Multi-head target attention, shared by the search unit (GSU) and the exact unit (ESU), as in TWIN (arXiv 2302.02352).

Letters: t moments, c candidates of a moment, n = t c targets, l behaviours, k places, h heads, e width of a head, d model
width. The logit of head h is <W_Q^h target, W_K^h key> / sqrt(e) + a bias of time gap and behaviour kind. The GSU's score is
the mean of the heads' logits, one folded query per target; the ESU attends head by head with the same W_Q and W_K. A null
behaviour of logit 0 and value 0 takes part in every softmax: an empty history is a case like any other.
"""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from model.nn import kernels
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
        w_q, w_k, w_v = (w.permute(1, 0, 2).reshape(d, d) for w in (self.w_q, self.w_k, self.w_v))
        # What repeats in a history is projected once.
        keys, values = (
            F.embedding(history.item, parts.item @ w) + F.embedding(history.query, parts.query @ w) for w in (w_k, w_v)
        )
        out, mass, weights = _Attend.apply(  # type: ignore[no-untyped-call]  # torch gives it no types
            (targets.reshape(t * c, d) @ w_q) * self._scale,
            keys,
            values,
            self.gap_bias,
            self.kind_bias,
            (history.time.numpy(), history.kind.numpy(), seen.now.numpy()),
            places.numpy(),
            c,
        )
        weights = weights.view(t, c, -1, len(self.w_q)).transpose(2, 3)
        return Interest((out @ self.w_o).view(t, c, d), mass.view(t, c, -1), weights)


def _array(x: Tensor) -> NDArray[Any]:
    return np.ascontiguousarray(x.detach().numpy())


def _by_user(folded: Tensor, seen: Seen) -> list[tuple[int, NDArray[Any], NDArray[Any], Tensor]]:
    """Stretches of moments that share their begin: begin, ends, nows, folded queries [n, d]."""
    begins, ends, nows = (x.numpy() for x in seen)
    cuts = [0, *(np.flatnonzero(np.diff(begins)) + 1).tolist(), len(begins)]
    return [
        (int(begins[a]), ends[a:b], nows[a:b], folded[a:b].reshape(-1, folded.shape[-1])) for a, b in pairwise(cuts) if b > a
    ]


@lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "attend")


def _each(run: Callable[[int, int], Any], n: int) -> list[Any]:
    """Run over stretches of n targets, one a thread of torch's; a few targets are not worth a thread."""
    threads = torch.get_num_threads()
    if threads == 1 or n < 256:
        return [run(0, n)]
    cuts = np.linspace(0, n, threads + 1).astype(int).tolist()
    return list(_pool(threads).map(run, cuts[:-1], cuts[1:]))


class _Attend(torch.autograd.Function):
    """`kernels.attend` with its gradient."""

    @staticmethod
    def forward(ctx: Any, *given: Any) -> Any:
        *vectors, gap, kind_bias, (time, kind, now), places, c = given
        q, keys, values = (_array(x) for x in vectors)
        (n, d), h, k = q.shape, len(gap), places.shape[1]
        out, mass, weights = (np.empty(shape, np.float32) for shape in ((n, d), (n, h), (n, k, h)))
        bucket = np.empty(places.shape, np.uint8)
        attend, _ = kernels.attention(h, d // h)
        biases, found = (_array(gap), _array(kind_bias)), (bucket, out, mass, weights)
        _each(
            lambda first, last: attend(first, last, c, q, keys, values, *biases, time, kind, now, _EDGES, places, *found), n
        )
        ctx.saved = q, keys, values, kind, places, bucket, weights
        ctx.shapes = gap.shape, kind_bias.shape
        result = tuple(torch.from_numpy(x) for x in (out, mass, weights))
        ctx.mark_non_differentiable(result[2])
        return result

    @staticmethod
    def backward(ctx: Any, d_out: Tensor, d_mass: Tensor, _: Any) -> Any:
        q, keys, values = ctx.saved[:3]
        slopes, d_q = (_array(d_out), _array(d_mass)), np.empty_like(q)
        _, backward = kernels.attention(d_mass.shape[1], q.shape[1] // d_mass.shape[1])

        def run(first: int, last: int) -> list[NDArray[Any]]:
            sums = [np.zeros(shape, np.float32) for shape in (keys.shape, values.shape, *ctx.shapes)]
            backward(first, last, *ctx.saved, *slopes, d_q, *sums)
            return sums

        sums = [torch.from_numpy(sum(found[1:], found[0])) for found in zip(*_each(run, len(d_q)), strict=True)]
        return (torch.from_numpy(d_q), *sums, None, None, None)
