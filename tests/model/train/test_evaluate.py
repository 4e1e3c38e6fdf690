"""Rates from scores: a logistic on impressions of validation, unless these are too few or say the reverse."""

import numpy as np
import pytest

from model.nn.click import IMPRESSED
from model.train.evaluate import FEWEST, calibrated
from model.train.lists import Lists
from model.train.moments import Moments, Row, pad


def shown(labels: list[list[int]]) -> Lists:
    """Impressions of one user, whose items are their places."""
    rows = [
        Row(i, i, 0, np.arange(1, len(x) + 1), np.array(x, np.float32), IMPRESSED, np.arange(len(x)))
        for i, x in enumerate(labels)
    ]
    return Lists("impressions", 0, [pad(0, rows)] if rows else [])


def falling(moments: list[Moments]) -> list[np.ndarray]:
    """The earlier item has the higher score: 2, 1, 0."""
    return [3.0 - m.items for m in moments]


def rates(before: Lists) -> list[float]:
    found: list[float] = calibrated(falling, before, shown([]), -1.5)["logistic"]
    return found


def test_few_clicks_fit_nothing() -> None:
    for some in ([], [[1, 0, 0]], [[0, 0, 1]], [[0, 0, 0]] * 90, [[1, 1, 1]] * 90, [[1, 0, 0]] * (FEWEST - 1)):
        assert rates(shown(some)) == [1.0, -1.5]


def test_many_do() -> None:
    scale, shift = rates(shown([[1, 0, 0]] * 30 + [[0, 1, 0]] * 20 + [[0, 0, 1]] * 10))
    assert 0 < scale < 2
    assert sum(1 / (1 + np.exp(-(scale * x + shift))) for x in (2, 1, 0)) == pytest.approx(1, abs=1e-3)


def test_rates_are_never_in_reverse_of_scores() -> None:
    scale, shift = rates(shown([[0, 0, 1]] * 60))
    assert scale == 1
    assert sum(1 / (1 + np.exp(-(x + shift))) for x in (2, 1, 0)) == pytest.approx(1, abs=1e-6)
