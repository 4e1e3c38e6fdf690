import math

import numpy as np
import torch

from model.nn.features import COUNTERS, HALF_LIVES_DAYS, REPEATS, Keyed, context, counters, repeats
from model.nn.inputs import History, Seen

DAY = 86_400_000


def a_history(items: list[int], days: list[int]) -> History:
    zeros = torch.zeros(len(items), dtype=torch.long)
    return History(torch.tensor(items), zeros, torch.tensor(days) * DAY, zeros + 1)


def test_repeats_by_hand() -> None:
    history = a_history([1, 2, 1], [0, 1, 30])
    seen = Seen.of_one(torch.tensor([2, 3]), torch.tensor([30 * DAY, 30 * DAY]))
    columns, times, after = repeats(history, seen, Keyed(history.item, torch.tensor([[1, 0, 1], [1, 2, 0]]), 3))
    found = torch.from_numpy(columns)
    thirty, ever = HALF_LIVES_DAYS.index(30.0), HALF_LIVES_DAYS.index(math.inf)
    once, twice = (torch.tensor(10 * x, dtype=torch.double).log1p() / 3 for x in (0.5, 1.5))
    assert torch.allclose(found[0, 0, thirty], once)
    assert torch.equal(found[0, 0], found[0, 2])  # the same candidate twice
    assert torch.allclose(found[1, 0, thirty], twice)
    assert torch.allclose(found[1, 0, ever], torch.tensor(20.0).double().log1p() / 3)
    assert (found[0, 1] == 0).all()  # row 0 is no item
    assert times.tolist() == [[1, 0, 1], [2, 1, 0]]
    assert not after.any()  # nothing was asked
    since, gap, due = found[..., -3], found[..., -2], found[..., -1]
    assert torch.allclose(since[0, 0], torch.tensor(30.0).double().log1p() / 3)
    assert torch.allclose(gap[1, 0], torch.tensor(30.0).double().log1p() / 3)
    assert since[1, 0] == due[0, 0] == 0  # browsed just now; browsed once
    assert torch.allclose(due[1, 0], torch.tensor(1 / 31).double().log().clamp(min=-3))


def test_repeats_see_only_their_own_user() -> None:
    history = a_history([1, 1, 1, 2], [0, 1, 2, 3])
    seen = Seen(torch.tensor([0, 2]), torch.tensor([2, 4]), torch.tensor([4 * DAY, 4 * DAY]))
    found = repeats(history, seen, Keyed(history.item, torch.tensor([[1, 2], [1, 2]]), 3))[0]
    ever = HALF_LIVES_DAYS.index(math.inf)
    assert np.allclose(found[..., ever], np.log1p([[20.0, 0.0], [10.0, 10.0]]) / 3)


def test_counters_of_items_and_types_by_hand() -> None:
    """Items 1 and 2 are of one type; a search stands between; the second moment asks what item 1 was once found by."""
    history = History(*(torch.tensor(x) for x in ([1, 0, 2, 1], [7, 7, 0, 0], [0, DAY, DAY, 2 * DAY], [2, 1, 2, 2])))
    seen = Seen.of_one(torch.tensor([4, 4]), torch.tensor([2 * DAY, 2 * DAY]))
    items, asked = torch.tensor([[1, 3], [1, 3]]), torch.tensor([[0, 0], [7, 7]])
    types = torch.tensor([0, 5, 5, 0])
    by_type = Keyed(types[history.item], types[items], 6)
    found = counters(history, seen, Keyed(history.item, items, 4), by_type, asked)
    assert found.shape == (2, 2, COUNTERS)
    item, kind, rest = found.split([REPEATS, REPEATS, COUNTERS - 2 * REPEATS], 2)
    ever = HALF_LIVES_DAYS.index(math.inf)
    assert torch.allclose(item[0, 0, ever], torch.tensor(20.0).log1p() / 3)
    assert torch.allclose(kind[0, 0, ever], torch.tensor(30.0).log1p() / 3)
    assert torch.allclose(rest[0, 0], torch.tensor([2 / 3, 1.0, 2 / 3, 0.0]))
    assert torch.allclose(rest[1, 0, 3], torch.tensor(10.0).log1p() / 3)
    assert not found[:, 1].any()  # never met, of no known type: no kin of other such items


def test_context_is_bounded() -> None:
    history = a_history([1], [0])
    found = context(history, Seen(torch.tensor([0, 0]), torch.tensor([0, 1]), torch.tensor([0, 10**13])))
    assert found.shape == (2, 6)
    assert found.abs().max() < 10
    assert found[0, 4] == 0  # nothing before it
