"""QIN's relevance search unit (arXiv 2310.06444): cascaded, the query first, then the target item.

With a query, the K1 behaviours most relevant to it stay; of these the K2 most relevant to the target item are attended
to. Relevance is that of frozen content vectors, which stand for the paper's pretrained multi-modal ones. Without a query the
first step keeps all. What is attended to goes through the shared ESU, whose keys hold id and attributes in one vector: the
paper's fused attention unit, which attends over the two apart, is not built, since peers here differ by their search alone.

Letters: t moments, c candidates, l behaviours, w width of frozen vectors.
"""

import torch
from torch import Tensor

from model.nn.attention import TargetAttention
from model.nn.inputs import History, Interest, Parts, Seen, Targets
from model.nn.units import attend, best, frozen, newer, visible

FIRST = 4
"""K1 as a multiple of K2."""


def qin(attention: TargetAttention, k: int, targets: Targets, history: History, parts: Parts, seen: Seen) -> Interest:
    """Attention over what the cascade retrieves. A past search is relevant by its words, a browse by its item's content."""
    contents = frozen(parts)

    def score(moments: slice, behaviours: slice) -> Tensor:
        items, queries = history.item[behaviours], history.query[behaviours]
        pairs, column = torch.unique(torch.stack([items, queries * (items == 0)]), dim=1, return_inverse=True)
        past = torch.where((pairs[0] > 0).unsqueeze(1), contents.text[pairs[0]], contents.query_text[pairs[1]])
        asked = targets.query[moments].amax(1, keepdim=True)  # one for all candidates of a moment
        relevance = (contents.query_text[asked] @ past.T)[..., column]
        by_query = visible(newer(relevance), behaviours, seen.end[moments])
        first = min(FIRST * k, by_query.shape[-1])
        least = by_query.topk(first, dim=-1).values[..., -1:]
        out = (by_query < least) & (asked > 0).unsqueeze(-1)
        by_item = (contents.text[targets.item[moments]] @ past.T)[..., column]
        return by_item.masked_fill(out, -torch.inf)

    return attend(attention, targets, history, parts, seen, best(score, targets, seen, k))
