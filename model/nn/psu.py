"""The Pretraining Search Unit and its objectives, with the signs and masks that they must have (arXiv 2407.10714).

Letters: t moments, c candidates (the first is the positive), n rows of a contrastive batch, d width.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.nn.backbone import Backbone
from model.nn.inputs import History, Parts, Seen, Targets

TEMPERATURE = 0.1


class PSU(nn.Module):
    """Scores pairs through the backbone's GSU and ESU: there is no other encoder of sequences."""

    def __init__(self, backbone: Backbone, dim: int, heads: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Sequential(nn.Linear(3 * dim + heads, dim), nn.ReLU(), nn.Linear(dim, 1))
        self.direct = nn.Linear(heads, 1)
        nn.init.constant_(self.direct.weight, 1 / heads)

    def score(self, items: Tensor, queries: Tensor, history: History, parts: Parts, seen: Seen) -> Tensor:
        """Scores [t, c] of candidate pairs, rows items [t, c] and queries [t, c] of the parts."""
        item, query = F.embedding(items, parts.item), F.embedding(queries, parts.query)
        found = self.backbone.interest(Targets(item + query, items, queries), history, parts, seen)
        features = torch.cat([found.vector, item, found.vector * item, found.mass], -1)
        scores: Tensor = self.head(features) + self.direct(found.mass)
        return scores.squeeze(-1)


def next_pair_loss(scores: Tensor, log_q: Tensor, mask: Tensor) -> Tensor:
    """Sampled softmax over scores [t, c], candidate 0 being the true next pair.

    log_q [t, c]: log of how likely each candidate was drawn (subtracted, so that popular negatives are not punished for
    their popularity); mask [t, c]: False for a candidate that must not count, such as one that equals the positive.
    """
    logits = (scores - log_q).masked_fill(~mask, -torch.inf)
    return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long))


def alignment_loss(vectors: Tensor, present: Tensor, same: Tensor) -> Tensor:
    """InfoNCE between each two modalities of the same item, over distinct items.

    vectors [n, m, d], present [n, m]; same [n, n]: True where two different items must not be each other's negatives
    because their texts are equal. Pairs of modalities with fewer than two items that have both are left out.
    """
    unit = F.normalize(vectors, dim=-1)
    losses = []
    for a in range(vectors.shape[1]):
        for b in range(a + 1, vectors.shape[1]):
            both = present[:, a] & present[:, b]
            if int(both.sum()) < 2:
                continue
            logits = unit[both, a] @ unit[both, b].T / TEMPERATURE
            excluded = same[both][:, both] & ~torch.eye(len(logits), dtype=torch.bool)
            logits = logits.masked_fill(excluded, -torch.inf)
            truth = torch.arange(len(logits))
            losses.append((F.cross_entropy(logits, truth) + F.cross_entropy(logits.T, truth)) / 2)
    return torch.stack(losses).mean() if losses else vectors.sum() * 0


def relevance_loss(query: Tensor, item: Tensor, query_id: Tensor, item_id: Tensor) -> Tensor:
    """InfoNCE of a query and the item found with it, rows [n, d]; lower when the matched pair is closer.

    The other rows' items are negatives, except those of the same query (they are right answers too) and equal items.
    """
    if len(query) < 2:
        return query.sum() * 0
    logits = F.normalize(query, dim=-1) @ F.normalize(item, dim=-1).T / TEMPERATURE
    same = (query_id.unsqueeze(0) == query_id.unsqueeze(1)) | (item_id.unsqueeze(0) == item_id.unsqueeze(1))
    logits = logits.masked_fill(same & ~torch.eye(len(logits), dtype=torch.bool), -torch.inf)
    return F.cross_entropy(logits, torch.arange(len(logits)))
