"""The click model: the backbone's long interest, the recent 50, the target and the context, to a log-odds.

Letters: t moments, c candidates, d width, h heads.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.nn.attention import TargetAttention
from model.nn.backbone import Backbone, last
from model.nn.features import CONTEXT, POPULARITY, REPEATS, context, repeats
from model.nn.inputs import History, Interest, Parts, Seen, Targets
from model.nn.units import EXTRA

POSITIONS = 32
SAMPLED, IMPRESSED = 0, 1
"""Where an example's label comes from; each source has an offset of its own in log-odds (prior correction)."""


class ClickModel(nn.Module):
    """A click's log-odds. Item and query parts may come encoded (serving) or from `backbone.parts` (training)."""

    def __init__(self, backbone: Backbone, dim: int, heads: int, id_rows: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.backbone = backbone
        self.dropout = nn.Dropout(dropout)
        self.recent = TargetAttention(dim, heads)
        masses = 2 * heads + EXTRA.get(backbone.search, 0)
        plain = masses + 1 + REPEATS + POPULARITY
        self.head = nn.Sequential(
            nn.Linear(6 * dim + plain + CONTEXT, 128),
            nn.ReLU(),
            nn.Linear(128, dim),
            nn.ReLU(),
            nn.Linear(dim, 1),
        )
        self.direct = nn.Linear(plain, 1)
        self.item_bias = nn.Embedding(id_rows, 1, sparse=True)
        self.source = nn.Parameter(torch.full((2,), -3.0))  # a click is rare
        self.position = nn.Parameter(torch.zeros(POSITIONS))
        nn.init.zeros_(self.item_bias.weight)
        with torch.no_grad():  # what was browsed before, and what many browse, is browsed: training says by how much
            self.direct.weight.zero_()
            self.direct.weight[0, masses + 1 : -POPULARITY - 2] = 0.3
            self.direct.weight[0, -POPULARITY:] = 0.15
            self.head[-1].weight.zero_()  # type: ignore[operator]

    def combine(
        self,
        long: Interest,
        recent: Interest,
        item: Tensor,
        query: Tensor,
        again: Tensor,
        popularity: Tensor,
        bias: Tensor,
        about: Tensor,
    ) -> Tensor:
        """Log-odds [t, c] before offsets of source and position.

        item, query: parts [t, c, d]; again: repeats [t, c, 6]; popularity [t, c, 3]; bias [t, c]; about: context [t, 6].
        """
        relevance = F.cosine_similarity(item, query, dim=-1).unsqueeze(-1)  # what the PSU's third objective trained
        plain = torch.cat([long.mass, recent.mass, relevance, again, popularity], -1)
        about = about.unsqueeze(1).expand(-1, item.shape[1], -1)
        vectors = torch.cat([long.vector, recent.vector, item, query, long.vector * item, recent.vector * item], -1)
        scores: Tensor = self.head(torch.cat([self.dropout(vectors), plain, about], -1)) + self.direct(plain)
        return scores.squeeze(-1) + bias

    def offset(self, source: Tensor, position: Tensor) -> Tensor:
        """Log-odds offsets of label sources and of positions shown (any shape; position -1: none)."""
        shown = self.position[position.clamp(min=0, max=POSITIONS - 1)] * (position >= 0)
        return self.source[source] + shown

    def forward(
        self,
        items: Tensor,
        queries: Tensor,
        bias_rows: Tensor,
        popularity: Tensor,
        history: History,
        parts: Parts,
        seen: Seen,
    ) -> Tensor:
        """Log-odds [t, c] of candidates: rows items and queries [t, c] of the parts, bias_rows [t, c] of the id table."""
        item, query = F.embedding(items, parts.item), F.embedding(queries, parts.query)
        target = item + query
        long = self.backbone.interest(Targets(target, items, queries), history, parts, seen)
        recent = self.recent(target, parts, history, seen, last(seen, self.backbone.recent))
        again = repeats(history, seen, items, len(parts.item))
        bias = self.item_bias(bias_rows).squeeze(-1)
        return self.combine(long, recent, item, query, again, popularity, bias, context(history, seen))


def restore(model: ClickModel, pretrained: dict[str, Tensor]) -> dict[str, list[str]]:
    """Load a PSU's backbone into the click model by name; which names were restored, are new, were not used.

    The heads have names in common by chance only: they score different things and are not restored.
    """
    own = model.state_dict()
    fit = {
        name: value
        for name, value in pretrained.items()
        if name.startswith("backbone.") and name in own and own[name].shape == value.shape
    }
    model.load_state_dict(fit, strict=False)
    return {
        "restored": sorted(fit),
        "new": sorted(own.keys() - fit.keys()),
        "unused": sorted(pretrained.keys() - fit.keys()),
    }
