"""Training runs that are made once: each in a folder named by a hash of all that it depends on, with a marker when done.

    <home>/suites/history, cache   links to the home's own: nothing is copied, and what is erased there is gone here
    <home>/suites/psu, checkpoints what `pretrain` and `finetune` write; the home's own PSU and its pointer stay as they are
    <home>/suites/runs/<hash>/done.json   the run, where its checkpoint is, what it scored on validation

A run that was killed has no marker and is made again; those before it are not.
"""

import hashlib
import json
import logging
import os
import uuid
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from features.publish import path, sync
from features.reports import plain
from model.config import Config, ModelConfig, Windows
from model.train.ctr import finetune
from model.train.dataset import Dataset, load
from model.train.examples import impressions
from model.train.loop import PROTOCOL
from model.train.psu import pretrain
from model.train.wide import Heads

log = logging.getLogger(__name__)
DONE = "done.json"


def workspace(home: Path) -> Path:
    """`<home>/suites`, a home that shares the history."""
    work = home / "suites"
    work.mkdir(parents=True, exist_ok=True)
    (home / "cache").mkdir(exist_ok=True)
    for name in ("history", "cache"):
        if not (work / name).is_symlink():
            (work / name).symlink_to(Path("..") / name)
    return work


def digest(home: Path, dataset: Dataset, until: int) -> str:
    """A hash of everything that training reads before a time, as of which the data set is: users, behaviours, items with
    their contents, queries, and impressions with their clicks."""
    state = hashlib.blake2b(digest_size=8)
    content = dataset.items
    arrays = (
        content.attributes,
        content.text,
        content.image,
        dataset.item_ids,
        dataset.listed,
        dataset.query_ids,
        dataset.histories.records,
    )
    for array in arrays:
        state.update(np.ascontiguousarray(array).tobytes())
    state.update("\0".join([*dataset.histories.user_ids, "", *dataset.query_texts]).encode())
    for user, lists in sorted(impressions(home, dataset, 0, until).items()):
        told = [(x.now, x.query, x.items.tobytes(), x.positions.tobytes(), x.clicks.tobytes()) for x in lists]
        state.update(repr((user, sorted(told))).encode())
    return state.hexdigest()


@dataclass(frozen=True)
class Run:
    """A training run and what decides its result. psu: the run whose PSU is restored; None: none (or this is one)."""

    kind: str  # psu or ctr
    data: str
    windows: Windows
    config: Config
    seed: int
    search: str = ""
    psu: "Run | None" = None

    def key(self) -> str:
        """The hash. What is judged on, after t2, is no part of it: newer events are met by what is already trained."""
        config = self.config.as_dict()
        del config["train"]["eval_targets"]
        told = [PROTOCOL, self.kind, self.data, self.windows.t1, self.windows.t2, config, self.seed, self.search]
        text = json.dumps([*told, self.psu and self.psu.key()], sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def done(work: Path, run: Run) -> dict[str, Any] | None:
    """The facts of a run that is done and whose checkpoint is there."""
    try:
        facts: dict[str, Any] = json.loads((work / "runs" / run.key() / DONE).read_text())
    except FileNotFoundError:
        return None
    return facts if (work / facts["checkpoint"]).exists() else None


def make(work: Path, run: Run, again: set[str] | None = None, heads: Heads | None = None) -> dict[str, Any]:
    """The facts of a run, made first where it is not done. `again`: keys of what was made anew, in place of the cache;
    heads: of runs on the same data and windows, those that `model.train.wide` learned.

    Returns {"checkpoint": folder below `work`, "losses", "seconds", "seed", "search"}.
    """
    key = run.key()
    found = done(work, run) if again is None or key in again else None
    if found is not None:
        return found
    if run.kind == "psu":
        dataset = _loaded(work, run.windows.t1, run.config.model, run.data)
        facts = pretrain(work, windows=run.windows, config=run.config, seed=run.seed, dataset=dataset)
        folder = path(work / "psu", facts["version"])
    else:
        version = Path(make(work, run.psu, again)["checkpoint"]).name if run.psu else None
        dataset = _loaded(work, run.windows.t2, run.config.model, run.data)
        told: dict[str, Any] = {"windows": run.windows, "config": run.config, "seed": run.seed, "dataset": dataset}
        facts = finetune(work, psu=version, search=run.search, heads=heads, **told)
        folder = Path(facts["checkpoint"])
    kept = {
        "kind": run.kind,
        "search": run.search,
        "seed": run.seed,
        "checkpoint": str(folder.relative_to(work)),
        "config": run.config.as_dict(),
        "losses": facts["losses"],
        "seconds": facts["seconds"],
    }
    note(work, run, kept)
    if again is not None:
        again.add(key)
    log.info("run %s: %s %s seed %d, %.0f s", key, run.kind, run.search, run.seed, facts["seconds"])
    return kept


def _loaded(work: Path, until: int, model: ModelConfig, data: str) -> Dataset:
    """The data set as of a time, kept for the next run; what models see of it is not the data set's."""
    read = ModelConfig(token_rows=model.token_rows, attribute_rows=model.attribute_rows, encoder=model.encoder)
    return _kept(work, until, read, data)


@lru_cache(maxsize=2)
def _kept(work: Path, until: int, model: ModelConfig, data: str) -> Dataset:
    return load(work, until, model)


def note(work: Path, run: Run, facts: dict[str, Any]) -> None:
    """Write the marker of a run, replacing a former one atomically."""
    folder = work / "runs" / run.key()
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder / f".{uuid.uuid4().hex}.tmp"
    aside.write_text(json.dumps(plain(facts), indent=1))
    sync(aside)
    os.replace(aside, folder / DONE)
