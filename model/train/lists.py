"""Candidate lists of later targets: drawn once by seed, saved, hashed, the same for every method.

Letters: g lists, c candidates of a list, n items. Candidate 0 is what the user went on to browse. Its basket-mates are right
answers as well, so they are never candidates; nothing else is left out, neither what the user browsed before nor what
it browses later.

- `recommendation` (no query): 99 negatives, 20 of them distinct earlier items of the user's own; each of the others is cold
  (nobody browsed it before the window) with the share that cold items have among the window's targets, else drawn in
  proportion to popularity before the window. Sampled: figures compare with no full ranking.
- `search` (the target's own query is given): *all* items of the target's type on sale by then, where these are 10 or more.
- `catalogue` (no query): all items on sale by then.
"""

import hashlib
import os
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.nn.click import IMPRESSED, SAMPLED
from model.train.dataset import Dataset
from model.train.examples import browses, impressions
from model.train.moments import Moments, Row, pad, session_time

Ints = NDArray[np.int64]
OWN, CANDIDATES = 20, 99
MIN_TYPE = 10
"""A type of fewer items names its item: such searches are no test."""
FEWEST = 5  # negatives, or a list says too little


@dataclass(frozen=True)
class Lists:
    """Lists by user, in order of users; nothing of the items is counted after `since` (ms)."""

    mode: str
    since: int
    moments: list[Moments]

    def __len__(self) -> int:
        return sum(len(m.prefix) for m in self.moments)

    def digest(self, dataset: Dataset) -> str:
        """A hash of users, prefixes, queries and candidates by their ids: rows change with whatever else came up by then."""
        state = hashlib.blake2b(digest_size=8)
        for name, column in self._columns(dataset).items():
            told = "\0".join(column.tolist()).encode() if name == "user" else column.tobytes()
            state.update(told)
        return state.hexdigest()

    def save(self, home: Path, dataset: Dataset) -> Path:
        """Write `<home>/lists/<mode>-<digest>.npz` unless it is there.

        It holds, flat over all lists: user [g] (text), prefix [g], time [g] (ms), query [g], length [g], and the items'
        and queries' stable 64-bit ids (0: no query), the candidates one list after the other.
        """
        file = home / "lists" / f"{self.mode}-{self.digest(dataset)}.npz"
        if file.exists():
            return file
        file.parent.mkdir(parents=True, exist_ok=True)
        aside = file.with_name(f".{uuid.uuid4().hex}.npz")
        np.savez_compressed(aside, allow_pickle=False, **self._columns(dataset))
        os.replace(aside, file)
        return file

    def _columns(self, dataset: Dataset) -> dict[str, NDArray[Any]]:
        items = np.concatenate([np.zeros(1, np.uint64), dataset.item_ids])
        queries = np.concatenate([np.zeros(1, np.uint64), dataset.query_ids])
        return {
            "user": np.array([dataset.histories.user_ids[m.user] for m in self.moments for _ in m.prefix]),
            "prefix": _joined(m.prefix for m in self.moments),
            "time": _joined(m.now for m in self.moments),
            "query": queries[_joined(m.queries[:, 0] for m in self.moments)],
            "length": _joined(m.real.sum(1) for m in self.moments),
            "items": items[_joined(m.items[m.real] for m in self.moments)],
        }


def _joined(parts: Iterable[NDArray[np.int64]]) -> Ints:
    return np.concatenate([np.zeros(0, np.int64), *parts])


class Candidates:
    """Draws a target's candidates, with items counted before `since` only."""

    def __init__(self, dataset: Dataset, since: int, cold_share: float) -> None:
        self._dataset, self._cold_share = dataset, cold_share
        counts = dataset.counts(since)
        counts[0] = 0
        self._cumulative = np.cumsum(counts / max(counts.sum(), 1))
        self._cold = dataset.cold(since)
        self._of_type = {int(code): np.flatnonzero(dataset.types == code) for code in np.unique(dataset.types) if code >= 0}

    def recommendation(self, rng: np.random.Generator, row: int, past: Ints, basket: Ints, now: int) -> Ints:
        """Distinct negatives [<= 99] for a target `row`, given the rows browsed before and those of its basket."""
        own = np.setdiff1d(past[past > 0], basket)
        own = rng.choice(own, min(OWN, len(own)), replace=False)
        fresh = self._cold[: int(np.searchsorted(self._dataset.listed[self._cold], now, "right"))]
        fresh = np.setdiff1d(fresh, basket)
        n_cold = min(int(rng.binomial(CANDIDATES - len(own), self._cold_share)), len(fresh))
        cold = rng.choice(fresh, n_cold, replace=False)
        popular = np.searchsorted(self._cumulative, rng.random(8 * CANDIDATES), "right").clip(max=len(self._cumulative) - 1)
        drawn = np.concatenate([own, cold, popular])
        drawn = drawn[~np.isin(drawn, basket) & (drawn > 0) & (drawn != row)]
        distinct: Ints = drawn[np.sort(np.unique(drawn, return_index=True)[1])]
        return distinct[:CANDIDATES]

    def search(self, row: int, basket: Ints, now: int) -> Ints:
        """All other rows of the target's type on sale by then; none where the type is too small."""
        kin = self._of_type.get(int(self._dataset.types[row]), np.zeros(0, np.int64))
        kin = kin[(self._dataset.listed[kin] <= now) & (kin != row)]
        return np.setdiff1d(kin, basket) if len(kin) + 1 >= MIN_TYPE else kin[:0]

    def catalogue(self, row: int, basket: Ints, now: int) -> Ints:
        """All other rows on sale by then."""
        return np.setdiff1d(np.flatnonzero(self._dataset.listed <= now), [row, *basket])


def targets(dataset: Dataset, since: int, until: int, users: Ints | None = None) -> tuple[Ints, Ints]:
    """Users [g] and places [g] in their histories of what was browsed in [since, until), by these users or by all."""
    found = []
    for user in range(len(dataset.histories.user_ids)) if users is None else users.tolist():
        places = browses(dataset, user, since, until)
        found.append(np.stack([np.full(len(places), user, np.int64), places]))
    both = np.concatenate([np.zeros((2, 0), np.int64), *found], 1)
    return both[0], both[1]


def later(dataset: Dataset, since: int, until: int, most: int, mode: str, seed: int, users: Ints | None = None) -> Lists:
    """At most `most` lists of a mode for targets drawn by seed from [since, until)."""
    rng = np.random.default_rng(seed)
    owners, places = targets(dataset, since, until, users)
    at = dataset.histories.offsets[owners] + places
    draw = Candidates(dataset, since, dataset.cold_share(at, since))
    if mode == "search":
        asked = dataset.query_rows[at] > 0
        owners, places = owners[asked], places[asked]
    by_user: dict[int, list[Row]] = {}
    taken = 0
    for i in rng.permutation(len(owners)):
        if taken == most:
            break
        user, place = int(owners[i]), int(places[i])
        here = slice(dataset.histories.offsets[user], dataset.histories.offsets[user + 1])
        rows, begins = dataset.item_rows[here], dataset.basket_starts[here]
        row, prefix = int(rows[place]), int(begins[place])
        basket, now = rows[begins == prefix], session_time(dataset, user, prefix)
        query = 0
        if mode == "search":
            query = int(dataset.query_rows[here][place])
            negatives = draw.search(row, basket, now)
        elif mode == "catalogue":
            negatives = draw.catalogue(row, basket, now)
        else:
            negatives = draw.recommendation(rng, row, rows[:prefix], basket, now)
        if len(negatives) < FEWEST:
            continue
        items = np.concatenate([[row], negatives])
        labels = (np.arange(len(items)) == 0).astype(np.float32)
        by_user.setdefault(user, []).append(Row(prefix, now, query, items, labels, SAMPLED, None))
        taken += 1
    return Lists(mode, since, [pad(user, by_user[user]) for user in sorted(by_user)])


def shown(home: Path, dataset: Dataset, since: int, until: int, most: int) -> Lists:
    """At most `most` impressions in [since, until) with their clicks."""
    found = impressions(home, dataset, since, until)
    rng = np.random.default_rng(0)
    pairs = [(user, i) for user, lists in found.items() for i in range(len(lists))]
    by_user: dict[int, list[Row]] = {}
    for at in rng.permutation(len(pairs))[:most]:
        user, i = pairs[at]
        s = found[user][i]
        row = Row(s.prefix, s.now, s.query, s.items, s.clicks.astype(np.float32), IMPRESSED, s.positions)
        by_user.setdefault(user, []).append(row)
    return Lists("impressions", since, [pad(user, rows) for user, rows in sorted(by_user.items())])
