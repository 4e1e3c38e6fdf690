"""What the PSU pretrains and the click model restores: encoders, one attention, and a user's history under both.

Letters: i distinct items and q distinct queries of a step, t moments, c candidates, k places, d width.
"""

import torch
from torch import Tensor, nn

from model.nn.attention import TargetAttention
from model.nn.inputs import History, Interest, Parts, Seen
from model.nn.modalities import ItemEncoder, ItemInputs, QueryEncoder


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

    def interest(self, targets: Tensor, history: History, parts: Parts, seen: Seen) -> Interest:
        """Attend targets [t, c, d] over what the search unit gives each of them to see."""
        found: Interest = self.attention(targets, parts, history, seen, self.places(targets, history, parts, seen))
        return found

    def places(self, targets: Tensor, history: History, parts: Parts, seen: Seen) -> Tensor:
        """Places [t, k] or [t c, k] of the behaviours that targets [t, c, d] attend to; -1: none."""
        if self.search == "topk":
            return self.attention.select(targets, parts, history, seen, self.retrieved)
        return last(seen, self.recent if self.search == "recent" else len(history.time))


def last(seen: Seen, most: int) -> Tensor:
    """Places [t, k] of the last `most` behaviours that each moment sees, the newest first; -1: none."""
    length = (seen.end - seen.begin).clamp(max=most)
    back = torch.arange(int(length.max()) if len(length) else 0)
    return torch.where(back < length.unsqueeze(1), seen.end.unsqueeze(1) - 1 - back, -1).int()
