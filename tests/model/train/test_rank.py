"""From scores to figures, by hand and by the identities that any ranks obey."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.nn.click import IMPRESSED
from model.train.lists import Lists
from model.train.moments import Row, pad
from model.train.rank import CUTOFFS, Means, Scored, figures, quality, scored, sliced


def lists(by_user: dict[int, list[int]], mode: str = "recommendation") -> Lists:
    """Lists of these lengths, candidate 0 being right; items count from 1."""
    moments = []
    for user, lengths in by_user.items():
        rows = []
        for i, n in enumerate(lengths):
            labels = (np.arange(n) == 0).astype(np.float32)
            rows.append(Row(i, i, 0, np.arange(1, n + 1), labels, IMPRESSED, None))
        moments.append(pad(user, rows))
    return Lists(mode, 0, moments)


def given_scores(found: Lists, values: dict[int, list[list[float]]]) -> Scored:
    """Score them so."""

    def score(moments: list) -> list:
        out = []
        for m in moments:
            filled = np.zeros(m.items.shape)
            for i, row in enumerate(values[m.user]):
                filled[i, : len(row)] = row
            out.append(filled)
        return out

    return scored(score, found)


def test_tuning_weighs_first_ranks_as_much_as_all_of_them() -> None:
    validation = [lists({1: [5, 5]}, mode) for mode in ("recommendation", "search")]

    def ranks(*places: int) -> Any:
        """Scores that put the right one of each list at these places."""
        rows = [[float(-place), *(-float(other) for other in range(1, 6) if other != place)] for place in places]
        return lambda moments: [np.array(rows) for _ in moments]

    even, first = quality(ranks(2, 2), validation), quality(ranks(1, 4), validation)
    assert even["search"] == pytest.approx({"gauc": 3 / 4, "ndcg10": 1 / np.log2(3)})
    assert first["search"] == pytest.approx({"gauc": 5 / 8, "ndcg10": (1 + 1 / np.log2(5)) / 2})
    for row in (even, first):
        for name in ("gauc", "ndcg10"):
            assert row[name] == pytest.approx((row["recommendation"][name] + row["search"][name]) / 2)
        assert row["quality"] == pytest.approx((row["gauc"] + row["ndcg10"]) / 2)
    assert even["gauc"] > first["gauc"]
    assert even["ndcg10"] < first["ndcg10"]


def test_a_mode_without_lists_says_nothing_of_quality() -> None:
    def score(moments: list) -> list:
        return [-np.arange(m.items.size, dtype=float).reshape(m.items.shape) for m in moments]

    some, none = lists({1: [5]}), lists({}, "search")
    assert quality(score, [some, none])["quality"] == quality(score, [some])["quality"] == 1
    assert np.isnan(quality(score, [none])["quality"])


def test_by_hand() -> None:
    found = given_scores(
        lists({3: [4, 4], 8: [4]}),
        {3: [[9.0, 1.0, 2.0, 3.0], [0.0, 5.0, 6.0, 7.0]], 8: [[2.0, 3.0, 1.0, 0.0]]},
    )
    assert found.rank.tolist() == [1.0, 4.0, 2.0]
    users, values, weights = found.gauc()
    # User 3, pooled: 9 beats all six negatives, 0 beats none; user 8: 2 beats two of three.
    assert users.tolist() == [3, 8]
    assert values.tolist() == pytest.approx([0.5, 2 / 3])
    assert weights.tolist() == [2.0, 1.0]
    row = figures(found)
    assert row["gauc"] == pytest.approx((2 * 0.5 + 2 / 3) / 3)
    assert row["hit1"] == row["ndcg1"] == pytest.approx(1 / 3)
    assert row["ndcg10"] == pytest.approx((1 + 1 / np.log2(5) + 1 / np.log2(3)) / 3)
    assert row["mrr"] == pytest.approx((1 + 1 / 4 + 1 / 2) / 3)
    assert row["n_users"], row["n_targets"] == (2, 3)


def test_search_compares_within_a_request_only() -> None:
    """A long list with high scores and a short one with low scores, each ranked perfectly: nothing is lost."""
    scores = {0: [[5.0, *[4.0] * 9], [1.0, 0.0]]}
    assert given_scores(lists({0: [10, 2]}, "search"), scores).gauc()[1].tolist() == [1.0]
    assert given_scores(lists({0: [10, 2]}), scores).gauc()[1].tolist() == pytest.approx([(10 + 1) / 20])


def test_slices_are_parts_of_the_whole() -> None:
    found = given_scores(lists({3: [3, 3], 8: [3]}), {3: [[3.0, 1, 2], [0.0, 1, 2]], 8: [[2.0, 3, 1]]})
    rows = sliced(found, {"first": np.array([True, False, False]), "none": np.zeros(3, bool), "all": np.ones(3, bool)})
    assert set(rows) == {"first", "all"}
    assert rows["first"]["gauc"] == rows["first"]["ndcg10"] == 1.0
    assert rows["all"]["gauc"] == figures(found)["gauc"]


@given(st.lists(st.lists(st.integers(0, 5), min_size=2, max_size=30), min_size=1, max_size=8), st.booleans())
def test_identities(values: list[list[int]], within: bool) -> None:
    found = given_scores(
        lists({0: [len(row) for row in values]}, "search" if within else "recommendation"),
        {0: [[float(x) for x in row] for row in values]},
    )
    row = figures(found)
    assert row["ndcg1"] == row["hit1"]
    assert row["mrr"] >= row["hit1"]
    for small, large in pairwise(CUTOFFS):
        assert row[f"hit{small}"] <= row[f"hit{large}"]
        # NDCG grows by the new hits, each discounted by at least the first new rank.
        gain = row[f"ndcg{large}"] - row[f"ndcg{small}"]
        assert -1e-12 <= gain <= (row[f"hit{large}"] - row[f"hit{small}"]) / np.log2(small + 1.5) + 1e-12
    assert all(row[f"ndcg{k}"] <= row[f"hit{k}"] for k in CUTOFFS)
    assert 0 <= row["gauc"] <= 1
    flipped = figures(given_scores(lists({0: [len(r) for r in values]}), {0: [[-float(x) for x in r] for r in values]}))
    straight = figures(given_scores(lists({0: [len(r) for r in values]}), {0: [[float(x) for x in r] for r in values]}))
    assert flipped["gauc"] == pytest.approx(1 - straight["gauc"])


def test_seeds_are_averaged_before_users_are_resampled() -> None:
    users, weights = np.arange(200), np.ones(200)
    rng = np.random.default_rng(0)
    base = rng.normal(0.7, 0.1, 200)
    seeds = [(users, base + rng.normal(0, 0.2, 200), weights) for _ in range(3)]
    ours = Means.over(seeds)
    assert ours.values == pytest.approx(np.mean([values for _, values, _ in seeds], 0))
    low, high = ours.interval()[1:]
    # As wide as 200 users make it, not as 600 would.
    assert (high - low) / 2 == pytest.approx(1.96 * ours.values.std() / np.sqrt(200), rel=0.15)


def test_differences_are_paired() -> None:
    """Users differ by far more than methods do; user by user the difference is plain."""
    rng = np.random.default_rng(0)
    users, weights, base = np.arange(100), np.ones(100), rng.random(100)
    ours, rival = Means(users, base + 0.01 + rng.normal(0, 0.001, 100), weights), Means(users, base, weights)
    mean, low, high = ours.minus(rival)
    assert 0.009 < low < mean < high < 0.011
    assert rival.minus(ours)[1] < 0
    with pytest.raises(ValueError, match="different lists"):
        ours.minus(Means(users + 1, base, weights))
