"""Fine-tuning steps against the straightforward way: same model, data, examples and losses.

    python -m benchmarks.train --json

Reads the history of SEMINAR_HOME (as `make demo` leaves it): users with at least `--events` behaviours, of which the
newest `--events` exist for the model, and 8 targets a user and step. Ours shares a user's history among its targets, looks
up once what repeats, and attends through compiled kernels; the other way (`benchmarks/harness/padded.py`) gives each example
a padded copy of its history. A step is draw, forward, backward and optimiser. Processor time of one thread, medians of
interleaved rounds.
`peak_mb`: what a step of 1, 2 and 4 times the users adds to the process. `gauc_gap`: after an epoch of each way from the
same beginning, on later events.
"""

import argparse
import ctypes
import json
import os
import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.harness import padded
from features.errors import SeminarError
from features.settings import settings
from model.compute import tune
from model.config import Config, ModelConfig, TrainConfig, Windows
from model.nn.click import ClickModel
from model.train import ctr, psu
from model.train.batch import encode, gather
from model.train.dataset import Dataset, load, vocabulary
from model.train.examples import ClickExamples
from model.train.lists import later
from model.train.loop import fit
from model.train.moments import Moments
from model.train.optimise import Optimiser
from model.train.popularity import Popularity
from model.train.rank import quality
from model.train.scoring import of_model

TARGETS = 8
DATES = {"t1": "2017-09-11", "t2": "2017-10-30", "t3": "2017-11-13", "end": "2017-11-27"}
Loss = Callable[[ClickModel, list[Moments]], torch.Tensor]


class Bench:
    """The data, and both ways to a loss."""

    def __init__(self, home: Path, windows: Windows, events: int) -> None:
        # Log loss only, every id shown: what is drawn at random would differ between the ways.
        self.config = Config(
            ModelConfig(history=events), TrainConfig(listwise=0.0, ctr_id_dropout=0.0, dropout=0.0, targets=TARGETS, lr=1e-3)
        )
        self.home, self.windows = home, windows
        self.dataset: Dataset = load(home, windows.t2, self.config.model)
        self.rows = vocabulary(self.dataset, windows.t2, self.config.train)
        self.examples = ClickExamples(home, self.dataset, windows.t1, windows.t2, self.config.train.negatives)
        lengths = np.diff(self.dataset.histories.offsets)
        self.users = self.examples.users[lengths[self.examples.users] >= events]
        self.popularity = Popularity(self.dataset, windows.t2)
        if len(self.users) < 4:
            remedy = "import more, or give fewer --events"
            raise SeminarError("users", len(self.users), f"have {events} events and targets, 4 are needed", remedy)

    def model(self) -> ClickModel:
        """A new one, always the same."""
        torch.manual_seed(0)
        model = psu.spec_of(self.config, self.dataset, int(self.rows.max())).click()
        ctr.standardise(model, ctr.Task(self.dataset, self.rows, self.examples, self.popularity, self.config.train), 0)
        for weight in model.head.parameters():  # the last are zero at first: what attention found would not count
            torch.nn.init.normal_(weight, std=0.1)
        return model

    def ours(self, model: ClickModel, moments: list[Moments]) -> torch.Tensor:
        """The loss by `model.train`."""
        step = gather(self.dataset, moments, model.backbone.history)
        parts = encode(model.backbone, self.dataset, self.rows, step)
        scores = ctr.score(model, step, parts, self.rows, self.popularity)
        scores = scores + model.offset(step.source.unsqueeze(1).expand_as(scores), step.position)
        return torch.nn.functional.binary_cross_entropy_with_logits(scores[step.real], step.labels[step.real])

    def padded(self, model: ClickModel, moments: list[Moments]) -> torch.Tensor:
        """The loss by padded copies."""
        widest = max(m.items.shape[1] for m in moments)
        return padded.loss(model, self.dataset, self.rows, [m.widened(widest) for m in moments], self.popularity)

    def draw(self, seed: int, users: NDArray[np.int64]) -> list[Moments]:
        """The examples of a step, the same for both ways."""
        return self.examples.draw(np.random.default_rng(seed), users, TARGETS)


def run(home: Path, windows: Windows, events: int, users: int, rounds: int, epoch_users: int) -> dict[str, Any]:
    """Measure; users: of a step."""
    tune()
    torch.set_num_threads(1)
    bench = Bench(home, windows, events)
    ways: dict[str, Loss] = {"ours": bench.ours, "padded": bench.padded}
    models = {name: bench.model() for name in ways}
    optimisers = {name: Optimiser(model, 1e-3, 1e-3, 1e-4, rounds + 1) for name, model in models.items()}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    gaps, examples = [], []
    for number in range(rounds + 1):  # the first round warms up
        chosen = np.random.default_rng(number).choice(bench.users, min(users, len(bench.users)), replace=False)
        losses = {}
        for name, loss in ways.items():
            begin = time.thread_time()
            moments = bench.draw(number, chosen)
            found = loss(models[name], moments)
            optimisers[name].step(found)
            seconds[name].append(time.thread_time() - begin)
            losses[name] = found.item()
        gaps.append(abs(losses["ours"] - losses["padded"]))
        examples.append(sum(int(m.real.sum()) for m in moments))
    took = {name: np.array(values[1:]) for name, values in seconds.items()}
    count = float(np.median(examples[1:]))
    peaks = {name: {f"{n}x": _peak(bench, loss, n * users) for n in (1, 2, 4)} for name, loss in ways.items()}
    return {
        "speedup": round(float(np.median(took["padded"] / took["ours"])), 2),
        "examples_per_s": round(count / float(np.median(took["ours"]))),
        "baseline_examples_per_s": round(count / float(np.median(took["padded"]))),
        "loss_gap": float(np.max(gaps)),
        "peak_mb": peaks["ours"],
        "baseline_peak_mb": peaks["padded"],
        **_epoch(bench, ways, epoch_users),
        "events": events,
        "users_a_step": users,
        "targets_a_user": TARGETS,
        "candidates_a_step": count,
        "rounds": rounds,
        "threads": 1,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in ("torch", "numba", "numpy")}},
        "cores": os.cpu_count(),
    }


def _peak(bench: Bench, loss: Loss, users: int) -> float:
    """MB that a step's forward and backward add at most to the process."""
    model = bench.model()
    moments = bench.draw(0, np.resize(bench.users, users))
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # what was freed before is not to be used again
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew
    torch.autograd.backward(loss(model, moments))
    return round((_status("VmHWM") - before) / 1024, 1)


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def _epoch(bench: Bench, ways: dict[str, Loss], most: int) -> dict[str, Any]:
    """GAUC on later events after an epoch of each way over the same users."""
    users = bench.users[:most]
    data = load(bench.home, bench.windows.t3, bench.config.model)
    known = np.zeros(len(data.item_ids) + 1, np.int64)
    known[np.searchsorted(data.item_ids, bench.dataset.item_ids) + 1] = bench.rows[1:]
    lists = [later(data, bench.windows.t2, bench.windows.t3, 300, mode, 0) for mode in ("recommendation", "search")]
    found: dict[str, float] = {}
    for name, loss in ways.items():
        model = bench.model()

        def losses(
            rng: np.random.Generator, some: NDArray[np.int64], model: ClickModel = model, loss: Loss = loss
        ) -> dict[str, torch.Tensor]:
            return {"total": loss(model, bench.examples.draw(rng, some, TARGETS))}

        fit(model, users, bench.config.train, 1, bench.config.train.ctr_decay, 0, losses)
        score = of_model(model.eval(), data, known, bench.windows.t2)
        found[name] = quality(score, lists)["gauc"]
    gap = abs(found["ours"] - found["padded"])
    return {"gauc": round(found["ours"], 4), "baseline_gauc": round(found["padded"], 4), "gauc_gap": round(gap, 5)}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="seminar bench train", description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=1000)
    parser.add_argument("--users", type=int, default=2, help="of a step")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epoch-users", type=int, default=20)
    for name, date in DATES.items():
        parser.add_argument(f"--{name}", default=date)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    windows = Windows.from_dates({name: getattr(given, name) for name in DATES})
    found = run(settings().home, windows, given.events, given.users, given.rounds, given.epoch_users)
    if not given.json:
        print(f"{found['speedup']} times the speed of padded copies, losses {found['loss_gap']:.1e} apart")
    print(json.dumps(found))


if __name__ == "__main__":
    try:
        main()
    except SeminarError as error:
        raise SystemExit(f"seminar: {error}") from None
