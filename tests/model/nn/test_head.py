import numpy as np
import pytest
import torch

from model.nn.click import ClickModel, Evidence
from model.nn.features import CONTEXT, COUNTERS, POPULARITY
from model.nn.folded import Attended
from model.nn.head import Head
from model.nn.inputs import Interest
from model.nn.spec import Spec
from model.nn.tiers import TIERS

WIDTH, HEADS = 16, 4


def a_model(seed: int, tiers: str) -> ClickModel:
    """A model both of whose heads have something to say."""
    rng = torch.manual_seed(seed)
    model = Spec(WIDTH, HEADS, 10, 5, "topk", 10, 10, 10, 8, 0, tiers=tiers).click().eval()
    with torch.no_grad():
        model.head[-1].weight.normal_(generator=rng).mul_(0.1)
        model.mean.normal_(generator=rng)
        model.spread.uniform_(0.5, 2, generator=rng)
    return model


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("count", [1, 37])
@pytest.mark.parametrize("asked", [False, True])
@pytest.mark.parametrize("tiers", ["", "item", "item,id,attribute"])
def test_the_head_says_what_the_model_says(seed: int, count: int, asked: bool, tiers: str) -> None:
    model, rng = a_model(seed, tiers), np.random.default_rng(seed)
    item, long, recent = rng.standard_normal((3, count, WIDTH), np.float32)
    query = rng.standard_normal((1, WIDTH), np.float32) * asked
    masses = 5 * rng.standard_normal((2, count, HEADS), np.float32)  # some are clipped
    plain = [rng.standard_normal((n, p), np.float32) for n, p in ((count, COUNTERS), (count, POPULARITY), (1, CONTEXT))]
    bias, nothing = rng.standard_normal(count, np.float32), np.empty((count, 0, HEADS), np.float32)
    attended = Attended(long, masses[0], nothing), Attended(recent, masses[1], nothing)
    item[0] = 0  # the norm of nothing
    alike = rng.standard_normal((count, TIERS * len(tiers.split(",")) * bool(tiers)), np.float32)
    found = Head(model)(*attended, item, query, alike, asked, *plain, bias)
    interests = [Interest(*(torch.from_numpy(x)[None] for x in some)) for some in attended]
    given = [torch.from_numpy(x)[None] for x in (item, np.repeat(query, count, 0))]
    expected = []
    for shown in (0, 1):
        same = np.broadcast_to(np.append(plain[2], np.float32([asked, shown])), (count, CONTEXT + 2))
        told = [torch.from_numpy(x)[None] for x in (np.concatenate([*plain[:2], same], 1), alike)]
        everything = Evidence(*interests, *given, *told)
        with torch.no_grad():
            expected.append(model.combine(everything, torch.from_numpy(bias)[None])[0].numpy())
    assert found == pytest.approx(np.stack(expected), rel=1e-6, abs=1e-6)
    assert np.abs(found[1] - found[0]).max() > 1e-4  # far from rounding


@pytest.mark.parametrize("counters", [True, False])
def test_without_counters_whatever_they_are_is_not_read(counters: bool) -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    model = Spec(WIDTH, HEADS, 10, 5, "topk", 10, 10, 10, 8, 0, counters=counters).click().eval()
    model.standardise(torch.randn(50, len(model.mean)))
    item, masses = rng.standard_normal((3, WIDTH), np.float32), rng.standard_normal((3, HEADS), np.float32)
    attended = Attended(item, masses, np.empty((3, 0, HEADS), np.float32))
    rest = [rng.standard_normal((n, p), np.float32) for n, p in ((3, POPULARITY), (1, CONTEXT))]

    def said(counted: np.ndarray, popularity: np.ndarray) -> np.ndarray:
        return Head(model)(attended, attended, item, item[:1], item[:, :0], True, counted, popularity, rest[1], item[:, 0])

    first, second = rng.standard_normal((2, 3, COUNTERS), np.float32)
    assert np.array_equal(said(first, rest[0]), said(second, rest[0])) != counters
    assert not np.array_equal(said(first, rest[0]), said(first, rest[0] + 1))
