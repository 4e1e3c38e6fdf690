"""From scores of lists to figures with intervals: per target, per user, per slice, and paired between methods.

Letters: g lists, u users, s seeds, x scored candidates of all lists. GAUC is the mean over users, weighted by their targets,
of a user's AUC: over all that the user was given (as in DIN), but in search the mean of the AUCs within each request: lists
of all items of a type differ in length, and a method would gain by knowing how long each is. Ranks are within a list.
Intervals are 95 %, users resampled; of several seeds, a user's value is the mean over them: seeds are no extra users.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.train import metrics
from model.train.lists import Lists
from model.train.moments import Moments

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Scorer = Callable[[list[Moments]], list[Floats]]
CUTOFFS = (1, 5, 10, 50)


@dataclass(frozen=True)
class Scored:
    """What a method gave to g lists: user [g], rank [g] of the right one, length [g]; and score, label, place in g [x].

    within: users' AUCs are means over their lists.
    """

    user: Ints
    rank: Floats
    length: Ints
    score: Floats
    label: NDArray[np.float32]
    list_of: Ints
    within: bool

    def gauc(self, chosen: Bools | None = None) -> tuple[Ints, Floats, Floats]:
        """Users [u], their AUCs [u] and weights [u], over the chosen [g] lists."""
        if self.within:
            return self._means(1 - (self.rank - 1) / np.maximum(self.length - 1, 1), chosen)
        here = slice(None) if chosen is None else chosen[self.list_of]
        return metrics.by_user_auc(self.score[here], self.label[here], self.user[self.list_of[here]])

    def ndcg(self, chosen: Bools | None = None, k: int = 10) -> tuple[Ints, Floats, Floats]:
        """Users [u], their mean NDCG@k [u] and numbers of lists [u], over the chosen [g] lists."""
        return self._means(metrics.ndcg(self.rank, k), chosen)

    def _means(self, values: Floats, chosen: Bools | None) -> tuple[Ints, Floats, Floats]:
        here = slice(None) if chosen is None else chosen
        users, place, counts = np.unique(self.user[here], return_inverse=True, return_counts=True)
        return users, np.bincount(place, values[here], len(users)) / counts, counts.astype(np.float64)


def scored(score: Scorer, lists: Lists) -> Scored:
    """Score lists of one right answer each, or of several: then ranks are those of candidate 0 and mean nothing."""
    owner, rank, length, flat, labels = [], [], [], [], []
    for m, scores in zip(lists.moments, score(lists.moments), strict=True):
        owner.append(np.full(len(scores), m.user))
        rank.append(metrics.ranks(scores, m.real))
        length.append(m.real.sum(1))
        flat.append(scores[m.real])
        labels.append(m.labels[m.real])
    if not owner:
        none = np.zeros(0, np.int64)
        empty = none.astype(np.float64)
        return Scored(none, empty, none, empty, none.astype(np.float32), none, lists.mode == "search")
    lengths = np.concatenate(length)
    place = np.repeat(np.arange(len(lengths)), lengths)
    return Scored(
        np.concatenate(owner),
        np.concatenate(rank),
        lengths,
        np.concatenate(flat),
        np.concatenate(labels),
        place,
        lists.mode == "search",
    )


def figures(found: Scored) -> dict[str, Any]:
    """Every ranking metric of a method on its lists, GAUC and NDCG@10 with intervals."""
    row = {**_intervals(found), "n_targets": len(found.rank)}
    if not len(found.rank):
        return row
    for k in CUTOFFS:
        row[f"hit{k}"] = float(metrics.hit(found.rank, k).mean())
        if k != 10:
            row[f"ndcg{k}"] = float(metrics.ndcg(found.rank, k).mean())
    row |= {"mrr": float(metrics.mrr(found.rank).mean()), "auc": metrics.auc(found.score, found.label)}
    return {**row, "candidates": float(found.length.mean())}


def quality(score: Scorer, validation: list[Lists]) -> dict[str, Any]:
    """GAUC and NDCG@10 of lists by their mode, their means over modes, and "quality", the mean of both: it is maximised.

    Both, since who is chosen by GAUC alone may lose first ranks by what gains it (docs/results/quality.md). A mode without
    lists is left out; without any, all means are NaN.
    """
    row: dict[str, Any] = {}
    some = [lists for lists in validation if len(lists)]
    for lists in some:
        found = scored(score, lists)
        parts = {"gauc": found.gauc(), "ndcg10": found.ndcg()}
        row[lists.mode] = {name: metrics.interval(*part[1:], rounds=1)[0] for name, part in parts.items()}
    means = {name: _mean([row[lists.mode][name] for lists in some]) for name in ("gauc", "ndcg10")}
    return {**row, **means, "quality": (means["gauc"] + means["ndcg10"]) / 2}


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else float("nan")


def sliced(found: Scored, slices: dict[str, Bools]) -> dict[str, dict[str, Any]]:
    """GAUC and NDCG@10 with intervals of each slice [g] that has any list."""
    return {
        name: {**_intervals(found, chosen), "n_targets": int(chosen.sum())}
        for name, chosen in slices.items()
        if chosen.any()
    }


def _intervals(found: Scored, chosen: Bools | None = None) -> dict[str, Any]:
    users, values, weights = found.gauc(chosen)
    row: dict[str, Any] = {"n_users": len(users)}
    for name, (value, low, high) in {
        "gauc": metrics.interval(values, weights),
        "ndcg10": metrics.interval(*found.ndcg(chosen)[1:]),
    }.items():
        row |= {name: value, f"{name}_lo": low, f"{name}_hi": high}
    return row


@dataclass(frozen=True)
class Means:
    """A method over its seeds: users [u], values [u] (each the mean over seeds), weights [u]."""

    users: Ints
    values: Floats
    weights: Floats

    @classmethod
    def over(cls, seeds: list[tuple[Ints, Floats, Floats]]) -> "Means":
        """From `Scored.gauc` or `Scored.ndcg` of each seed; all have the same lists, so the same users and weights."""
        users, _, weights = seeds[0]
        if any(not np.array_equal(users, other[0]) or not np.array_equal(weights, other[2]) for other in seeds):
            raise ValueError("seeds were scored on different lists")
        return cls(users, np.mean([values for _, values, _ in seeds], 0), weights)

    def interval(self) -> tuple[float, float, float]:
        """Mean, low, high."""
        return metrics.interval(self.values, self.weights)

    def minus(self, rival: "Means") -> tuple[float, float, float]:
        """Mean, low and high of this method minus its rival, user by user."""
        if not np.array_equal(self.users, rival.users) or not np.array_equal(self.weights, rival.weights):
            raise ValueError("methods were scored on different lists")
        return metrics.interval(self.values - rival.values, self.weights)
