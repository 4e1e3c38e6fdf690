"""Evaluation on users' later events: after t3, on which nothing is trained or counted.

Modes: `recommendation` (no query; 99 sampled negatives, 20 of them from the user's own past, the rest by popularity) and
`search` (the query given; negatives are items of the same type). Sampled metrics are called so: NDCG@10 of 1 + 99. Log loss
and calibration are those of impressions, every method calibrated by one logistic fit on the impressions of [t2, t3).
"""

import hashlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from model.compute import tune
from model.config import Config, Windows
from model.nn.click import IMPRESSED, ClickModel
from model.train import checkpoint, metrics
from model.train.ctr import logits
from model.train.dataset import Dataset, load
from model.train.examples import browses, impressions
from model.train.moments import Moments, Row, pad, session_time
from model.train.negatives import Negatives
from model.train.popularity import Popularity

log = logging.getLogger(__name__)
Floats = NDArray[np.float64]
Scorer = Callable[[list[Moments]], list[Floats]]
OWN, CANDIDATES = 20, 99
HALF_LIFE_MS = 30 * 86_400_000


@dataclass(frozen=True)
class Lists:
    """Candidates of later targets, the same for every method; the hash says so."""

    mode: str
    moments: list[Moments]

    def digest(self) -> str:
        """A hash of users, prefixes, candidates and queries."""
        state = hashlib.blake2b(digest_size=8)
        for m in self.moments:
            for part in (np.array([m.user]), m.prefix, m.items, m.queries):
                state.update(np.ascontiguousarray(part, np.int64).tobytes())
        return state.hexdigest()


def later_targets(dataset: Dataset, since: int, until: int, most: int, mode: str, seed: int) -> Lists:
    """Seeded targets in [since, until), 99 negatives each; popularity is that before `since`."""
    rng, draw = np.random.default_rng(seed), Negatives(dataset, since)
    starts = dataset.histories.offsets
    found = []
    for user in range(len(dataset.histories.user_ids)):
        places = browses(dataset, user, since, until)
        if mode == "search":
            places = places[dataset.query_rows[starts[user] + places] > 0]
        found += [(user, int(place)) for place in places]
    chosen = [found[i] for i in sorted(rng.permutation(len(found))[:most])]
    by_user: dict[int, list[Row]] = {}
    for user, place in chosen:
        at = starts[user] + place
        row, prefix = int(dataset.item_rows[at]), int(dataset.basket_starts[at])
        here = slice(starts[user], starts[user + 1])
        begins = dataset.basket_starts[here]
        mine = dataset.item_rows[here][begins == begins[place]]
        if mode == "search":
            drawn, query = draw.alike(rng, row, CANDIDATES + len(mine)), int(dataset.query_rows[at])
        else:
            own = rng.permutation(draw.own(rng, user, prefix, OWN))
            drawn, query = np.concatenate([own, draw.popular(rng, 3 * CANDIDATES)]), 0
        drawn = drawn[~np.isin(drawn, mine)]
        distinct = drawn[np.sort(np.unique(drawn, return_index=True)[1])][:CANDIDATES]
        if len(distinct) < 5:
            continue
        items = np.concatenate([[row], distinct])
        labels = (np.arange(len(items)) == 0).astype(np.float32)
        now = session_time(dataset, user, prefix)
        by_user.setdefault(user, []).append(Row(prefix, now, query, items, labels, IMPRESSED, None))
    return Lists(mode, [pad(user, rows) for user, rows in by_user.items()])


def shown_lists(home: Path, dataset: Dataset, since: int, until: int, most: int) -> Lists:
    """Impressions in [since, until) with their clicks."""
    found = impressions(home, dataset, since, until)
    rng = np.random.default_rng(0)
    pairs = [(user, i) for user, lists in found.items() for i in range(len(lists))]
    by_user: dict[int, list[Row]] = {}
    for at in rng.permutation(len(pairs))[:most]:
        user, i = pairs[at]
        s = found[user][i]
        row = Row(s.prefix, s.now, s.query, s.items, s.clicks.astype(np.float32), IMPRESSED, s.positions)
        by_user.setdefault(user, []).append(row)
    return Lists("impressions", [pad(user, rows) for user, rows in sorted(by_user.items())])


def model_scorer(model: ClickModel, dataset: Dataset, rows: NDArray[np.int64], before: int, users: int = 16) -> Scorer:
    """Log-odds of a click model, to which the popularity before a time is known."""
    popularity = Popularity(dataset, before)

    def score(moments: list[Moments]) -> list[Floats]:
        out: list[Floats] = []
        with torch.no_grad():
            for start in range(0, len(moments), users):
                found = logits(model, dataset, rows, moments[start : start + users], popularity)
                out += [x.numpy().astype(np.float64) for x in found]
        return out

    return score


def popularity_scorer(dataset: Dataset, before: int) -> Scorer:
    """Log count of browses before a time."""
    counts = np.log1p(dataset.counts(before))
    return lambda moments: [counts[m.items] for m in moments]


def frequency_scorer(dataset: Dataset, before: int) -> Scorer:
    """How often the user browsed the item, each time halved every 30 days; ties are broken by popularity."""
    counts = dataset.counts(before)
    tie = 1e-3 * np.log1p(counts) / np.log1p(counts.max())

    def score(moments: list[Moments]) -> list[Floats]:
        out = []
        for m in moments:
            start = dataset.histories.offsets[m.user]
            values = np.zeros(m.items.shape)
            for i, (prefix, now) in enumerate(zip(m.prefix.tolist(), m.now.tolist(), strict=True)):
                past = slice(start, start + prefix)
                age = now - dataset.histories.records["time"][past]
                weight = np.bincount(dataset.item_rows[past], 0.5 ** (age / HALF_LIFE_MS), len(tie))
                values[i] = np.log(weight[m.items[i]] + tie[m.items[i]] + 1e-4)
            out.append(values)
        return out

    return score


def evaluate(
    home: Path, *, checkpoints: dict[str, str], windows: Windows, config: Config | None = None, seed: int = 0
) -> dict[str, Any]:
    """Compare methods on the same later events.

    checkpoints: folder by method. Returns {"methods": [a row for each method and mode], "calibration": {method: ...},
    "candidates": {mode: hash}, "logistic": {method: [scale, shift]}}.
    """
    tune()
    config, begin = config or Config(), time.monotonic()
    dataset = load(home, windows.end, config.model)
    scorers: dict[str, Scorer] = {}
    for name, folder in checkpoints.items():
        found = checkpoint.read(Path(folder))
        model = found.spec.click()
        model.load_state_dict(found.weights)
        scorers[name] = model_scorer(model.eval(), dataset, found.vocabulary(dataset), windows.t3)
    scorers["popularity"] = popularity_scorer(dataset, windows.t3)
    scorers["own_frequency"] = frequency_scorer(dataset, windows.t3)
    most = config.train.eval_targets
    lists = [later_targets(dataset, windows.t3, windows.end, most, mode, seed) for mode in ("recommendation", "search")]
    tuned = shown_lists(home, dataset, windows.t2, windows.t3, most)
    shown = shown_lists(home, dataset, windows.t3, windows.end, most)
    result: dict[str, Any] = {"methods": [], "calibration": {}, "logistic": {}}
    for name, score in scorers.items():
        probabilities = _calibrated(score, tuned, shown)
        result["logistic"][name] = probabilities["logistic"]
        result["calibration"][name] = probabilities["calibration"]
        for found_lists in lists:
            row = {"name": name, "mode": found_lists.mode, **_rank(score, found_lists)}
            result["methods"].append({**row, "logloss": probabilities["logloss"], "impression_gauc": probabilities["gauc"]})
            log.info("%s %s: GAUC %.4f NDCG@10 %.4f", name, found_lists.mode, row["gauc"], row["ndcg10"])
    result["candidates"] = {x.mode: x.digest() for x in [*lists, shown]}
    result["seconds"] = round(time.monotonic() - begin, 1)
    return result


def _rank(score: Scorer, lists: Lists) -> dict[str, Any]:
    user_ids, flat, labels, rank, owner = [], [], [], [], []
    for m, scores in zip(lists.moments, score(lists.moments), strict=True):
        flat.append(scores[m.real])
        labels.append(m.labels[m.real])
        user_ids.append(np.full(int(m.real.sum()), m.user))
        rank.append(metrics.ranks(scores, m.real))
        owner.append(np.full(len(scores), m.user))
    if not rank:
        return {"gauc": float("nan"), "ndcg10": float("nan"), "n_users": 0, "n_targets": 0}
    users, values, weights = metrics.by_user_auc(np.concatenate(flat), np.concatenate(labels), np.concatenate(user_ids))
    gauc, low, high = metrics.interval(values, weights)
    ranks, owners = np.concatenate(rank), np.concatenate(owner)
    gains, counts = _per_user(metrics.ndcg(ranks, 10), owners)
    ndcg, ndcg_low, ndcg_high = metrics.interval(gains, counts)
    return {
        "gauc": gauc,
        "gauc_lo": low,
        "gauc_hi": high,
        "ndcg10": ndcg,
        "ndcg10_lo": ndcg_low,
        "ndcg10_hi": ndcg_high,
        "hit10": float(metrics.hit(ranks, 10).mean()),
        "mrr": float(metrics.mrr(ranks).mean()),
        "n_users": len(users),
        "n_targets": len(ranks),
    }


def _per_user(values: Floats, owners: NDArray[np.int64]) -> tuple[Floats, Floats]:
    _, place, counts = np.unique(owners, return_inverse=True, return_counts=True)
    return np.bincount(place, values) / counts, counts.astype(np.float64)


def _calibrated(score: Scorer, tuned: Lists, shown: Lists) -> dict[str, Any]:
    """Fit the logistic on validation impressions; log loss, calibration and GAUC on test impressions."""
    if not tuned.moments or not shown.moments:
        return {"logistic": [1.0, 0.0], "calibration": None, "logloss": None, "gauc": None}
    x, y, _ = _flat(score, tuned)
    scale, shift = metrics.fit_logistic(x, y)
    x, y, users = _flat(score, shown)
    probability = 1 / (1 + np.exp(-(scale * x + shift)))
    _, values, weights = metrics.by_user_auc(x, y, users)
    return {
        "logistic": [scale, shift],
        "calibration": metrics.calibration(probability, y),
        "logloss": metrics.log_loss(probability, y),
        "gauc": float(np.average(values, weights=weights)) if len(values) else None,
    }


def _flat(score: Scorer, lists: Lists) -> tuple[Floats, Floats, NDArray[np.int64]]:
    pairs = list(zip(lists.moments, score(lists.moments), strict=True))
    return (
        np.concatenate([scores[m.real] for m, scores in pairs]),
        np.concatenate([m.labels[m.real] for m, _ in pairs]).astype(np.float64),
        np.concatenate([np.full(int(m.real.sum()), m.user) for m, _ in pairs]),
    )
