"""Champion against challenger on the same later events, user by user.

Both checkpoints score the same lists of the challenger's test window; differences are of users, with the interval of a
paired bootstrap. Impressions, where there are any, are a second comparison.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from features.errors import SeminarError
from model.compute import tune
from model.config import Config, Windows
from model.train import metrics
from model.train.checkpoint import spec_of
from model.train.dataset import load
from model.train.lists import Lists, later, shown
from model.train.rank import Scorer, scored
from model.train.retention import checkpoint_of
from model.train.scoring import of_checkpoint

READ = ("token_rows", "attribute_rows", "image_width")
"""What of a model's shapes decides how contents are written for it."""


def duel(
    home: Path,
    *,
    challenger: str,
    champion: str,
    windows: Windows,
    config: Config | None = None,
    seed: int = 0,
    history: str | None = None,
) -> dict[str, Any]:
    """Compare two bundles by their checkpoints; every figure is challenger minus champion.

    Returns {"champion", "challenger", "windows", "gauc", "impressions"}: each comparison is {"challenger", "champion",
    "difference", "lo", "hi", "users"} or None where no user can be compared; and "reason" where nothing can.
    """
    tune()
    config = config or Config()
    result: dict[str, Any] = {"champion": champion, "challenger": challenger, "windows": asdict(windows)}
    result |= {"gauc": None, "impressions": None}
    mine, theirs = checkpoint_of(home, challenger), checkpoint_of(home, champion)
    if mine is None or theirs is None:
        return result | {"reason": f"the checkpoint of {champion if mine else challenger} is gone"}
    own_spec, other_spec = spec_of(mine), spec_of(theirs)
    dataset = load(home, windows.end, config.model, history, own_spec)
    # Rows of items and queries are the same for both; what stands for their words and attributes is each model's own.
    alike = all(getattr(own_spec, name) == getattr(other_spec, name) for name in READ)
    other = dataset if alike else load(home, windows.end, config.model, history, other_spec)
    most = config.train.eval_targets
    lists = later(dataset, windows.t3, windows.end, most, "recommendation", seed)
    impressions = shown(home, dataset, windows.t3, windows.end, most)
    own = of_checkpoint(mine, dataset, windows.t3)
    try:
        scorers = [own, of_checkpoint(theirs, other, windows.t3)]
    except SeminarError as error:  # from before the model changed
        return result | {"reason": f"{champion}: {error}"}
    return result | {"gauc": _paired(scorers, lists), "impressions": _paired(scorers, impressions)}


def _paired(scorers: list[Scorer], lists: Lists) -> dict[str, Any] | None:
    if not len(lists):
        return None
    (users, mine, weights), (_, theirs, _) = (scored(score, lists).gauc() for score in scorers)
    if not len(users):
        return None
    difference, lo, hi = metrics.interval(mine - theirs, weights)
    averages = (float(np.average(values, weights=weights)) for values in (mine, theirs))
    return dict(zip(("challenger", "champion"), averages, strict=True)) | {
        "difference": difference,
        "lo": lo,
        "hi": hi,
        "users": len(users),
    }
