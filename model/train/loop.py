"""The training loop that the PSU and the click model share: seeded steps, a saved state to go on from after a kill.

The users of an epoch and everything drawn in a step follow from (seed, epoch, step) alone, so a run that was killed and
started again goes on from its last saved state with the same data in the same order.
"""

import hashlib
import json
import logging
import os
import pickle
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from features.publish import sync
from model.config import TrainConfig
from model.train.dataset import Dataset
from model.train.optimise import Optimiser

log = logging.getLogger(__name__)
Ints = NDArray[np.int64]
Sums = dict[str, float]
Means = dict[str, list[float]]
Losses = Callable[[np.random.Generator, Ints], dict[str, Tensor]]
"""The losses by name of a step over users [u]; `total` is what is minimised."""
PROTOCOL = 8
"""Goes up when training changes, so that checkpoints and saved states of before are no longer what a run would make."""


@dataclass(frozen=True)
class Resume:
    """Where a run keeps its state, and how often (seconds) it is saved."""

    file: Path
    every: float = 30.0


def resume_file(home: Path, dataset: Dataset, facts: dict[str, Any]) -> Path:
    """The state of the run with these facts on these data; another configuration has another file.

    facts must tell everything that the result depends on: homes that share a cache may give two things one name.
    """
    state = hashlib.blake2b(json.dumps([PROTOCOL, facts], sort_keys=True, default=str).encode(), digest_size=12)
    state.update(dataset.histories.records.tobytes())
    return home / "cache" / "training" / f"{state.hexdigest()}.pt"


def fit(
    module: nn.Module,
    users: Ints,
    train: TrainConfig,
    epochs: int,
    decay: float,
    seed: int,
    losses: Losses,
    resume: Resume | None = None,
) -> Means:
    """Train for `epochs` over users [u], `train.users` of them a step, with this weight decay of what is not in tables;
    returns the mean of each loss by epoch.
    """
    steps = -(-len(users) // train.users)
    optimiser = Optimiser(module, train.lr, train.table_lr, decay, steps * epochs)
    first, sums, means = _load(resume, module, optimiser)
    saved = time.monotonic()
    for number in range(first, steps * epochs):
        epoch, step = divmod(number, steps)
        torch.manual_seed(int(np.random.SeedSequence((seed, epoch, step)).generate_state(1)[0]))
        order = np.random.default_rng((seed, epoch)).permutation(users)
        found = losses(np.random.default_rng((seed, epoch, step)), order[step * train.users : (step + 1) * train.users])
        optimiser.step(found["total"])
        for name, loss in found.items():
            sums[name] = sums.get(name, 0.0) + loss.item()
        if step == steps - 1:
            for name, value in sums.items():
                means.setdefault(name, []).append(round(value / steps, 4))
            sums = {}
            log.info("epoch %d of %d: %s", epoch + 1, epochs, {name: values[-1] for name, values in means.items()})
        if resume and time.monotonic() - saved >= resume.every:
            _save(resume, module, optimiser, number + 1, sums, means)
            saved = time.monotonic()
    return means


def finished(resume: Resume) -> None:
    """Drop the state of a run whose result is safe."""
    resume.file.unlink(missing_ok=True)


def _save(resume: Resume, module: nn.Module, optimiser: Optimiser, number: int, sums: Sums, means: Means) -> None:
    resume.file.parent.mkdir(parents=True, exist_ok=True)
    aside = resume.file.with_suffix(f".{os.getpid()}.tmp")
    state = {"module": module.state_dict(), "optimiser": optimiser.state(), "step": number, "sums": sums, "means": means}
    torch.save(state, aside)
    sync(aside)
    os.replace(aside, resume.file)


def goes_on(resume: Resume) -> bool:
    """Whether a run has a saved state; one that is torn is dropped, and the run starts anew."""
    return _read(resume) is not None


def _read(resume: Resume) -> dict[str, Any] | None:
    if not resume.file.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(resume.file, weights_only=True)
        return state
    except (RuntimeError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        log.warning("starts anew: the saved state %s is torn (%s)", resume.file, str(error).partition("\n")[0])
        finished(resume)
        return None


def _load(resume: Resume | None, module: nn.Module, optimiser: Optimiser) -> tuple[int, Sums, Means]:
    state = _read(resume) if resume else None
    if state is None:
        return 0, {}, {}
    module.load_state_dict(state["module"])
    optimiser.restore(state["optimiser"])
    log.info("goes on from step %d, saved by a run that was ended", state["step"])
    return state["step"], state["sums"], state["means"]
