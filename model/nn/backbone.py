"""What the PSU pretrains and the click model restores: encoders, one attention, and a user's history under both.

Letters: i distinct items and q distinct queries of a batch, l behaviours, t moments, c candidates, h heads, d width.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from model.nn.attention import TargetAttention, gap_buckets, select
from model.nn.modalities import ItemEncoder, ItemInputs, QueryEncoder


class History(NamedTuple):
    """A user's behaviours in order of time: rows of the batch's parts (0: none), ms, kinds; all [l]."""

    item: Tensor
    query: Tensor
    time: Tensor
    kind: Tensor


class Parts(NamedTuple):
    """Encoded once a batch: item parts [1 + i, d] (row 0: a search, no item), query parts [1 + q, d] (row 0: none)."""

    item: Tensor
    query: Tensor


class Interest(NamedTuple):
    """What attention found: interest [t, c, d], mass [t, c, h], weights [t, c, h, l] over the behaviours it saw."""

    vector: Tensor
    mass: Tensor
    weights: Tensor


class Backbone(nn.Module):
    """Encoders and target attention with its search: which behaviours a target sees.

    search: `topk` (the k best by the GSU), `all` (full attention, as DIN over the whole history), `recent` (the last ones).
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        retrieved: int,
        recent: int,
        search: str,
        id_rows: int,
        attribute_rows: int,
        token_rows: int,
        text_width: int,
        image_width: int,
    ) -> None:
        super().__init__()
        self.items = ItemEncoder(dim, id_rows, attribute_rows, text_width, image_width)
        self.queries = QueryEncoder(dim, token_rows)
        self.attention = TargetAttention(dim, heads)
        self.no_item = nn.Parameter(torch.zeros(dim))
        self.retrieved = retrieved
        self.recent = recent
        self.search = search

    def parts(self, items: ItemInputs, tokens: Tensor) -> Parts:
        """Encode a batch's distinct items [i] and queries' tokens [q, k]."""
        no_query = torch.zeros_like(tokens[:1]) if len(tokens) else torch.zeros(1, 1, dtype=torch.long)
        queries = torch.cat([self.queries(no_query), self.queries(tokens)]) if len(tokens) else self.queries(no_query)
        return Parts(torch.cat([self.no_item.unsqueeze(0), self.items(items)]), queries)

    def interest(self, targets: Tensor, history: History, parts: Parts, prefix: Tensor, now: Tensor) -> Interest:
        """Attend targets [t, c, d] over the first `prefix` [t] behaviours, as of `now` [t] (ms)."""
        keys = parts.item[history.item] + parts.query[history.query]
        place = torch.arange(len(keys))
        mask = place.unsqueeze(0) < prefix.unsqueeze(1)
        if self.search == "recent":
            mask = mask & (place.unsqueeze(0) >= prefix.unsqueeze(1) - self.recent)
        buckets = gap_buckets((now.unsqueeze(1) - history.time.unsqueeze(0)).clamp(min=0))
        bias = self.attention.bias(buckets, history.kind).permute(1, 0, 2).unsqueeze(1)  # [t, 1, h, l]
        seen = mask.unsqueeze(1)
        if self.search == "topk":
            with torch.no_grad():
                scores = self.attention.fold(targets) @ keys.T + bias.mean(2)
                seen = select(scores, seen, self.retrieved)
        return Interest(*self.attention(targets, keys, bias, seen))
