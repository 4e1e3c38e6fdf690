from dataclasses import replace

import numpy as np

from model.train.dataset import load
from model.train.examples import browses
from model.train.negatives import Negatives
from tests.model.conftest import Trained


def test_negatives_are_of_their_kinds_and_never_of_the_session(trained: Trained) -> None:
    dataset = load(trained.home, trained.windows.t2, trained.config.model)
    until, rng = trained.windows.t2, np.random.default_rng(0)
    negatives, starts = Negatives(dataset, until), dataset.histories.offsets
    at = np.concatenate([starts[user] + browses(dataset, user, trained.windows.t1, until) for user in range(8)])
    searching = np.arange(len(at)) % 2 == 0
    drawn = negatives.mixed(rng, at, 12, searching)
    assert drawn.shape == (len(at), 12)
    assert (drawn[~searching] > 0).mean() > 0.9  # a type may have fewer
    owner = np.searchsorted(starts, at, "right") - 1
    for i, (place, user) in enumerate(zip(at.tolist(), owner.tolist(), strict=True)):
        here = slice(starts[user], starts[user + 1])
        session = dataset.item_rows[here][dataset.basket_starts[here] == dataset.basket_starts[place]]
        assert not (set(drawn[i].tolist()) & set(session.tolist())) - {0}
    kin = negatives.kin(rng, at, 3)
    assert (dataset.types[kin] == dataset.types[dataset.item_rows[at]][:, None])[kin > 0].all()
    same = dataset.types[drawn] == dataset.types[dataset.item_rows[at]][:, None]
    assert same[searching][drawn[searching] > 0].all()
    assert not same[~searching][drawn[~searching] > 0].all()
    for row, place, user in zip(negatives.past(rng, at, 4), at.tolist(), owner.tolist(), strict=True):
        before = dataset.item_rows[starts[user] : starts[user] + dataset.basket_starts[place]]
        assert set(row.tolist()) <= {0, *before.tolist()}


def test_an_earlier_item_is_as_likely_however_often_it_was_browsed(trained: Trained) -> None:
    dataset = load(trained.home, trained.windows.t2, trained.config.model)
    negatives, starts = Negatives(dataset, trained.windows.t2), dataset.histories.offsets
    place = int(browses(dataset, 3, trained.windows.t1, trained.windows.t2)[-1]) + int(starts[3])
    before = dataset.item_rows[starts[3] : starts[3] + dataset.basket_starts[place]]
    distinct, times = np.unique(before[before > 0], return_counts=True)
    assert times.max() > 3 * times.min()
    drawn = negatives.past(np.random.default_rng(0), np.array([place]), 400 * len(distinct))[0]
    shares = np.bincount(drawn, minlength=int(distinct.max()) + 1)[distinct] / 400
    assert np.abs(shares - 1).max() < 0.25


def test_new_items_come_at_their_share(trained: Trained) -> None:
    dataset, rng = load(trained.home, trained.windows.t2, trained.config.model), np.random.default_rng(0)
    early = int(dataset.histories.records["time"].min()) + 86_400_000  # by then nobody has browsed some items
    counts, users = dataset.counts(early), range(8)
    assert (counts[1:] == 0).sum() > 5
    window = trained.windows.t1, trained.windows.t2
    at = np.concatenate([dataset.histories.offsets[user] + browses(dataset, user, *window) for user in users])
    for share in (0.0, 0.4):
        drawn = Negatives(dataset, early, share).mixed(rng, at, 400, np.zeros(len(at), bool))
        drawn = drawn[:, 200:]  # what is popular or new: kin and past, few in this world, come first
        new = (counts[drawn] == 0)[drawn > 0].mean()
        assert abs(new - share) < 0.05


def test_nothing_is_drawn_before_it_is_on_sale(trained: Trained) -> None:
    dataset, rng = load(trained.home, trained.windows.t2, trained.config.model), np.random.default_rng(0)
    places = browses(dataset, 3, trained.windows.t1, trained.windows.t2)
    at = dataset.histories.offsets[3] + places[:1]
    kin = np.flatnonzero(dataset.types == dataset.types[dataset.item_rows[at[0]]])
    assert set(Negatives(dataset, 0).kin(rng, at, 400)[0].tolist()) == set(kin.tolist())
    listed = dataset.listed.copy()
    listed[kin[1:]] = trained.windows.end
    alone = Negatives(replace(dataset, listed=listed), 0)
    assert set(alone.kin(rng, at, 40)[0].tolist()) == {int(kin[0])}
    nothing = Negatives(replace(dataset, listed=np.full_like(listed, trained.windows.end)), 0)
    assert not nothing.cold(rng, at, 40).any()
