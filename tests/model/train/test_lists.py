"""Candidate lists, checked against what they promise, target by target."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from features.record import KIND_BROWSE
from model.train.dataset import Dataset, load
from model.train.lists import CANDIDATES, MIN_TYPE, OWN, Candidates, Lists, later, targets
from model.train.slices import slices
from tests.dags import history
from tests.model.conftest import CONFIG, Windows

WINDOWS = Windows.from_dates(history.WINDOWS)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A history with types of 30 items."""
    home = tmp_path_factory.mktemp("lists")
    history.write(home, users=12, items_each=30)
    return home


@pytest.fixture(scope="module")
def dataset(home: Path) -> Dataset:
    """It, as of the end."""
    return load(home, WINDOWS.end, CONFIG.model)


def lists(dataset: Dataset, mode: str, most: int = 80, seed: int = 0) -> Lists:
    """Lists of the test window."""
    return later(dataset, WINDOWS.t3, WINDOWS.end, most, mode, seed)


def each(found: Lists) -> list[tuple[int, int, np.ndarray, int]]:
    """User, prefix, items, query of each list."""
    return [
        (m.user, int(m.prefix[i]), m.items[i][m.real[i]], int(m.queries[i, 0]))
        for m in found.moments
        for i in range(len(m.prefix))
    ]


def basket(dataset: Dataset, user: int, prefix: int) -> np.ndarray:
    """Item rows of the session that begins there."""
    here = slice(dataset.histories.offsets[user], dataset.histories.offsets[user + 1])
    rows = dataset.item_rows[here][dataset.basket_starts[here] == prefix]
    return rows[rows > 0]


def past(dataset: Dataset, user: int, prefix: int) -> np.ndarray:
    """Item rows before it."""
    start = dataset.histories.offsets[user]
    rows = dataset.item_rows[start : start + prefix]
    return rows[rows > 0]


@pytest.mark.parametrize("mode", ["recommendation", "search", "catalogue"])
def test_no_negative_is_of_the_targets_basket_and_none_repeats(dataset: Dataset, mode: str) -> None:
    found = each(lists(dataset, mode))
    assert len(found) > 40
    for user, prefix, items, _ in found:
        own = basket(dataset, user, prefix)
        assert items[0] in own
        assert not np.isin(items[1:], own).any()
        assert len(np.unique(items)) == len(items)
        assert (items > 0).all()


def test_recommendation_has_twenty_of_the_users_own_past(dataset: Dataset) -> None:
    found = each(lists(dataset, "recommendation"))
    assert {query for *_, query in found} == {0}
    for user, prefix, items, _ in found:
        assert len(items) <= 1 + CANDIDATES
        mine = np.setdiff1d(past(dataset, user, prefix), basket(dataset, user, prefix))
        assert np.isin(items[1:], mine).sum() >= min(OWN, len(mine))
    # Nothing else is left out: what was browsed before the target may come as a popular one too.
    assert any(np.isin(items[1:], past(dataset, user, prefix)).sum() > OWN for user, prefix, items, _ in found)


def test_search_ranks_all_items_of_the_type(dataset: Dataset) -> None:
    found = each(lists(dataset, "search"))
    for user, prefix, items, query in found:
        kind = dataset.types[items[0]]
        whole = np.flatnonzero(dataset.types == kind)
        assert len(whole) >= MIN_TYPE
        mates = np.setdiff1d(basket(dataset, user, prefix), items[:1])
        assert set(items.tolist()) == set(np.setdiff1d(whole, mates).tolist())
        assert dataset.query_texts[query - 1] == history.KINDS[0] or query > 0


def test_what_is_not_on_sale_yet_is_no_candidate(dataset: Dataset) -> None:
    listed = dataset.listed.copy()
    listed[1:11] = WINDOWS.end  # as if their events came later
    dataset = replace(dataset, listed=listed)
    for mode in ("search", "catalogue"):
        for *_, items, _ in each(later(dataset, WINDOWS.t3, WINDOWS.end, 80, mode, 0)):
            assert not np.isin(items[1:], np.arange(1, 11)).any()


def test_small_types_are_no_test(tmp_path: Path) -> None:
    history.write(tmp_path, users=6, items_each=MIN_TYPE - 1)
    small = load(tmp_path, WINDOWS.end, CONFIG.model)
    assert len(lists(small, "search")) == 0
    assert len(lists(small, "recommendation")) > 0


def test_cold_items_come_at_their_share_among_targets(dataset: Dataset) -> None:
    since = WINDOWS.t1 - 25 * history.DAY
    counts = dataset.counts(since)
    cold = np.flatnonzero(counts == 0)[1:]
    assert len(cold) > 20
    draw, rng = Candidates(dataset, since, 0.3), np.random.default_rng(0)
    nobody = np.zeros(0, np.int64)
    drawn = [draw.recommendation(rng, int(cold[0]), nobody, cold[:1], WINDOWS.end) for _ in range(40)]
    share = float(np.mean([np.isin(items, cold).sum() / CANDIDATES for items in drawn]))
    assert share == pytest.approx(0.3, abs=0.05)
    none = Candidates(dataset, since, 0.0).recommendation(rng, int(cold[0]), nobody, cold[:1], WINDOWS.end)
    assert not np.isin(none, cold).any()


def test_popular_negatives_come_in_proportion_to_browses(dataset: Dataset) -> None:
    counts = dataset.counts(WINDOWS.t3)
    draw, rng = Candidates(dataset, WINDOWS.t3, 0.0), np.random.default_rng(0)
    nobody = np.zeros(0, np.int64)
    first_drawn = [int(draw.recommendation(rng, 0, nobody, nobody, WINDOWS.end)[0]) for _ in range(3000)]
    share = np.bincount(first_drawn, minlength=len(counts)) / 3000
    assert np.abs(share - counts / counts.sum()).max() < 0.02
    assert np.corrcoef(share, counts)[0, 1] > 0.9


def test_a_seed_draws_the_same_lists_and_they_are_saved_by_stable_ids(home: Path, dataset: Dataset) -> None:
    one, same, other = (lists(dataset, "recommendation", seed=seed) for seed in (3, 3, 4))
    assert one.digest(dataset) == same.digest(dataset) != other.digest(dataset)
    with np.load(one.save(home, dataset)) as saved:
        users, prefixes, candidates, _ = zip(*each(one), strict=True)
        assert saved["user"].tolist() == [dataset.histories.user_ids[user] for user in users]
        assert saved["prefix"].tolist() == list(prefixes)
        assert saved["length"].tolist() == [len(items) for items in candidates]
        assert saved["items"].tolist() == dataset.item_ids[np.concatenate(candidates) - 1].tolist()


def test_targets_are_the_windows_browses(dataset: Dataset) -> None:
    owners, places = targets(dataset, WINDOWS.t3, WINDOWS.end)
    records = dataset.histories.records
    inside = (records["time"] >= WINDOWS.t3) & (records["time"] < WINDOWS.end) & (records["kind"] == KIND_BROWSE)
    at = dataset.histories.offsets[owners] + places
    assert sorted(at.tolist()) == np.flatnonzero(inside).tolist()
    few = targets(dataset, WINDOWS.t3, WINDOWS.end, np.array([2, 5]))
    assert set(few[0].tolist()) == {2, 5}


def test_slices_by_hand(dataset: Dataset) -> None:
    found = lists(dataset, "recommendation")
    masks = slices(dataset, found, WINDOWS)
    assert all(mask.shape == (len(found),) for mask in masks.values())
    for place, (user, prefix, items, _) in enumerate(each(found)):
        assert masks["repeat"][place] == (items[0] in past(dataset, user, prefix))
        assert masks["length_below_300"][place] == (prefix < 300)
        assert masks["item_cold"][place] == (dataset.counts(WINDOWS.t3)[items[0]] == 0)
        assert masks["target_untrained"][place] == (dataset.counts(WINDOWS.t2, WINDOWS.t1)[items[0]] == 0)
    assert (masks["repeat"] ^ masks["explore"]).all()
    assert (masks["item_cold"].astype(int) + masks["item_rare"] + masks["item_common"] == 1).all()
    assert masks["history_untrained"].mean() >= 0.25
