"""Optimisers of a model with large tables: row-wise for the tables that a step touches sparsely, dense for the rest.

Letters: r rows of a table, n rows that a step looked up (some of them more than once), d width.
"""

import math
from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model.nn import kernels

BETAS, EPS = (0.9, 0.999), 1e-8


class RowAdam:
    """Adam (arXiv 1412.6980) of the rows that a step touched, in one pass; its epsilon as in the paper's first form."""

    def __init__(self, tables: list[Tensor], lr: float) -> None:
        self._tables, self._lr, self._steps = tables, lr, 0
        self._moments = [(torch.zeros_like(table), torch.zeros_like(table)) for table in tables]

    def step(self, share: float) -> None:
        """Follow the tables' gradients, with this share of the learning rate."""
        self._steps += 1
        first, second = (1 - beta**self._steps for beta in BETAS)
        for table, moments in zip(self._tables, self._moments, strict=True):
            if table.grad is None:
                continue
            rows, values = _array(table.grad._indices()[0]), _array(table.grad._values())
            distinct, place = kernels.distinct(rows)
            _follow(
                *(_array(x) for x in (table, *moments)),
                *(values, distinct, place, np.float32(share * self._lr * math.sqrt(second) / first)),
                np.float32(EPS * math.sqrt(second)),
            )
            table.grad = None

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` takes."""
        return {"steps": self._steps, "moments": self._moments}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self._steps = state["steps"]
        for mine, saved in zip(self._moments, state["moments"], strict=True):
            for to, value in zip(mine, saved, strict=True):
                to.copy_(value)


class Optimiser:
    """`RowAdam` for sparse embedding tables, AdamW for everything else, both with a cosine schedule."""

    def __init__(self, module: nn.Module, lr: float, table_lr: float, decay: float, steps: int) -> None:
        tables = [m.weight for m in module.modules() if isinstance(m, nn.Embedding) and m.sparse]
        ids = {id(p) for p in tables}
        self._rest = [p for p in module.parameters() if id(p) not in ids]
        self._tables = RowAdam(tables, table_lr)
        self._dense = torch.optim.AdamW(self._rest, lr=lr, weight_decay=decay)
        warm = max(1, steps // 20)

        def share(step: int) -> float:
            if step < warm:
                return (step + 1) / warm
            return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / max(steps, 1)))

        self._schedule = torch.optim.lr_scheduler.LambdaLR(self._dense, share)
        self._share = share
        self._parts: list[Any] = [self._tables, self._dense, self._schedule]

    def state(self) -> list[Any]:
        """What `restore` takes."""
        return [x.state_dict() for x in self._parts]

    def restore(self, state: list[Any]) -> None:
        """Go on from a saved state."""
        for x, found in zip(self._parts, state, strict=True):
            x.load_state_dict(found)

    def step(self, loss: Tensor) -> None:
        """One step down a loss; a loss that is not finite is an error, never silently skipped."""
        if not torch.isfinite(loss):
            raise FloatingPointError(f"loss is {loss.item()}")
        self._dense.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self._rest, 5.0)
        self._tables.step(self._share(self._schedule.last_epoch))
        self._dense.step()
        self._schedule.step()


def _array(x: Tensor) -> NDArray[Any]:
    return x.detach().numpy()


@numba.njit(cache=True, nogil=True, fastmath={"contract"}, error_model="numpy")
def _follow(table: Any, mean: Any, square: Any, values: Any, distinct: Any, place: Any, rate: Any, eps: Any) -> None:
    """Add up the gradients values [n, d] of each distinct row, and update table, mean and square [r, d] there."""
    d = table.shape[1]
    sums = np.zeros((len(distinct), d), np.float32)
    for e in range(len(place)):
        for x in range(d):
            sums[place[e], x] += values[e, x]
    first, second = np.float32(BETAS[0]), np.float32(BETAS[1])
    for j in range(len(distinct)):
        row = distinct[j]
        for x in range(d):
            g = sums[j, x]
            mean[row, x] = first * mean[row, x] + (1 - first) * g
            square[row, x] = second * square[row, x] + (1 - second) * g * g
            table[row, x] -= rate * mean[row, x] / (np.sqrt(square[row, x]) + eps)
