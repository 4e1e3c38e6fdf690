"""Evaluation on users' later events: after t3, on which nothing is trained or counted.

Lists and modes: `model.train.lists`; figures and intervals: `model.train.rank`. Sampled metrics are called so: NDCG@10 of
1 + 99 in the mode `recommendation`; `search` ranks all items of the type. Log loss and calibration are those of impressions,
every method calibrated by one logistic fit on the impressions of [t2, t3), where there are any.
"""

import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features import reports
from model.compute import tune
from model.config import Config, Windows
from model.train import baselines, checkpoint, metrics
from model.train.dataset import load
from model.train.lists import Lists, later, shown
from model.train.rank import Scorer, figures, scored, sliced
from model.train.scoring import of_checkpoint, offset
from model.train.slices import slices

log = logging.getLogger(__name__)
Floats = NDArray[np.float64]
MODES = ("recommendation", "search")
FEWEST = 20
"""Clicks, and items shown and passed over, that rates are fitted to; with fewer they are those of training."""
RANKED = {"recommendation": "1 + 99 sampled", "search": "all of the type", "catalogue": "all"}


def queries_are(home: Path) -> str:
    """`constructed queries` where the data set says that its searches were made up; else `recorded queries`."""
    known = reports.load(home, "dataset") or {}
    return "constructed queries" if "search" in known.get("constructed", ()) else "recorded queries"


def evaluate(
    home: Path,
    *,
    checkpoints: dict[str, str],
    windows: Windows,
    config: Config | None = None,
    seed: int = 0,
    catalogue: int = 0,
    history: str | None = None,
) -> dict[str, Any]:
    """Compare methods on the same later events, of a version of history where one is named.

    checkpoints: folder by method, of models that learned from nothing after t3 (SeminarError); catalogue: targets that are
    ranked among all items on sale as well (`catalogue_ndcg10`).
    Returns {"methods": [a row for each method and mode], "calibration": {method: ...}, "candidates": {mode: hash},
    "logistic": {method: [scale, shift]}, "tuning": {"own_frequency": runs}}.
    """
    tune()
    config, begin = config or Config(), time.monotonic()
    for name, folder in checkpoints.items():
        checkpoint.learned_before(checkpoint.facts_of(Path(folder)), "t2", windows.t3, name, "t3")
    spec = next((checkpoint.spec_of(Path(folder)) for folder in checkpoints.values()), None)  # another's is refused
    dataset = load(home, windows.end, config.model, history, spec)
    most = config.train.eval_targets
    validation = [later(dataset, windows.t2, windows.t3, most, mode, seed) for mode in MODES]
    lists = [later(dataset, windows.t3, windows.end, most, mode, seed) for mode in MODES]
    whole = later(dataset, windows.t3, windows.end, catalogue, "catalogue", seed)
    before, after = (shown(home, dataset, *window, most) for window in ((windows.t2, windows.t3), (windows.t3, windows.end)))
    scorers: dict[str, Scorer] = {
        name: of_checkpoint(Path(folder), dataset, windows.t3) for name, folder in checkpoints.items()
    }
    scorers["popularity"] = baselines.popularity(dataset, windows.t3)
    scorers["own_frequency"], runs = baselines.tuned_frequency(dataset, validation, windows.t3)
    result: dict[str, Any] = {"methods": [], "calibration": {}, "logistic": {}, "tuning": {"own_frequency": runs}}
    queries = {"recommendation": "no query", "search": queries_are(home)}
    shifts = {name: offset(Path(folder)) for name, folder in checkpoints.items()}
    for name, score in scorers.items():
        probabilities = calibrated(score, before, after, shifts.get(name, 0.0))
        result["logistic"][name] = probabilities["logistic"]
        result["calibration"][name] = probabilities["calibration"]
        common = {"logloss": probabilities["logloss"], "impression_gauc": probabilities["gauc"]}
        for one in lists:
            found = scored(score, one)
            row = {"name": name, "mode": one.mode, **figures(found), **common}
            row |= {"ranked": RANKED[one.mode], "queries": queries[one.mode]}
            row["slices"] = sliced(found, slices(dataset, one, windows))
            if one.mode == "recommendation" and catalogue:
                row |= {f"catalogue_{key}": value for key, value in catalogue_figures(score, whole).items()}
            result["methods"].append(row)
            log.info("%s %s: GAUC %.4f NDCG@10 %.4f", name, one.mode, row["gauc"], row["ndcg10"])
    result["candidates"] = {one.mode: one.digest(dataset) for one in [*lists, whole, after] if len(one)}
    for one in lists:
        one.save(home, dataset)
    result["seconds"] = round(time.monotonic() - begin, 1)
    return result


def catalogue_figures(score: Scorer, lists: Lists) -> dict[str, Any]:
    """NDCG@10 among all items on sale, with its interval."""
    found = scored(score, lists)
    mean, low, high = metrics.interval(*found.ndcg()[1:])
    return {"ndcg10": mean, "ndcg10_lo": low, "ndcg10_hi": high, "n_targets": len(lists)}


def calibrated(score: Scorer, before: Lists, after: Lists, shift: float = 0.0) -> dict[str, Any]:
    """Fit the logistic on validation impressions; log loss, calibration and GAUC on test impressions.

    shift: what is added to log-odds where too little was clicked or passed over in validation to fit anything.
    """
    scale = 1.0
    if before.moments:
        fitted = scored(score, before)
        clicks = int((fitted.label > 0).sum())
        if min(clicks, len(fitted.label) - clicks) >= FEWEST:
            scale, shift = metrics.fit_logistic(fitted.score, fitted.label)
            if scale <= 0:  # rates would be in reverse of scores
                scale, shift = 1.0, metrics.fit_shift(fitted.score, fitted.label)
    if not after.moments:
        return {"logistic": [scale, shift], "calibration": None, "logloss": None, "gauc": None}
    judged = scored(score, after)
    probability = 1 / (1 + np.exp(-(scale * judged.score + shift)))
    _, values, weights = judged.gauc()
    return {
        "logistic": [scale, shift],
        "calibration": metrics.calibration(probability, judged.label),
        "logloss": metrics.log_loss(probability, judged.label),
        "gauc": float(np.average(values, weights=weights)) if len(values) else None,
    }
