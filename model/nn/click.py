"""The click model: the backbone's long interest, the recent 50, the target and the context, to a log-odds.

Letters: t moments, c candidates, d width, h heads.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.nn.attention import TargetAttention, gap_buckets
from model.nn.backbone import Backbone, History, Interest, Parts

CONTEXT = 6
HALF_LIVES_DAYS = (7.0, 30.0, 180.0, math.inf)
POSITIONS = 32
SAMPLED, IMPRESSED = 0, 1
"""Where an example's label comes from; each source has an offset of its own in log-odds (prior correction)."""
_DAY, _WEEK = 86_400_000, 7 * 86_400_000


def context(now: Tensor, last: Tensor, length: Tensor) -> Tensor:
    """Features [t, 6] of a moment: hour and weekday as circles, log gap since the last behaviour, log length."""
    turns = torch.stack([(now % _DAY) / _DAY, (now % _WEEK) / _WEEK], 1).double() * 2 * math.pi
    gap = ((now - last).clamp(min=0).double() / 3_600_000).log1p() / 5
    empty = length > 0
    rest = torch.stack([gap * empty, length.double().log1p() / 5], 1)
    return torch.cat([turns.sin(), turns.cos(), rest], 1).float()


def repeats(history: History, prefix: Tensor, now: Tensor, items: Tensor, rows: int) -> Tensor:
    """User-to-item features [t, c, 4]: log(1 + 10 times how often the item was browsed), each time halved with age.

    items [t, c]: rows of the parts, of which there are `rows`; the first `prefix` [t] behaviours count, as of `now` [t].
    """
    age = (now.unsqueeze(1) - history.time.unsqueeze(0)).clamp(min=0).float() / _DAY
    seen = torch.arange(len(history.time)).unsqueeze(0) < prefix.unsqueeze(1)
    decay = torch.stack([torch.exp2(-age / life) for life in HALF_LIVES_DAYS], 2) * seen.unsqueeze(2)
    counts = torch.zeros(len(prefix), rows, len(HALF_LIVES_DAYS)).index_add_(1, history.item, decay)
    counts[:, 0] = 0
    # Times 10: having bought once, long ago, is far from never.
    return (10 * counts.gather(1, items.unsqueeze(2).expand(-1, -1, len(HALF_LIVES_DAYS)))).log1p()


class ClickModel(nn.Module):
    """A click's log-odds. Item and query parts may come encoded (serving) or from `backbone.parts` (training)."""

    def __init__(self, backbone: Backbone, dim: int, heads: int, id_rows: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.recent = TargetAttention(dim, heads)
        self.head = nn.Sequential(
            nn.Linear(6 * dim + 2 * heads + 1 + len(HALF_LIVES_DAYS) + CONTEXT, 128),
            nn.ReLU(),
            nn.Linear(128, dim),
            nn.ReLU(),
            nn.Linear(dim, 1),
        )
        self.direct = nn.Linear(2 * heads + 1 + len(HALF_LIVES_DAYS), 1)
        self.item_bias = nn.Embedding(id_rows, 1, sparse=True)
        self.source = nn.Parameter(torch.full((2,), -3.0))  # a click is rare
        self.position = nn.Parameter(torch.zeros(POSITIONS))
        nn.init.zeros_(self.item_bias.weight)
        with torch.no_grad():  # what was browsed before is browsed again: begin there, training says by how much
            self.direct.weight.zero_()
            self.direct.weight[0, 2 * heads + 1 :] = 0.3
            self.head[-1].weight.zero_()  # type: ignore[operator]

    def combine(
        self,
        long: Interest,
        recent: Interest,
        item: Tensor,
        query: Tensor,
        again: Tensor,
        bias: Tensor,
        about: Tensor,
    ) -> Tensor:
        """Log-odds [t, c] before offsets: item, query parts [t, c, d], repeats [t, c, 4], bias [t, c], context [t, 6]."""
        relevance = F.cosine_similarity(item, query, dim=-1).unsqueeze(-1)  # what the PSU's third objective trained
        mass = torch.cat([long.mass, recent.mass, relevance, again], -1)
        about = about.unsqueeze(1).expand(-1, item.shape[1], -1)
        features = [long.vector, recent.vector, item, query, long.vector * item, recent.vector * item, mass, about]
        scores: Tensor = self.head(torch.cat(features, -1)) + self.direct(mass)
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
        history: History,
        parts: Parts,
        prefix: Tensor,
        now: Tensor,
    ) -> Tensor:
        """Log-odds [t, c] of candidates: rows items and queries [t, c] of the parts, rows [t, c] of the item bias."""
        item, query = parts.item[items], parts.query[queries]
        target = item + query
        long = self.backbone.interest(target, history, parts, prefix, now)
        recent = self.last(target, history, parts, prefix, now)
        last = history.time[(prefix - 1).clamp(min=0)] if len(history.time) else now
        about = context(now, torch.where(prefix > 0, last, now), prefix)
        again = repeats(history, prefix, now, items, len(parts.item))
        return self.combine(long, recent, item, query, again, self.item_bias(bias_rows).squeeze(-1), about)

    def last(self, target: Tensor, history: History, parts: Parts, prefix: Tensor, now: Tensor) -> Interest:
        """Attend targets [t, c, d] over the r most recent behaviours of each moment."""
        place = prefix.unsqueeze(1) - torch.arange(min(self.backbone.recent, len(history.time)), 0, -1)
        mask = place >= 0
        place = place.clamp(min=0)
        keys = parts.item[history.item[place]] + parts.query[history.query[place]]
        gaps = gap_buckets((now.unsqueeze(1) - history.time[place]).clamp(min=0))
        bias = (self.recent.gap_bias[:, gaps] + self.recent.kind_bias[:, history.kind[place]]).permute(1, 0, 2)
        return Interest(*self.recent(target, keys, bias.unsqueeze(1), mask.unsqueeze(1)))


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
