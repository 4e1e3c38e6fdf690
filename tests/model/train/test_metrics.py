import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.train.metrics import (
    auc,
    by_user_auc,
    calibration,
    fit_logistic,
    fit_shift,
    hit,
    interval,
    log_loss,
    mrr,
    ndcg,
    ranks,
)


def test_auc_by_hand() -> None:
    labels = np.array([1, 0, 1, 0])
    assert auc(np.array([3.0, 2.0, 1.0, 0.0]), labels) == 0.75
    assert auc(np.zeros(4), labels) == 0.5
    assert math.isnan(auc(np.zeros(2), np.ones(2)))


def test_gauc_counts_users_with_both_labels_only() -> None:
    scores, labels = np.array([1.0, 0.0, 0.0, 1.0, 5.0]), np.array([1, 0, 1, 0, 1])
    users, values, weights = by_user_auc(scores, labels, np.array([7, 7, 3, 3, 9]))
    assert users.tolist() == [3, 7]
    assert values.tolist() == [0.0, 1.0]
    assert weights.tolist() == [1.0, 1.0]
    assert [len(found) for found in by_user_auc(scores[:0], labels[:0], np.zeros(0, np.int64))] == [0, 0, 0]


def test_ranks_by_hand() -> None:
    scores = np.array([[2.0, 3.0, 2.0, 1.0], [9.0, 1.0, 99.0, 99.0]])
    real = np.array([[True] * 4, [True, True, False, False]])
    assert ranks(scores, real).tolist() == [2.5, 1.0]  # one above, one level; padding does not count


@given(st.lists(st.floats(1, 100), min_size=1, max_size=30))
def test_identities_that_any_ranks_obey(values: list[float]) -> None:
    rank = np.array(values)
    whole = np.floor(rank)
    assert (ndcg(whole, 1) == hit(whole, 1)).all()
    assert (ndcg(rank, 10) <= hit(rank, 10)).all()
    assert (mrr(rank) >= hit(whole, 1) * (rank == 1)).all()
    assert (ndcg(rank, 50) >= ndcg(rank, 10)).all()


def test_log_loss_and_logistic_recover_a_known_rate() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=40_000)
    truth = 1 / (1 + np.exp(-(2 * x - 1)))
    y = (rng.random(40_000) < truth).astype(float)
    scale, shift = fit_logistic(x, y)
    assert scale == pytest.approx(2, abs=0.1)
    assert shift == pytest.approx(-1, abs=0.1)
    assert log_loss(truth, y) < log_loss(np.full(40_000, y.mean()), y)
    found = calibration(truth, y)
    assert found["predicted_to_observed"] == pytest.approx(1, abs=0.03)
    assert found["slope"] == pytest.approx(1, abs=0.06)
    assert sum(row["n"] for row in found["deciles"]) == 40_000


def test_the_logistic_fits_rare_clicks_on_skewed_scores() -> None:
    """Log counts are far from zero and mostly tied; the mean prediction of a fit with a shift is the observed rate."""
    rng = np.random.default_rng(0)
    x = np.where(rng.random(30_000) < 0.9, -9.0, rng.normal(1, 1, 30_000))
    y = (rng.random(30_000) < np.where(x < -5, 0.03, 0.5)).astype(float)
    scale, shift = fit_logistic(x, y)
    predicted = 1 / (1 + np.exp(-(scale * x + shift)))
    assert predicted.mean() == pytest.approx(y.mean(), rel=1e-3)
    assert log_loss(predicted, y) < 0.25


def test_a_shift_alone_gives_the_observed_rate() -> None:
    scores, labels = np.array([-900.0, 0.0, 2.0, 3.0]), np.array([0, 1, 0, 0])
    shift = fit_shift(scores, labels)
    assert (1 / (1 + np.exp(-np.clip(scores + shift, -700, 700)))).mean() == pytest.approx(0.25)


def test_log_loss_by_hand() -> None:
    assert log_loss(np.array([0.8, 0.4]), np.array([1, 0])) == pytest.approx(-(math.log(0.8) + math.log(0.6)) / 2)


def test_the_interval_holds_the_mean_and_narrows_with_users() -> None:
    rng = np.random.default_rng(0)
    wide = interval(few := rng.normal(size=20), np.ones(20))
    narrow = interval(rng.normal(size=2000), np.ones(2000))
    assert wide[0] == pytest.approx(few.mean())
    assert wide[1] < wide[0] < wide[2]
    assert narrow[2] - narrow[1] < wide[2] - wide[1]


def test_where_nothing_was_clicked_no_rate_is_too_high() -> None:
    found = calibration(np.linspace(0.01, 0.05, 40), np.zeros(40))
    assert found["predicted_to_observed"] is None
    assert calibration(np.full(40, 0.5), np.arange(40) % 2)["predicted_to_observed"] == pytest.approx(1)
