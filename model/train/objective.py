"""What the click model minimises: the log loss of each candidate, and the ranking within each moment.

Letters: t moments, c candidates.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from model.config import TrainConfig
from model.nn.click import IMPRESSED


def objective(scores: Tensor, labels: Tensor, real: Tensor, source: Tensor, train: TrainConfig) -> dict[str, Tensor]:
    """`pointwise`, `listwise` and `total`, the former plus `train.listwise` times the latter, of log-odds [t, c].

    labels [t, c]; real [t, c]: False for padding; source [t]: a candidate of an impression counts `train.impressed` times in
    the log loss, since these are few and their rates are what is served.
    """
    each = F.binary_cross_entropy_with_logits(scores, labels, reduction="none")
    weights = torch.where(source == IMPRESSED, train.impressed, 1.0).unsqueeze(1) * real
    pointwise = (weights * each).sum() / weights.sum()
    ranked = listwise(scores, labels, real)
    return {"pointwise": pointwise, "listwise": ranked, "total": pointwise + train.listwise * ranked}


def listwise(scores: Tensor, labels: Tensor, real: Tensor) -> Tensor:
    """Mean of - log softmax of the positives of each moment among its candidates, all [t, c]; 0 where there are none.

    Beside the log loss of each candidate, which keeps rates calibrated, it ranks within a moment (JRC, arXiv 2208.06164).
    """
    shares = torch.log_softmax(scores.masked_fill(~real, -torch.inf), 1).masked_fill(~real, 0.0)
    positives = labels * real
    some = positives.sum(1) > 0
    each = -(shares * positives).sum(1)[some] / positives.sum(1)[some]
    return each.mean() if len(each) else scores.sum() * 0.0
