import math

import pytest
import torch

from model.config import TrainConfig
from model.nn.click import IMPRESSED, SAMPLED
from model.train.objective import objective


def test_losses_by_hand() -> None:
    """Two moments; the second was shown, its last candidate is padding. A log-odds of 0 costs log 2, of log 3 log(4/3)."""
    scores = torch.tensor([[math.log(3), 0.0, 0.0], [0.0, 0.0, 9.0]])
    labels = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]])
    real = torch.tensor([[True, True, True], [True, True, False]])
    source = torch.tensor([SAMPLED, IMPRESSED])
    found = objective(scores, labels, real, source, TrainConfig(impressed=4.0, listwise=2.0))
    drawn, shown = math.log(4 / 3) + 2 * math.log(2), 2 * math.log(2)
    assert found["pointwise"].item() == pytest.approx((drawn + 4 * shown) / (3 + 4 * 2))
    assert found["listwise"].item() == pytest.approx((math.log(5 / 3) + math.log(2)) / 2)
    assert found["total"].item() == pytest.approx(found["pointwise"].item() + 2 * found["listwise"].item())


def test_where_nothing_is_clicked_there_is_no_ranking() -> None:
    nothing = torch.zeros(1, 2)
    found = objective(nothing, nothing, torch.ones(1, 2, dtype=torch.bool), torch.tensor([IMPRESSED]), TrainConfig())
    assert found["listwise"].item() == 0
    assert found["pointwise"].item() == pytest.approx(math.log(2))
