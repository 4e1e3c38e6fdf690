import math

import torch

from model.nn.features import HALF_LIVES_DAYS, context, repeats
from model.nn.inputs import History, Seen

DAY = 86_400_000


def a_history(items: list[int], days: list[int]) -> History:
    zeros = torch.zeros(len(items), dtype=torch.long)
    return History(torch.tensor(items), zeros, torch.tensor(days) * DAY, zeros + 1)


def test_repeats_by_hand() -> None:
    history = a_history([1, 2, 1], [0, 1, 30])
    seen = Seen.of_one(torch.tensor([2, 3]), torch.tensor([30 * DAY, 30 * DAY]))
    found = repeats(history, seen, torch.tensor([[1, 0, 1], [1, 2, 0]]), 3)
    thirty, ever = HALF_LIVES_DAYS.index(30.0), HALF_LIVES_DAYS.index(math.inf)
    once, twice = torch.tensor(10 * 0.5).log1p(), torch.tensor(10 * 1.5).log1p()
    assert torch.allclose(found[0, 0, thirty], once)
    assert torch.equal(found[0, 0], found[0, 2])  # the same candidate twice
    assert torch.allclose(found[1, 0, thirty], twice)
    assert torch.allclose(found[1, 0, ever], torch.tensor(20.0).log1p())
    assert (found[0, 1] == 0).all()  # row 0 is no item
    since, due = found[..., -2], found[..., -1]
    assert torch.allclose(since[0, 0], torch.tensor(30.0).log1p() / 3)
    assert since[1, 0] == due[0, 0] == 0  # browsed just now; browsed once
    assert torch.allclose(due[1, 0], torch.tensor(1 / 31).log().clamp(min=-3))


def test_repeats_see_only_their_own_user() -> None:
    history = a_history([1, 1, 1, 2], [0, 1, 2, 3])
    seen = Seen(torch.tensor([0, 2]), torch.tensor([2, 4]), torch.tensor([4 * DAY, 4 * DAY]))
    found = repeats(history, seen, torch.tensor([[1, 2], [1, 2]]), 3)
    ever = HALF_LIVES_DAYS.index(math.inf)
    assert torch.allclose(found[..., ever], torch.tensor([[20.0, 0.0], [10.0, 10.0]]).log1p())


def test_context_is_bounded() -> None:
    history = a_history([1], [0])
    found = context(history, Seen(torch.tensor([0, 0]), torch.tensor([0, 1]), torch.tensor([0, 10**13])))
    assert found.shape == (2, 6)
    assert found.abs().max() < 10
    assert found[0, 4] == 0  # nothing before it
