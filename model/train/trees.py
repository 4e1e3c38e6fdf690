"""Gradient-boosted trees over counters (LightGBM, the extra `baselines`): what a team has before it has a sequence model.

Trained on the fine-tuning window's own examples and negatives, as many as the wide head of a click model sees; chosen among
logged runs by validation, as every method is.
Letters: x candidates of all moments, f counters.
"""

import importlib.util
import logging
import time
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.errors import SeminarError
from features.history import read_items
from model.config import Config, Windows
from model.train.counters import NAMES, Counters
from model.train.dataset import Dataset, load
from model.train.examples import ClickExamples
from model.train.lists import Lists
from model.train.moments import Moments
from model.train.rank import Scorer, quality
from model.train.wide import drawn

log = logging.getLogger(__name__)
FIXED = {"deterministic": True, "force_row_wise": True, "verbose": -1, "min_data_in_leaf": 50}
RUNS: tuple[dict[str, Any], ...] = (
    {"objective": "binary", "num_leaves": 15, "learning_rate": 0.05, "trees": 200},
    {"objective": "binary", "num_leaves": 31, "learning_rate": 0.05, "trees": 400},
    {"objective": "binary", "num_leaves": 63, "learning_rate": 0.03, "trees": 400},
    {"objective": "binary", "num_leaves": 7, "learning_rate": 0.1, "trees": 200},
    {"objective": "lambdarank", "num_leaves": 15, "learning_rate": 0.05, "trees": 200},
    {"objective": "lambdarank", "num_leaves": 31, "learning_rate": 0.05, "trees": 400},
    {"objective": "lambdarank", "num_leaves": 63, "learning_rate": 0.03, "trees": 400},
    {"objective": "lambdarank", "num_leaves": 7, "learning_rate": 0.1, "trees": 200},
)


def installed() -> bool:
    """Whether LightGBM is."""
    return importlib.util.find_spec("lightgbm") is not None


def titles(home: Path, dataset: Dataset, until: int) -> list[str | None]:
    """The title of each item id [n]."""
    rows = read_items(home, until)
    known = dict(zip((x % (1 << 64) for x in rows["item"].to_pylist()), rows["title"].to_pylist(), strict=True))
    return [known.get(int(item)) for item in dataset.item_ids.tolist()]


def fit(
    home: Path,
    dataset: Dataset,
    validation: list[Lists],
    windows: Windows,
    config: Config,
    seed: int = 0,
    runs: tuple[dict[str, Any], ...] = RUNS,
) -> tuple[str, list[dict[str, Any]]]:
    """The trees (LightGBM's text) of the run that ranks validation lists best; and the runs.

    dataset: as of the end of the test window; training sees the one as of t2, and of it what was before each moment.
    """
    if not installed():
        raise SeminarError("extra", "lightgbm", "is not installed", "pip install 'seminar[baselines]'")
    import lightgbm

    begin = time.monotonic()
    x, y, groups = _examples(home, windows, config, seed)
    log.info("trees: %d candidates of %d moments, %.0f s", len(y), len(groups), time.monotonic() - begin)
    at_validation = Counters(dataset, titles(home, dataset, windows.end), windows.t2)
    prepared = {id(m): at_validation.of(m) for lists in validation for m in lists.moments}
    logged: list[dict[str, Any]] = []
    found: list[Any] = []
    for number, run in enumerate(runs):
        begin = time.monotonic()
        parameters = {**run, **FIXED, "seed": seed}
        count = parameters.pop("trees")
        data = lightgbm.Dataset(x, y, group=groups if run["objective"] == "lambdarank" else None, feature_name=list(NAMES))
        found.append(lightgbm.train(parameters, data, num_boost_round=count))
        ranked = quality(partial(_prepared, found[-1], prepared), validation)
        logged.append({"run": number, **run, **ranked, "seconds": round(time.monotonic() - begin, 1)})
        log.info("trees %s", logged[-1])
    best: str = found[int(np.argmax([row["quality"] for row in logged]))].model_to_string()
    return best, logged


def scorer(text: str, home: Path, dataset: Dataset, windows: Windows) -> Scorer:
    """Raw scores of trees, the population counted before t3."""
    import lightgbm

    trees, counters = lightgbm.Booster(model_str=text), Counters(dataset, titles(home, dataset, windows.end), windows.t3)
    return lambda moments: [_predict(trees, counters.of(m)) for m in moments]


def _prepared(trees: Any, counters: dict[int, NDArray[np.float32]], moments: list[Moments]) -> list[NDArray[np.float64]]:
    """A scorer of moments whose counters are known by their identity."""
    return [_predict(trees, counters[id(m)]) for m in moments]


def _predict(trees: Any, counters: NDArray[np.float32]) -> NDArray[np.float64]:
    """Raw scores [t, c] of counters [t, c, f]."""
    flat = counters.reshape(-1, counters.shape[-1])
    found: NDArray[np.float64] = trees.predict(flat, raw_score=True).reshape(counters.shape[:-1])
    return found


def _examples(
    home: Path, windows: Windows, config: Config, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """Counters [x, f], labels [x] and the number of candidates of each moment of the fine-tuning window."""
    dataset = load(home, windows.t2, config.model)
    examples = ClickExamples(home, dataset, windows.t1, windows.t2, config.train.negatives)
    counters = Counters(dataset, titles(home, dataset, windows.t2), windows.t2)
    rng = np.random.default_rng(seed)
    x, y, groups = [], [], []
    for m in chain.from_iterable(drawn(rng, examples, config.train.users)):
        x.append(counters.of(m)[m.real])
        y.append(m.labels[m.real])
        groups.append(m.real.sum(1))
    return np.concatenate(x), np.concatenate(y), np.concatenate(groups)
