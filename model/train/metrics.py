"""Metrics of rankings and of probabilities.

Letters: n scored examples, g lists, c candidates of a list. Ties count half, so that a constant score gets AUC 0.5 and no
method gains from the order in which candidates happen to stand.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq, minimize
from scipy.special import expit
from scipy.stats import rankdata

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def auc(scores: Floats, labels: NDArray[Any]) -> float:
    """Chance that a positive outscores a negative; NaN where one of them is absent."""
    positive = labels > 0
    pos, neg = int(positive.sum()), int((~positive).sum())
    if not pos or not neg:
        return float("nan")
    return float((rankdata(scores)[positive].sum() - pos * (pos + 1) / 2) / (pos * neg))


def by_user_auc(scores: Floats, labels: NDArray[Any], users: Ints) -> tuple[Ints, Floats, Floats]:
    """Users [u] that have both labels, the AUC [u] of each, and the number of their positives [u]."""
    order = np.argsort(users, kind="stable")
    found, starts = np.unique(users[order], return_index=True)
    rows = []
    for user, part in zip(found.tolist(), np.split(order, starts)[1:], strict=True):
        value = auc(scores[part], labels[part])
        if not np.isnan(value):
            rows.append((user, value, float((labels[part] > 0).sum())))
    columns = np.array(rows, np.float64).reshape(-1, 3)
    return columns[:, 0].astype(np.int64), columns[:, 1], columns[:, 2]


def interval(values: Floats, weights: Floats, seed: int = 0, rounds: int = 1000) -> tuple[float, float, float]:
    """The weighted mean over users with a 95 % interval, users resampled."""
    if not len(values):
        return float("nan"), float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, len(values), (rounds, len(values)))
    means = (values[drawn] * weights[drawn]).sum(1) / weights[drawn].sum(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(np.average(values, weights=weights)), float(low), float(high)


def ranks(scores: Floats, real: NDArray[np.bool_]) -> Floats:
    """The rank [g], from 1, of candidate 0 in each list of scores [g, c]; a tie counts half."""
    others = real.copy()
    others[:, 0] = False
    above = ((scores > scores[:, :1]) & others).sum(1)
    level = ((scores == scores[:, :1]) & others).sum(1)
    return np.asarray(1 + above + level / 2, np.float64)


def hit(rank: Floats, k: int) -> Floats:
    """1 where the rank is k or better."""
    return (rank <= k).astype(np.float64)


def ndcg(rank: Floats, k: int) -> Floats:
    """Discounted gain of the one right answer at its rank."""
    return np.where(rank <= k, 1 / np.log2(rank + 1), 0.0)


def mrr(rank: Floats) -> Floats:
    """Reciprocal rank."""
    return 1 / rank


def log_loss(probability: Floats, labels: NDArray[Any]) -> float:
    """Mean negative log likelihood."""
    p = np.clip(probability, 1e-7, 1 - 1e-7)
    return float(-np.mean(np.where(labels > 0, np.log(p), np.log1p(-p))))


def fit_logistic(scores: Floats, labels: NDArray[Any]) -> tuple[float, float]:
    """(scale, shift) of sigmoid(scale * score + shift) with the least log loss, whatever the scores' range."""
    mean, spread = float(scores.mean()), float(scores.std()) or 1.0
    x, y = (scores - mean) / spread, (labels > 0).astype(np.float64)

    def loss(w: Floats) -> tuple[float, Floats]:
        odds = w[0] * x + w[1]
        error = expit(odds) - y
        value = np.mean(np.logaddexp(0, odds) - y * odds) + 1e-9 * w @ w  # separable scores have no finite best
        return float(value), np.array([np.mean(error * x), np.mean(error)]) + 2e-9 * w

    scale, shift = minimize(loss, np.zeros(2), jac=True, method="BFGS").x
    return float(scale / spread), float(shift - scale * mean / spread)


def fit_shift(scores: Floats, labels: NDArray[Any]) -> float:
    """The shift of sigmoid(score + shift) whose mean is the mean label; labels of both kinds."""
    rate = float((labels > 0).mean())
    edge = 40.0 + float(np.abs(scores).max())
    return float(brentq(lambda shift: float(expit(scores + shift).mean()) - rate, -edge, edge))


def calibration(probability: Floats, labels: NDArray[Any], bins: int = 10) -> dict[str, Any]:
    """Predicted and observed rates by decile, their ratio over all, and the slope of observed on predicted log-odds.

    The ratio is None where nothing was observed: whatever was predicted cannot be held against it.
    """
    order = np.argsort(probability, kind="stable")
    y = (labels > 0).astype(np.float64)
    rows = [
        {"predicted": float(probability[part].mean()), "observed": float(y[part].mean()), "n": len(part)}
        for part in np.array_split(order, bins)
        if len(part)
    ]
    odds = np.log(np.clip(probability, 1e-7, 1 - 1e-7) / np.clip(1 - probability, 1e-7, 1))
    return {
        "deciles": rows,
        "predicted_to_observed": float(probability.mean() / y.mean()) if y.any() else None,
        "slope": fit_logistic(odds, labels)[0],
    }
