"""What the PSU pretrains and the click model restores: encoders, one attention, and a user's history under both.

Letters: i distinct items and q distinct queries of a step, t moments, c candidates, k places, d width.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from model.nn import units
from model.nn.attention import TargetAttention
from model.nn.inputs import History, Interest, Parts, Seen, Targets
from model.nn.modalities import ItemEncoder, ItemInputs, QueryEncoder

OWN = ("topk", "all", "recent")


class Backbone(nn.Module):
    """Encoders and target attention with its search: which behaviours a target sees.

    search: `topk` (the k best by the GSU), `all` (full attention, as DIN over the whole history), `recent` (the last ones),
    or a unit of `model.nn.units`. For ablations: `history`, how many of the newest behaviours exist at all (0: all), and
    `without`, modalities that count as missing everywhere (the item encoder's, or `query`; separated by commas).
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
        history: int = 0,
        without: str = "",
    ) -> None:
        super().__init__()
        off = tuple(name for name in without.split(",") if name)
        self.items = ItemEncoder(dim, id_rows, attribute_rows, text_width, image_width, off)
        self.history = history
        # What the search sees in place of the parts, for measuring what codes cost; the ESU sees the parts themselves.
        self.quantised: Callable[[Parts], Parts] | None = None
        self.asks = "query" not in off
        self.queries = QueryEncoder(dim, token_rows)
        self.attention = TargetAttention(dim, heads)
        self.no_item = nn.Parameter(torch.zeros(dim))
        self.retrieved = retrieved
        self.recent = recent
        self.search = search

    def parts(self, items: ItemInputs, tokens: Tensor) -> Parts:
        """Encode a batch's distinct items [i] and queries' tokens [q, k]."""
        tokens = tokens * self.asks
        no_query = torch.zeros_like(tokens[:1]) if len(tokens) else torch.zeros(1, 1, dtype=torch.long)
        queries = torch.cat([self.queries(no_query), self.queries(tokens)]) if len(tokens) else self.queries(no_query)
        item, modalities = self.items.encode(items)
        return Parts(torch.cat([self.no_item.unsqueeze(0), item]), queries, modalities=modalities.detach())

    def interest(self, targets: Targets, history: History, parts: Parts, seen: Seen) -> Interest:
        """Attend targets over what the search unit gives each of them to see."""
        if self.search in OWN:
            places = self.places(targets.vector, history, parts, seen)
            found: Interest = self.attention(targets.vector, parts, history, seen, places)
            return found
        return units.named(self.search)(self.attention, self.retrieved, targets, history, parts, seen)

    def places(self, targets: Tensor, history: History, parts: Parts, seen: Seen) -> Tensor:
        """Places [t, k] or [t c, k] of the behaviours that targets [t, c, d] attend to; -1: none."""
        if self.search == "topk":
            searched = self.quantised(parts) if self.quantised else parts
            return self.attention.select(targets, searched, history, seen, self.retrieved)
        return last(seen, self.recent if self.search == "recent" else len(history.time))


def last(seen: Seen, most: int) -> Tensor:
    """Places [t, k] of the last `most` behaviours that each moment sees, the newest first; -1: none."""
    length = (seen.end - seen.begin).clamp(max=most)
    back = torch.arange(int(length.max()) if len(length) else 0)
    return torch.where(back < length.unsqueeze(1), seen.end.unsqueeze(1) - 1 - back, -1).int()
