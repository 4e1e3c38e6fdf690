"""Optimisers of a model with large tables: row-wise for the tables that a step touches sparsely, dense for the rest."""

from typing import Any

import torch
from torch import nn

SPARSE = (nn.Embedding,)


class Optimiser:
    """SparseAdam for sparse embedding tables, AdamW with a cosine schedule for everything else."""

    def __init__(self, module: nn.Module, lr: float, table_lr: float, decay: float, steps: int) -> None:
        tables = [m.weight for m in module.modules() if isinstance(m, nn.Embedding) and m.sparse]
        ids = {id(p) for p in tables}
        rest = [p for p in module.parameters() if id(p) not in ids]
        self._all = rest
        self._optimisers: list[torch.optim.Optimizer] = [
            torch.optim.SparseAdam(tables, lr=table_lr),
            torch.optim.AdamW(rest, lr=lr, weight_decay=decay),
        ]
        warm = max(1, steps // 20)

        def share(step: int) -> float:
            if step < warm:
                return (step + 1) / warm
            return 0.05 + 0.95 * 0.5 * (1 + torch.cos(torch.tensor(3.14159 * step / max(steps, 1))).item())

        self._schedules = [torch.optim.lr_scheduler.LambdaLR(o, share) for o in self._optimisers]
        self._parts: list[Any] = [*self._optimisers, *self._schedules]

    def state(self) -> list[Any]:
        """What `restore` takes."""
        return [x.state_dict() for x in self._parts]

    def restore(self, state: list[Any]) -> None:
        """Go on from a saved state."""
        for x, found in zip(self._parts, state, strict=True):
            x.load_state_dict(found)

    def step(self, loss: torch.Tensor) -> None:
        """One step down a loss; a loss that is not finite is an error, never silently skipped."""
        if not torch.isfinite(loss):
            raise FloatingPointError(f"loss is {loss.item()}")
        for optimiser in self._optimisers:
            optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self._all, 5.0)
        for optimiser in self._optimisers:
            optimiser.step()
        for schedule in self._schedules:
            schedule.step()
