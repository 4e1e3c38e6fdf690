"""Multi-head target attention, shared by the search unit (GSU) and the exact unit (ESU), as in TWIN (arXiv 2302.02352).

Letters: t moments (each with its prefix of the history), c candidates of a moment, l behaviours, h heads, e width of a
head, d model width. The logit of head h is <W_Q^h target, W_K^h key> / sqrt(e) + a bias of time gap and behaviour kind. The
GSU's score is the mean of the heads' logits, one folded query per target; the ESU attends head by head with the same W_Q and
W_K. A null behaviour of logit 0 and value 0 takes part in every softmax: an empty history is a case like any other.
"""

import math

import torch
from torch import Tensor, nn

# Upper ends of the time-gap buckets: 1 minute to 2 years, log-spaced (ms).
GAP_EDGES = tuple(int(60_000 * (2 * 365 * 1440) ** (i / 22)) for i in range(23))
BUCKETS = len(GAP_EDGES) + 1
KINDS = 4


def gap_buckets(gap_ms: Tensor) -> Tensor:
    """The bucket of each gap (any shape, ms)."""
    return torch.bucketize(gap_ms, torch.tensor(GAP_EDGES))


def select(scores: Tensor, mask: Tensor, k: int) -> Tensor:
    """Which behaviours each target retrieves: bool [t, c, l] from GSU scores [t, c, l] and mask [t, 1 or c, l]."""
    scores = scores.masked_fill(~mask, -torch.inf)
    if scores.shape[-1] <= k:
        return mask.expand_as(scores)
    best = scores.topk(k, dim=-1).indices
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(-1, best, True) & mask


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

    def bias(self, buckets: Tensor, kinds: Tensor) -> Tensor:
        """Biases [h, t, l] of gap buckets [t, l] and kinds [l]."""
        return self.gap_bias[:, buckets] + self.kind_bias[:, kinds].unsqueeze(1)

    def forward(self, targets: Tensor, keys: Tensor, bias: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Attend targets [t, c, d] over keys: [l, d] shared by all, [t, l, d] a moment's, or [t, c, l, d] gathered.

        bias: [t, 1 or c, h, l]; mask: [t, 1 or c, l]. Returns the interest [t, c, d]; the mass [t, c, h], which is
        log(1 + sum of exp(logits)), a learned count of matching behaviours; and the weights [t, c, h, l].
        """
        q = torch.einsum("tcd,hde->tche", targets, self.w_q) * self._scale
        if keys.shape[-2] == 0:
            return torch.zeros_like(targets), torch.zeros_like(q[..., 0]), q[..., :0]
        spelled = {2: "lhe", 3: "tlhe", 4: "tclhe"}[keys.dim()]
        k = torch.einsum("...d,hde->...he", keys, self.w_k)
        v = torch.einsum("...d,hde->...he", keys, self.w_v)
        logits = torch.einsum(f"tche,{spelled}->tchl", q, k) + bias
        logits = logits.masked_fill(~mask.unsqueeze(2), -torch.inf)
        top = logits.detach().amax(-1, keepdim=True).clamp(min=0)
        exponents = (logits - top).exp()
        total = exponents.sum(-1, keepdim=True) + (-top).exp()
        weights = exponents / total
        mixed = torch.einsum(f"tchl,{spelled}->tche", weights, v)
        return mixed.flatten(2) @ self.w_o, (top + total.log()).squeeze(-1), weights
