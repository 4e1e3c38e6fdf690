"""The click model: the backbone's long interest, the recent 50, the target and the context, to a log-odds.

Letters: t moments, c candidates, d width, h heads.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.nn.attention import TargetAttention
from model.nn.backbone import Backbone, last
from model.nn.features import CONTEXT, COUNTERS, POPULARITY, Keyed, context, counters
from model.nn.inputs import History, Interest, Parts, Seen, Targets
from model.nn.units import EXTRA

POSITIONS = 32
SAMPLED, IMPRESSED = 0, 1
"""Where an example's label comes from; each source has an offset of its own in log-odds (prior correction)."""


class Evidence(NamedTuple):
    """What speaks for candidates: long and recent interest, item and query parts [t, c, d], plain features [t, c, p]."""

    long: Interest
    recent: Interest
    item: Tensor
    query: Tensor
    plain: Tensor


def evidence(
    long: Interest,
    recent: Interest,
    item: Tensor,
    query: Tensor,
    searched: Tensor,
    counted: Tensor,
    popularity: Tensor,
    about: Tensor,
) -> Evidence:
    """Put it together; item, query: parts [t, c, d]; searched [t, c]: 1 where there is a query; counted: counters
    [t, c, 18]; popularity [t, c, 5]; about: context [t, 6]."""
    relevance = F.cosine_similarity(item, query, dim=-1).unsqueeze(-1)  # what the PSU's third objective trained
    about = about.unsqueeze(1).expand(-1, item.shape[1], -1)
    plain = [long.mass, recent.mass, relevance, counted, popularity, about, searched.unsqueeze(-1)]
    return Evidence(long, recent, item, query, torch.cat(plain, -1))


class ClickModel(nn.Module):
    """A click's log-odds. Item and query parts may come encoded (serving) or from `backbone.parts` (training)."""

    def __init__(self, backbone: Backbone, dim: int, heads: int, id_rows: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.backbone = backbone
        self.dropout = nn.Dropout(dropout)
        self.recent = TargetAttention(dim, heads)
        masses = 2 * heads + EXTRA.get(backbone.search, 0)
        plain = masses + 1 + COUNTERS + POPULARITY + CONTEXT + 1
        # Two heads: one that reads vectors as well learns items by heart before it has learned what counters say.
        self.head = _mlp(6 * dim + plain, 128, dim, silent=True)  # vectors come in when they have something to say
        self.wide = _mlp(plain, 64, 64)
        # What plain features are on average and how they vary: without it the small head learns several times slower.
        self.register_buffer("mean", torch.zeros(plain))
        self.register_buffer("spread", torch.ones(plain))
        self.item_bias = nn.Embedding(id_rows, 1, sparse=True)
        self.source = nn.Parameter(torch.full((2,), -3.0))  # a click is rare
        self.position = nn.Parameter(torch.zeros(POSITIONS))
        nn.init.zeros_(self.item_bias.weight)

    def standardise(self, plain: Tensor) -> None:
        """Take means and deviations from a sample [n, p] of plain features (`Evidence.plain`), before training."""
        self.mean: Tensor = plain.mean(0)
        self.spread: Tensor = plain.std(0).clamp(min=1e-3)

    def combine(self, found: Evidence, bias: Tensor) -> Tensor:
        """Log-odds [t, c] before offsets of source and position; bias [t, c]: the items' own."""
        long, recent = found.long.vector, found.recent.vector
        plain = ((found.plain - self.mean) / self.spread).clamp(-8, 8)
        vectors = torch.cat([long, recent, found.item, found.query, long * found.item, recent * found.item], -1)
        scores: Tensor = self.head(torch.cat([self.dropout(vectors), plain], -1)) + self.wide(plain)
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
        types: Tensor,
    ) -> Tensor:
        """Log-odds [t, c] of candidates: rows items and queries [t, c] of the parts, bias_rows [t, c] of the id table.

        types [1 + i]: what each item of the parts is (0: not known).
        """
        found = self.evidence(items, queries, popularity, history, parts, seen, types)
        return self.combine(found, self.item_bias(bias_rows).squeeze(-1))

    def evidence(
        self, items: Tensor, queries: Tensor, popularity: Tensor, history: History, parts: Parts, seen: Seen, types: Tensor
    ) -> Evidence:
        """What speaks for candidates; arguments as those of `forward`."""
        item, query = F.embedding(items, parts.item), F.embedding(queries, parts.query)
        target = item + query
        long = self.backbone.interest(Targets(target, items, queries), history, parts, seen)
        recent = self.recent(target, parts, history, seen, last(seen, self.backbone.recent))
        by_item = Keyed(history.item, items, len(types))
        by_type = Keyed(types[history.item], types[items], int(types.max()) + 1)
        counted = counters(history, seen, by_item, by_type, queries)
        return evidence(long, recent, item, query, (queries > 0).float(), counted, popularity, context(history, seen))


def _mlp(inputs: int, hidden: int, last: int, silent: bool = False) -> nn.Sequential:
    """Three layers to one number; a silent one says nothing at first."""
    out = nn.Linear(last, 1)
    if silent:
        nn.init.zeros_(out.weight)
    return nn.Sequential(nn.Linear(inputs, hidden), nn.SiLU(), nn.Linear(hidden, last), nn.SiLU(), out)


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
