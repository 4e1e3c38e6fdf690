import numpy as np
import pytest
import torch

from model.nn.features import Keyed, context, moments
from model.nn.features import counters as of_training
from model.nn.folded import Past, buckets
from model.nn.inputs import History, Seen
from model.nn.kernels import meet
from model.nn.met import Wanted, counters

NOW = 1_600_000_000_000


@pytest.mark.parametrize("length", [0, 1, 300])
@pytest.mark.parametrize("asked", [0, 3])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_one_pass_counts_as_training_does(length: int, asked: int, seed: int) -> None:
    """Rows 0 (none), repeated candidates, types not known, rows after the table's, times after now."""
    rng = np.random.default_rng(seed)
    item, query = (rng.integers(0, n, length).astype(np.int32) for n in (40, 6))
    time = np.sort(NOW + 10_000 - rng.integers(0, 10**11, length))
    rows, types = rng.integers(0, 45, 20).astype(np.int32), rng.integers(0, 7, 45).astype(np.int32)
    types[0] = 0
    by_item, by_type = (torch.from_numpy(x.astype(np.int64)) for x in (item, types[item]))
    wanted = torch.from_numpy(rows.astype(np.int64))[None], torch.from_numpy(types[rows].astype(np.int64))[None]
    history = History(by_item, torch.from_numpy(query.astype(np.int64)), torch.from_numpy(time), torch.zeros(length))
    seen = Seen.of_one(torch.tensor([length]), torch.tensor([NOW]))
    keyed = Keyed(by_item, wanted[0], 45), Keyed(by_type, wanted[1], 7)
    expected = of_training(history, seen, *keyed, torch.full((1, 20), asked))[0].numpy()
    past = Past(item, query, buckets(time, NOW), np.ones(length, np.uint8))
    found = counters(past, time, NOW, Wanted(rows, types[rows], types[:30], types[30:], 7, asked))
    assert found.dtype == np.float32
    assert found == pytest.approx(expected, abs=1e-6)
    last = time[-1:] if length else np.array([NOW])
    about = moments(np.array([NOW]), last, np.array([length]))
    assert np.array_equal(about, context(history, seen).numpy())


def test_halving_is_a_power_of_two() -> None:
    ages, lives = np.concatenate([[0.0], np.geomspace(1e-9, 900, 2000)]), np.array([1.0, np.inf])
    found = np.zeros((len(ages), 6))
    for age, row in zip(ages, found, strict=True):
        meet(row, age, False, lives)
    assert found[:, 0] == pytest.approx(np.exp2(-ages), rel=1e-9)
    assert (found[:, 1] == 1).all()
