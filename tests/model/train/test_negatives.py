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
    kin = negatives.kin(rng, dataset.item_rows[at], 3)
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
