"""The click model: the backbone's long interest, the recent 50, the target and the context, to a log-odds.

Letters: t moments, c candidates, d width, h heads, s what tiers compare.
"""

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.nn.attention import TargetAttention
from model.nn.backbone import Backbone, last
from model.nn.dropout import Dropout
from model.nn.features import COUNTERS, PLAIN, plain
from model.nn.inputs import History, Interest, Parts, Seen, Targets
from model.nn.tiers import TIERS, compared, tiers
from model.nn.units import EXTRA

POSITIONS = 32
SAMPLED, IMPRESSED = 0, 1
"""Where an example's label comes from: the heads read it, and each source has an offset of its own in log-odds (prior
correction)."""


def rated(labels: dict[str, int]) -> int:
    """The source that click rates are of, by how many labels there are of each: impressions, where there are any."""
    return IMPRESSED if labels["impressions"] else SAMPLED


class Evidence(NamedTuple):
    """What speaks for candidates: long and recent interest, item and query parts [t, c, d], plain features [t, c, 31],
    tiers [t, c, 33 s] (no column where the model does without)."""

    long: Interest
    recent: Interest
    item: Tensor
    query: Tensor
    plain: Tensor
    tiers: Tensor


class ClickModel(nn.Module):
    """A click's log-odds. Item and query parts may come encoded (serving) or from `backbone.parts` (training).

    Without `counters` nothing tells the heads how often a user met an item or its type, unless attention does;
    tiers: by what they are told how much of a history is similar to it (`model.config.COMPARED`), if by anything.
    """

    def __init__(
        self,
        backbone: Backbone,
        dim: int,
        heads: int,
        id_rows: int,
        dropout: float = 0.0,
        counters: bool = True,
        tiers: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.counters = counters
        self.tiers = tiers
        self.dropout = Dropout(dropout)
        self.recent = TargetAttention(dim, heads)
        scalars = 2 * heads + EXTRA.get(backbone.search, 0) + 1 + TIERS * len(tiers) + PLAIN
        # Two heads: one that reads vectors as well learns items by heart before it has learned what counters say. The wide
        # one is trained first, alone (`model.train.wide`); the other, silent at first, learns what that leaves over.
        self.head = _mlp(6 * dim + scalars, 128, dim, silent=True)
        self.wide = _mlp(PLAIN, 64, 64)
        # What scalars are on average and how they vary: without it the heads learn several times slower.
        self.register_buffer("mean", torch.zeros(scalars))
        self.register_buffer("spread", torch.ones(scalars))
        self.item_bias = nn.Embedding(id_rows, 1, sparse=True)
        self.source = nn.Parameter(torch.full((2,), -3.0))  # a click is rare
        self.position = nn.Parameter(torch.zeros(POSITIONS))
        nn.init.zeros_(self.item_bias.weight)

    def standardise(self, scalars: Tensor) -> None:
        """Take means and deviations from a sample [n, s] of `scalars`, before training."""
        self.mean: Tensor = scalars.mean(0)
        self.spread: Tensor = scalars.std(0).clamp(min=1e-3)
        if not self.counters:  # the heads read 0 for whatever a user's counters are
            self.spread[-PLAIN : COUNTERS - PLAIN] = torch.inf

    def scalars(self, found: Evidence) -> Tensor:
        """What the heads read beside vectors [t, c, s]: masses of attention, item with query, tiers, plain features."""
        return torch.cat([_attended(found), _told(found)], -1)

    def combine(self, found: Evidence, bias: Tensor) -> Tensor:
        """Log-odds [t, c] before offsets of source and position; bias [t, c]: the items' own."""
        long, recent = found.long.vector, found.recent.vector
        attended, told = _attended(found), _told(found)
        attended, told = self._standard(attended, 0), self._standard(told, attended.shape[-1])
        vectors = torch.cat([long, recent, found.item, found.query, long * found.item, recent * found.item], -1)
        hidden = _linear(cast(nn.Linear, self.head[0]), self.dropout(vectors), attended, told)
        scores: Tensor = self.head[1:](hidden) + self.wide(told[..., -PLAIN:])
        return scores.squeeze(-1) + bias

    def known(self, plain: Tensor) -> Tensor:
        """What the wide head makes of plain features [..., 31]: log-odds [...]."""
        scores: Tensor = self.wide(self._standard(plain, len(self.mean) - PLAIN))
        return scores.squeeze(-1)

    def _standard(self, scalars: Tensor, first: int) -> Tensor:
        here = slice(first, first + scalars.shape[-1])
        return ((scalars - self.mean[here]) / self.spread[here]).clamp(-8, 8)

    def offset(self, source: Tensor, position: Tensor) -> Tensor:
        """Log-odds offsets of label sources and of positions shown (any shape; position -1: none)."""
        shown = self.position[position.clamp(min=0, max=POSITIONS - 1)] * (position >= 0)
        return self.source[source] + shown

    def evidence(
        self,
        items: Tensor,
        queries: Tensor,
        popularity: Tensor,
        history: History,
        parts: Parts,
        seen: Seen,
        types: Tensor,
        source: Tensor,
    ) -> Evidence:
        """What speaks for candidates, rows items and queries [t, c] of the parts.

        popularity [t, c, 5]; types [1 + i]: what each item of the parts is (0: not known); source [t]: SAMPLED or IMPRESSED.
        """
        item, query = F.embedding(items, parts.item), F.embedding(queries, parts.query)
        target = item + query
        long = self.backbone.interest(Targets(target, items, queries), history, parts, seen)
        recent = self.recent(target, parts, history, seen, last(seen, self.backbone.recent))
        told = plain(items, queries, popularity, history, seen, types, source)
        alike = tiers(items, compared(self.tiers, parts), history, seen) if self.tiers else item[..., :0]
        return Evidence(long, recent, item, query, told, alike)


def _attended(found: Evidence) -> Tensor:
    """Scalars that learn, [t, c, 2 h + 1 or more]: masses of attention, item with query."""
    relevance = F.cosine_similarity(found.item, found.query, dim=-1)  # what the PSU's third objective trained
    return torch.cat([found.long.mass, found.recent.mass, relevance.unsqueeze(-1)], -1)


def _told(found: Evidence) -> Tensor:
    """Scalars that are given: tiers, plain features [t, c, 31]."""
    return torch.cat([found.tiers, found.plain], -1)


def _linear(layer: nn.Linear, *inputs: Tensor) -> Tensor:
    """A linear layer of inputs [..., n] side by side; those that learn nothing cost no gradient."""
    weights = torch.split(layer.weight, [x.shape[-1] for x in inputs], 1)
    found: Tensor = layer.bias
    for x, weight in zip(inputs, weights, strict=True):
        found = found + F.linear(x, weight.contiguous())
    return found


def _mlp(inputs: int, hidden: int, last: int, silent: bool = False) -> nn.Sequential:
    """Three layers to one number; a silent one says nothing at first."""
    out = nn.Linear(last, 1)
    if silent:
        nn.init.zeros_(out.weight)
        nn.init.zeros_(out.bias)
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
