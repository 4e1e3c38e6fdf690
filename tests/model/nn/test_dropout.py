import pytest
import torch

from model.nn.dropout import Dropout


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_a_share_is_dropped_and_sums_stay(share: float) -> None:
    x = torch.ones(400, 500, requires_grad=True)
    torch.manual_seed(3)
    found = Dropout(share)(x)
    assert (found == 0).float().mean().item() == pytest.approx(share, abs=0.01)
    assert found.mean().item() == pytest.approx(1, abs=0.02)
    kept = found[found > 0]
    assert (kept == kept[0]).all()
    torch.autograd.backward(found.sum())
    assert x.grad is not None
    assert torch.equal(x.grad, found.detach())


def test_torchs_seed_decides_what_is_dropped() -> None:
    x, drop = torch.ones(40, 50), Dropout(0.5)
    torch.manual_seed(3)
    first, second = drop(x), drop(x)
    torch.manual_seed(3)
    assert torch.equal(drop(x), first)
    assert not torch.equal(first, second)


def test_nothing_is_dropped_when_it_serves_or_has_no_share() -> None:
    x = torch.randn(4, 5)
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0)(x) is x
