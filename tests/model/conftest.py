"""A small trained system that tests of training and serving share."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from model.config import Config, Windows
from tests.dags import history as synthetic

CONFIG = Config.load(
    {
        "model": {"dim": 32, "heads": 2, "retrieved": 8, "recent": 8, "encoder": "hashing"},
        "train": {
            "psu_epochs": 1,
            "psu_targets": 8,
            "ctr_epochs": 2,
            "targets": 32,
            "eval_targets": 60,
            "lr": 0.01,
            "table_lr": 0.03,
        },
    }
)


@dataclass(frozen=True)
class Trained:
    """A home with a history, a PSU, codebooks, a checkpoint and an exported bundle."""

    home: Path
    windows: Windows
    config: Config
    psu: dict[str, Any]
    codebooks: dict[str, Any]
    tuned: dict[str, Any]
    metrics: dict[str, Any]
    bundle: str


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    """Train once for the session; tests that change the home copy what they need."""
    from features.history import ITEMS, QUERIES, read, read_sequences
    from features.online import Online
    from features.repository import apply
    from model.train.codebooks import build
    from model.train.ctr import finetune
    from model.train.evaluate import evaluate
    from model.train.export import export
    from model.train.psu import pretrain

    home = tmp_path_factory.mktemp("trained") / "var"
    home.mkdir()
    former = os.environ.get("SEMINAR_HOME")
    os.environ["SEMINAR_HOME"] = str(home)
    apply()
    synthetic.write(home, users=16, days=50)
    online, stored = Online(), read_sequences(home)
    online.append({user: stored.of(i) for i, user in enumerate(stored.user_ids)})
    online.write_items(read(home, ITEMS))
    online.write_queries(read(home, QUERIES))
    windows = Windows.from_dates(synthetic.WINDOWS)
    psu = pretrain(home, windows=windows, config=CONFIG)
    books = build(home, psu=psu["version"], windows=windows, config=CONFIG)
    tuned = finetune(home, windows=windows, psu=psu["version"], config=CONFIG)
    metrics = evaluate(home, checkpoints={"seminar": tuned["checkpoint"]}, windows=windows, config=CONFIG)
    exported = export(
        home,
        checkpoint_folder=tuned["checkpoint"],
        codebooks=books["version"],
        windows=windows,
        metrics=metrics,
        config=CONFIG,
    )
    yield Trained(home, windows, CONFIG, psu, books, tuned, metrics, exported["version"])
    if former is None:
        del os.environ["SEMINAR_HOME"]
    else:
        os.environ["SEMINAR_HOME"] = former


@pytest.fixture(params=["compiled", "portable"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways of the inner loops of attention and search; the compiled ones only where they were built."""
    from model.nn import attend
    from model.search import kernel

    for module in (attend, kernel):
        if request.param == "portable":
            monkeypatch.setattr(module, "library", lambda: None)
        elif module.library() is None:
            pytest.skip("attend.c or kernel.c was not built here")
    return str(request.param)
