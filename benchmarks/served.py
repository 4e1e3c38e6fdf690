"""What approximate search costs in ranking, end to end: the promoted bundle as it is served, beside exact search.

    python -m benchmarks.served --json [--targets 500] [--length 10000]

SEMINAR_HOME needs a promoted bundle. Lists of later targets (after the bundle's last window) are scored by the scorer's own
code, once through each search. Users as they are, and users put together: the pasts of other users are added to a target's
own until it has `length` behaviours at least, interleaved by time; GAUC is still by user. Differences are of each method
minus exact search, user by user, with 95 % intervals. same10: share of lists with the same ten best; ms: median processor
time of a list. GAUC compares searches only: an exported bundle knows how popular items were in those weeks, too, which
no method that is evaluated may.
"""

import argparse
import json
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from features.online import Online
from features.publish import current, path
from features.record import Records
from features.settings import settings
from model import bundle
from model.compute import tune
from model.config import ModelConfig, Windows
from model.serve.entities import Entities
from model.serve.scoring import Scoring
from model.serve.store import Store
from model.train.dataset import Dataset, load
from model.train.evaluate import MODES
from model.train.lists import Lists, later
from model.train.moments import Moments
from model.train.rank import Means, Scored, scored

METHODS = ("exact", "auto", "cells", "pq")
Past = Callable[[Moments, int], Records]
Floats = NDArray[np.float64]


def own(dataset: Dataset) -> Past:
    """The user's own past."""
    histories = dataset.histories

    def past(m: Moments, at: int) -> Records:
        begin = histories.offsets[m.user]
        return histories.records[begin : begin + m.prefix[at]]

    return past


def put_together(dataset: Dataset, length: int) -> Past:
    """The user's past and those of the users after it, until there are `length` behaviours."""
    histories, plain = dataset.histories, own(dataset)
    count = len(histories.user_ids)

    def past(m: Moments, at: int) -> Records:
        found, user = [plain(m, at)], m.user
        while sum(map(len, found)) < length and (user := (user + 1) % count) != m.user:
            other = histories.of(user)
            found.append(other[: np.searchsorted(other["time"], m.now[at])])
        whole = np.concatenate(found)
        return whole[np.argsort(whole["time"], kind="stable")]

    return past


class Served:
    """The bundle's scoring with one search over pasts, as a method that is evaluated."""

    def __init__(self, scoring: Scoring, dataset: Dataset, past: Past, method: str) -> None:
        self._scoring, self._dataset, self._past, self._method = scoring, dataset, past, method
        self.lengths: list[int] = []
        self.seconds: list[float] = []

    def __call__(self, moments: list[Moments]) -> list[Floats]:
        """Scores [t, c] of moments; padding has 0."""
        return [np.stack([self._one(m, at) for at in range(len(m.prefix))]) for m in moments]

    def _one(self, m: Moments, at: int) -> Floats:
        data, real, records = self._dataset, m.real[at], self._past(m, at)
        asked = int(m.queries[at, 0])
        query = data.query_texts[asked - 1] if asked else None
        begin = time.thread_time()
        found = self._scoring(records, data.item_ids[m.items[at][real] - 1], query, int(m.now[at]), self._method)
        self.seconds.append(time.thread_time() - begin)
        self.lengths.append(len(records))
        out = np.zeros(len(real))
        out[real] = np.where(found.known, found.scores, -100.0)
        return out


def compare(scoring: Scoring, dataset: Dataset, lists: Lists, past: Past) -> list[dict[str, Any]]:
    """A row for each search."""
    rows: list[dict[str, Any]] = []
    exact: tuple[Scored, Means, Means] | None = None
    for method in METHODS:
        served = Served(scoring, dataset, past, method)
        found = scored(served, lists)
        gauc, ndcg = Means.over([found.gauc()]), Means.over([found.ndcg()])
        exact = exact or (found, gauc, ndcg)
        row = {"method": method, "gauc": gauc.interval()[0], "ndcg10": ndcg.interval()[0]}
        for name, mine, theirs in (("gauc", gauc, exact[1]), ("ndcg10", ndcg, exact[2])):
            row[f"diff_{name}"], row[f"diff_{name}_lo"], row[f"diff_{name}_hi"] = mine.minus(theirs)
        row["max_score_difference"] = float(np.abs(found.score - exact[0].score).max())
        row["same10"] = same(found, exact[0])
        rows.append({k: round(v, 5) if isinstance(v, float) else v for k, v in row.items()})
        rows[-1] |= {"ms": round(1000 * float(np.median(served.seconds)), 2), "events": int(np.median(served.lengths))}
    return rows


def same(one: Scored, other: Scored) -> float:
    """Share of lists whose ten best are the same set."""
    ends = np.cumsum(one.length)
    pairs = zip(np.split(one.score, ends[:-1]), np.split(other.score, ends[:-1]), strict=True)
    return float(np.mean([set(np.argsort(-a)[:10].tolist()) == set(np.argsort(-b)[:10].tolist()) for a, b in pairs]))


def run(targets: int, length: int) -> dict[str, Any]:
    """All cases."""
    tune()
    torch.set_num_threads(1)
    home = settings().home
    name = current(home / "bundles")
    if name is None:
        raise SystemExit(f"served: {home} has no promoted bundle; run `make demo` first")
    loaded = bundle.load(path(home / "bundles", name))
    windows = Windows.from_dates(loaded.manifest["windows"])
    dataset = load(home, windows.end, ModelConfig(encoder=loaded.manifest["encoder"]))
    scoring = Scoring(loaded, Entities(loaded, Store(Online(), patience=30.0)))
    cases = []
    for mode in MODES:
        lists = later(dataset, windows.t3, windows.end, targets, mode, 0)
        for users, past in (("as they are", own(dataset)), ("put together", put_together(dataset, length))):
            facts = {"users": users, "mode": mode, "lists": len(lists)}
            cases += [facts | row for row in compare(scoring, dataset, lists, past)]
    packages = ("numpy", "torch", "faiss-cpu", "numba")
    return {
        "bench": "served",
        "cases": cases,
        "bundle": name,
        "length": length,
        "threads": 1,
        "versions": {package: version(package) for package in packages},
    }


def main() -> None:
    """Print one JSON line, and the figures as a table before it without --json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--targets", type=int, default=500, help="of a mode")
    parser.add_argument("--length", type=int, default=10_000, help="behaviours of users put together")
    options = parser.parse_args()
    result = run(options.targets, options.length)
    if not options.json:
        for case in result["cases"]:
            print(case)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
