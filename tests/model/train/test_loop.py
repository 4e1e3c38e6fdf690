"""Training that is killed goes on from its last saved state and ends as if it had never been."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from model.config import Config
from model.train import checkpoint
from model.train.loop import Resume, fit, goes_on
from tests.model.conftest import Trained

RUN = """
import json
import sys
from pathlib import Path
from model.config import Config, Windows
from model.train import ctr
real = ctr.Resume
ctr.Resume = lambda file: real(file, every=0.0)
told = json.loads(sys.argv[1])
print(json.dumps(ctr.finetune(Path(told["home"]), windows=Windows(**told["windows"]), psu=told["psu"],
      config=Config.load(told["config"]), seed=7)), flush=True)
"""


class Line(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(8, 2, sparse=True)
        self.out = nn.Linear(2, 1)


def test_a_saved_state_is_gone_on_from(tmp_path: Path) -> None:
    train = Config.load({"train": {"users": 2}}).train
    users, seen = np.arange(8), list[tuple[int, ...]]()

    def run(stop_after: int | None, resume: Resume | None) -> tuple[dict[str, list[float]], nn.Module]:
        torch.manual_seed(0)
        module, steps = Line(), 0

        def losses(rng: np.random.Generator, some: np.ndarray) -> dict[str, torch.Tensor]:
            nonlocal steps
            steps += 1
            if stop_after is not None and steps > stop_after:
                raise KeyboardInterrupt
            seen.append(tuple(some.tolist()))
            noise = torch.from_numpy(rng.normal(size=(len(some), 1)).astype(np.float32))
            return {"total": ((module.out(module.table(torch.from_numpy(some))) - noise) ** 2).mean()}

        return fit(module, users, train, 3, train.decay, 5, losses, resume), module

    whole, expected = run(None, None)
    order, resume = list(seen), Resume(tmp_path / "state.pt", every=0.0)
    seen.clear()
    for stop in (2, 5):
        try:
            run(stop, resume)
        except KeyboardInterrupt:
            continue
        raise AssertionError("the run should have been stopped")
    again, module = run(None, resume)
    assert seen == order
    assert again == whole
    for mine, theirs in zip(module.parameters(), expected.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_a_torn_state_is_dropped_and_the_run_starts_anew(tmp_path: Path) -> None:
    torch.save({"step": 3, "module": torch.zeros(100)}, file := tmp_path / "state.pt")
    file.write_bytes(file.read_bytes()[:-40])
    assert not goes_on(Resume(file))
    assert not file.exists()
    file.write_bytes(b"")
    losses = {"total": torch.zeros((), requires_grad=True)}
    found = fit(Line(), np.arange(2), Config().train, 1, 0.0, 0, lambda *_: losses, Resume(file))
    assert found == {"total": [0.0]}


def test_fine_tuning_outlives_kill_9(trained: Trained, tmp_path: Path) -> None:
    home = tmp_path / "var"
    shutil.copytree(trained.home, home)
    config = trained.config.as_dict()
    config["train"]["ctr_epochs"] = 6
    told = {
        "home": str(home),
        "windows": {name: getattr(trained.windows, name) for name in ("t1", "t2", "t3", "end")},
        "psu": trained.psu["version"],
        "config": config,
    }
    command = [sys.executable, "-c", RUN, json.dumps(told)]
    whole = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    states = home / "cache" / "training"
    assert not list(states.glob("*.pt"))  # a finished run leaves no state behind
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(states.glob("*.pt")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    kept = torch.load(next(states.glob("*.pt")), weights_only=True)["step"]
    assert kept > 0
    resumed = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    assert resumed["losses"] == whole["losses"]
    pair = [checkpoint.read(Path(found["checkpoint"])).weights for found in (whole, resumed)]
    assert all(torch.equal(pair[0][name], pair[1][name]) for name in pair[0])
