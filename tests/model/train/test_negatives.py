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
    assert (drawn > 0).mean() > 0.9
    owner = np.searchsorted(starts, at, "right") - 1
    for i, (place, user) in enumerate(zip(at.tolist(), owner.tolist(), strict=True)):
        here = slice(starts[user], starts[user + 1])
        session = dataset.item_rows[here][dataset.basket_starts[here] == dataset.basket_starts[place]]
        assert not (set(drawn[i].tolist()) & set(session.tolist())) - {0}
    kin = negatives.kin(rng, dataset.item_rows[at], 3)
    assert (dataset.types[kin] == dataset.types[dataset.item_rows[at]][:, None])[kin > 0].all()
    same = (dataset.types[drawn] == dataset.types[dataset.item_rows[at]][:, None]) & (drawn > 0)
    assert same[searching].mean() > 1.5 * same[~searching].mean()
    for row, place, user in zip(negatives.past(rng, at, 4), at.tolist(), owner.tolist(), strict=True):
        before = dataset.item_rows[starts[user] : starts[user] + dataset.basket_starts[place]]
        assert set(row.tolist()) <= {0, *before.tolist()}
