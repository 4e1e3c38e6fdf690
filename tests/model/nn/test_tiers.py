"""Tiers against their plain definition; serving's against training's."""

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from model.nn import tiers as module
from model.nn.inputs import History, Parts, Seen
from model.nn.tiers import BINS, DAYS, TIERS, compared, tiers, tiers_of_moment, unit
from model.search.keys import Column

DAY = 86_400_000
ROUNDING = 1e-4
"""Of a feature of 60 behaviours. Products of other shapes are added up in another order: cosines differ by some 1e-7, and a
bin is .1 wide, so each behaviour moves up to 1e-6 of a count. One count more is .003 or more of a feature."""


def a_history(items: list[int], days: list[int]) -> History:
    zeros = torch.zeros(len(items), dtype=torch.long)
    return History(torch.tensor(items, dtype=torch.long), zeros, torch.tensor(days, dtype=torch.long) * DAY, zeros + 2)


def of(parts: torch.Tensor) -> list[np.ndarray]:
    """What tiers compare: these item parts."""
    return compared(["item"], Parts(parts, parts[:0]))


def counts(features: torch.Tensor) -> torch.Tensor:
    """Counts [..., rings, bins] of what features stand for: of the last 14 and 60 days, and of all."""
    return (features * 5).expm1().view(*features.shape[:-1], len(DAYS) + 1, BINS)


def test_by_hand() -> None:
    """Item 2 lies at 60 degrees to item 1, item 3 opposite to it; item 0 is none."""
    parts = torch.tensor([[5.0, 5.0], [2.0, 0.0], [0.5, 0.5 * math.sqrt(3)], [-1.0, 0.0]])
    history = a_history([1, 2, 0, 1, 3], [0, 50, 60, 95, 96])
    seen = Seen.of_one(torch.tensor([5, 3]), torch.tensor([100, 100]) * DAY)
    found = counts(tiers(torch.tensor([[1], [1]]), of(parts), history, seen))
    late, early = found[0, 0], found[1, 0]
    assert late[:, -1].tolist() == pytest.approx([1, 1, 2], abs=1e-4)  # the very item, on days 0 and 95
    assert late[:, 5].tolist() == pytest.approx([0, 1, 1], abs=1e-4)  # cosine .5, on day 50
    assert late[:, 0].tolist() == pytest.approx([1, 1, 1], abs=1e-4)  # the opposite, on day 96
    assert late.sum(1).tolist() == pytest.approx([2, 3, 4], abs=1e-4)  # the search counts nowhere
    assert early[:, -1].tolist() == pytest.approx([0, 0, 1], abs=1e-4)  # what came later does not exist


def test_a_cosine_between_two_bins_is_shared_by_them() -> None:
    angle = math.acos(0.73)
    parts = torch.tensor([[0.0, 0.0], [1.0, 0.0], [math.cos(angle), math.sin(angle)]])
    seen = Seen.of_one(torch.tensor([1]), torch.tensor([DAY]))
    found = counts(tiers(torch.tensor([[1]]), of(parts), a_history([2], [0]), seen))[0, 0, -1]
    assert found[[7, 8]].tolist() == pytest.approx([0.7, 0.3], abs=1e-4)
    assert found.sum().item() == pytest.approx(1, abs=1e-4)


def test_only_the_newest_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NEWEST", 2)
    parts = torch.eye(4)[:, :3] + torch.tensor([[0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 1.0]])
    history, seen = a_history([1, 1, 2], [0, 1, 2]), Seen.of_one(torch.tensor([3]), torch.tensor([3 * DAY]))
    assert counts(tiers(torch.tensor([[1]]), of(parts), history, seen))[0, 0, -1, -1].item() == pytest.approx(1, abs=1e-4)


def plainly(wanted: np.ndarray, browsed: np.ndarray, ages: np.ndarray) -> np.ndarray:
    """Features [33] of one candidate's part [d], by loops over what was browsed [m, d] and its ages in ms [m]."""
    out = np.zeros((len(DAYS) + 1, BINS))
    for part, age in zip(browsed, ages, strict=True):
        length = np.linalg.norm(wanted) * np.linalg.norm(part)
        at = min(max(wanted @ part / length if length > 1e-6 else 0.0, 0.0), 1.0) * (BINS - 1)
        below = min(int(at), BINS - 2)
        for ring, days in enumerate((*DAYS, math.inf)):
            if age <= days * DAY:
                out[ring, below] += 1 - (at - below)
                out[ring, below + 1] += at - below
    return np.log1p(out).ravel() / 5


def test_modalities_are_compared_by_themselves() -> None:
    """Items 1 and 2 are one by attribute and nothing alike by id; of item 3 no attribute is known."""
    modalities = torch.zeros(3, 4, 2)
    modalities[:, 0] = torch.tensor([[3.0, 0], [0, 2], [1, 0]])
    modalities[:2, 1] = torch.tensor([[0.0, 5], [0, 1]])
    parts = Parts(torch.zeros(4, 2), torch.zeros(1, 2), modalities=modalities)
    seen = Seen.of_one(torch.tensor([2]), torch.tensor([DAY]))
    found = tiers(torch.tensor([[1, 3]]), compared(["id", "attribute"], parts), a_history([1, 2], [0, 0]), seen)
    by_id, by_attribute = (counts(side)[0, :, -1] for side in found.split(TIERS, -1))
    assert by_id[0, [0, -1]].tolist() == pytest.approx([1, 1], abs=1e-4)
    assert by_attribute[0, [0, -1]].tolist() == pytest.approx([0, 2], abs=1e-4)
    assert by_id[1, [0, -1]].tolist() == pytest.approx([1, 1], abs=1e-4)
    assert by_attribute[1, [0, -1]].tolist() == pytest.approx([2, 0], abs=1e-4)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 60), st.integers(1, 4))
@example(51, 51, 2)  # a bin that one way holds nothing and the other 5e-6 of a count
def test_as_plainly_defined_for_users_side_by_side_and_in_serving(seed: int, length: int, moments: int) -> None:
    rng = np.random.default_rng(seed)
    sides = rng.standard_normal((2, 12, 8)).astype(np.float32) + 1
    sides[:, 3] = 0  # nothing is known of it
    other = int(rng.integers(0, 5))  # behaviours of the user before
    item = rng.integers(0, 12, other + length)
    time = np.concatenate([np.sort(rng.integers(0, 200 * DAY, n)) for n in (other, length)])
    history = History(*(torch.from_numpy(x) for x in (item, item * 0, time, item * 0)))
    prefix = rng.integers(0, length + 1, moments)
    now = np.array([int(time[other + n - 1] if n else 0) + int(rng.integers(0, 90 * DAY)) for n in prefix])
    first = Seen(torch.zeros(1, dtype=torch.long), torch.tensor([other]), torch.tensor([200 * DAY]))
    own = Seen(torch.full((moments,), other), torch.from_numpy(other + prefix), torch.from_numpy(now))
    seen = Seen(*(torch.cat(pair) for pair in zip(first, own, strict=True)))
    wanted = rng.integers(1, 12, (1 + moments, 3))
    alike = [unit(side) for side in sides]
    found = tiers(torch.from_numpy(wanted), alike, history, seen).numpy()
    assert found.shape == (1 + moments, 3, 2 * TIERS)
    tables = [Column(side[:9], side[9:]) for side in alike]  # some items came after the bundle
    for m in range(moments):
        here = slice(other, other + int(prefix[m]))
        rows, times = item[here][item[here] > 0], time[here][item[here] > 0]
        ages = now[m] - times
        expected = [[plainly(side[row], side[rows], ages) for side in sides] for row in wanted[1 + m]]
        assert found[1 + m] == pytest.approx(np.reshape(expected, (3, -1)), abs=ROUNDING)
        asked = wanted[1 + m].astype(np.int32)
        served = tiers_of_moment(asked, tables, item[here].astype(np.int32), time[here], int(now[m]))
        assert served == pytest.approx(found[1 + m], abs=ROUNDING)
