"""What the click model minimises: the log loss of each candidate, and the ranking within each moment.

Letters: t moments, c candidates.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def objective(scores: Tensor, labels: Tensor, real: Tensor, weight: float) -> dict[str, Tensor]:
    """`pointwise`, `listwise` and `total`, the former plus `weight` times the latter, of log-odds [t, c].

    labels [t, c]; real [t, c]: False for padding.
    """
    pointwise = F.binary_cross_entropy_with_logits(scores[real], labels[real])
    ranked = listwise(scores, labels, real)
    return {"pointwise": pointwise, "listwise": ranked, "total": pointwise + weight * ranked}


def listwise(scores: Tensor, labels: Tensor, real: Tensor) -> Tensor:
    """Mean of - log softmax of the positives of each moment among its candidates, all [t, c]; 0 where there are none.

    Beside the log loss of each candidate, which keeps rates calibrated, it ranks within a moment (JRC, arXiv 2208.06164).
    """
    shares = torch.log_softmax(scores.masked_fill(~real, -torch.inf), 1).masked_fill(~real, 0.0)
    positives = labels * real
    some = positives.sum(1) > 0
    each = -(shares * positives).sum(1)[some] / positives.sum(1)[some]
    return each.mean() if len(each) else scores.sum() * 0.0
