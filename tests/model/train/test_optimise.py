import copy

import pytest
import torch
from torch import nn

from model.train.optimise import Optimiser


def steps(optimiser: Optimiser, module: nn.Embedding, first: int, last: int) -> None:
    for number in range(first, last):
        rows = torch.randint(0, 20, (30,), generator=torch.Generator().manual_seed(number))  # some of them twice
        optimiser.step((module(rows) * torch.arange(4.0)).square().sum() + module(rows[:3]).sum())


def test_rows_move_as_torchs_sparse_adam_moves_them() -> None:
    module = nn.Embedding(25, 4, sparse=True)
    other, before = copy.deepcopy(module), module.weight.detach().clone()
    optimiser = Optimiser(nn.ModuleList([module, nn.Linear(1, 1)]), 1e-2, 1e-2, 0.0, 20)
    theirs = torch.optim.SparseAdam(other.parameters(), lr=1e-2)
    for number in range(20):
        steps(optimiser, module, number, number + 1)
        rows = torch.randint(0, 20, (30,), generator=torch.Generator().manual_seed(number))
        theirs.param_groups[0]["lr"] = 1e-2 * optimiser._share(number)
        theirs.zero_grad()
        ((other(rows) * torch.arange(4.0)).square().sum() + other(rows[:3]).sum()).backward()
        theirs.step()
    assert torch.allclose(module.weight, other.weight, atol=1e-5)
    assert torch.equal(module.weight[20:], before[20:])  # nobody looked these up
    assert not torch.allclose(module.weight[:20], before[:20], atol=1e-2)


def test_a_saved_state_goes_on_alike() -> None:
    made = []
    for cut in (10, 4):
        module = nn.Embedding.from_pretrained(torch.ones(25, 4), freeze=False, sparse=True)
        whole = nn.ModuleList([module, nn.Linear(1, 1)])
        optimiser = Optimiser(whole, 1e-2, 1e-2, 0.0, 10)
        steps(optimiser, module, 0, cut)
        state = copy.deepcopy(optimiser.state())
        optimiser = Optimiser(whole, 1e-2, 1e-2, 0.0, 10)
        optimiser.restore(state)
        steps(optimiser, module, cut, 10)
        made.append(module.weight.detach().clone())
    assert torch.equal(*made)


def test_a_loss_that_is_not_finite_is_an_error() -> None:
    module = nn.Embedding(25, 4, sparse=True)
    optimiser = Optimiser(nn.ModuleList([module, nn.Linear(1, 1)]), 1e-2, 1e-2, 0.0, 10)
    with pytest.raises(FloatingPointError, match="inf"):
        optimiser.step(module(torch.tensor([1])).sum() * torch.inf)
