"""SDIM (arXiv 2205.10249): no top-k; behaviours that share hash signatures with the target are pooled.

m = 48 fixed random hyperplanes in groups of 3: a behaviour counts in a group where it has the target's three signs. Over the
groups that is an attention with expected weight (1 - arccos(cos(target, key)) / pi)^3, at a cost that does not depend on
the length of the history once buckets are summed. Values pass through the shared W_V and W_O, for they are what the other
methods' heads have as well; the pooled vector is normalised, as in the paper, here by the sum of the weights.

Letters: t moments, c candidates, l behaviours, d width, g groups, h heads.
"""

import torch
from torch import Tensor

from model.nn.attention import TargetAttention
from model.nn.inputs import History, Interest, Parts, Seen, Targets
from model.nn.units import by_user, directions, keys

HASHES, GROUP = 48, 3


def sdim(attention: TargetAttention, k: int, targets: Targets, history: History, parts: Parts, seen: Seen) -> Interest:
    """What bucket pooling finds; the mass is log(1 + sum of weights), the same for each head."""
    t, c, d = targets.vector.shape
    heads = len(attention.w_v)
    w_v = attention.w_v.permute(1, 0, 2).reshape(d, d)
    values_of_items, values_of_queries = parts.item @ w_v, parts.query @ w_v
    pooled, mass = [], []
    done = 0
    for moments, behaviours in by_user(seen):
        for _ in range(moments.start - done):  # users who see nothing
            pooled.append(targets.vector.new_zeros(1, c, d))
            mass.append(targets.vector.new_zeros(1, c))
        done = moments.stop
        weights = collisions(targets.vector[moments], keys(parts, history, behaviours))
        place = torch.arange(behaviours.start, behaviours.stop)
        weights = weights * (place < seen.end[moments].view(-1, 1, 1))
        total = weights.sum(-1)
        values = values_of_items[history.item[behaviours]] + values_of_queries[history.query[behaviours]]
        pooled.append((weights @ values) / total.clamp(min=1e-6).unsqueeze(-1))
        mass.append(total.log1p())
    for _ in range(t - done):
        pooled.append(targets.vector.new_zeros(1, c, d))
        mass.append(targets.vector.new_zeros(1, c))
    summed = torch.cat(mass).unsqueeze(-1).expand(t, c, heads)
    return Interest(torch.cat(pooled) @ attention.w_o, summed, targets.vector.new_zeros(t, c, heads, 0))


def collisions(targets: Tensor, rows: Tensor) -> Tensor:
    """The share of groups [t, c, l] in which targets [t, c, d] and rows [l, d] have the same signs; without gradient."""
    with torch.no_grad():
        turn = directions(rows.shape[1], HASHES)
        powers = 2 ** torch.arange(GROUP)
        ours, theirs = (
            (((x @ turn) >= 0).view(*x.shape[:-1], HASHES // GROUP, GROUP) * powers).sum(-1) for x in (targets, rows)
        )
        found = torch.zeros(*targets.shape[:2], len(rows))
        for group in range(HASHES // GROUP):
            found += ours[..., group].unsqueeze(-1) == theirs[:, group]
        return found / (HASHES // GROUP)
