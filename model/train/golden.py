"""Golden requests of a bundle: a few users' last moments with the rates that training's own code gives them."""

import numpy as np
import torch
from numpy.typing import NDArray

from model.golden import Golden
from model.nn.click import ClickModel
from model.train.ctr import logits
from model.train.dataset import Dataset
from model.train.moments import Row, pad
from model.train.popularity import Popularity

REQUESTS, CANDIDATES, LONGEST = 6, 20, 5_000


def golden(
    model: ClickModel,
    dataset: Dataset,
    vocabulary: NDArray[np.int64],
    logistic: tuple[float, float],
    until_ms: int,
    seed: int,
) -> Golden:
    """Users drawn among those of at most LONGEST behaviours, one of each with a query; some candidates are their own."""
    rng = np.random.default_rng(seed)
    offsets = dataset.histories.offsets
    lengths = np.diff(offsets)
    some = np.flatnonzero((lengths > 0) & (lengths <= LONGEST))
    users = rng.choice(some, min(REQUESTS, len(some)), replace=False)
    popularity, c = Popularity(dataset, until_ms), min(CANDIDATES, len(dataset.item_ids))
    rates, candidates, queries, pieces = [], [], [], []
    for number, user in enumerate(users.tolist()):
        here = slice(offsets[user], offsets[user + 1])
        own = np.unique(dataset.item_rows[here])
        own = rng.permutation(own[own > 0])[: c // 2]
        others = np.setdiff1d(np.arange(1, len(dataset.item_ids) + 1), own)
        rows = np.concatenate([own, rng.choice(others, c - len(own), replace=False)]).astype(np.int64)
        asked = int(dataset.query_rows[here].max(initial=0)) if number % 2 else 0
        row = Row(len(dataset.histories.of(user)), until_ms, asked, rows, np.zeros(c, np.float32), 0, None)
        with torch.no_grad():
            odds = logits(model, dataset, vocabulary, [pad(user, [row])], popularity)[0][0].numpy().astype(np.float64)
        rates.append(1 / (1 + np.exp(-(logistic[0] * odds + logistic[1]))))
        candidates.append(dataset.item_ids[rows - 1])
        queries.append(dataset.query_texts[asked - 1] if asked else "")
        pieces.append(dataset.histories.records[here])
    empty = np.empty(0, dataset.histories.records.dtype)
    return Golden(
        np.concatenate([empty, *pieces]),
        np.cumsum([0, *(len(piece) for piece in pieces)]),
        np.full(len(users), until_ms, np.int64),
        np.array(queries, np.str_),
        np.array(candidates, np.uint64).reshape(len(users), c),
        np.array(rates, np.float64).reshape(len(users), c),
    )
