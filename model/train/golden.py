"""Golden requests of a bundle: made-up histories with the rates that training's own code gives them.

Made up, from the catalogue's items and queries: a bundle is never rewritten, so it must hold nothing that a user did.
Letters: l behaviours of a request, c candidates.
"""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from features.record import KIND_BROWSE, KIND_SEARCH, RECORD
from features.sequences import Histories
from model.config import DAY_MS
from model.golden import Golden
from model.nn.click import ClickModel
from model.nn.content import tokens
from model.train.ctr import logits
from model.train.dataset import Dataset
from model.train.moments import Row, pad
from model.train.popularity import Popularity

LENGTHS, CANDIDATES, DAYS = (0, 3, 40, 400, 3_000), 20, 400
ASKED = "what golden requests ask for"
"""No table knows it: a query is encoded from its words."""


def golden(
    model: ClickModel,
    dataset: Dataset,
    vocabulary: NDArray[np.int64],
    logistic: tuple[float, float],
    until_ms: int,
    seed: int,
    source: int,
) -> Golden:
    """A request for each of LENGTHS, every other one with a query; half of the candidates are in the history.

    source: that which rates are of.
    """
    rng = np.random.default_rng(seed)
    made, n = _made_up(dataset, rng, until_ms, model.backbone.queries.table.num_embeddings), len(dataset.item_ids)
    c, popularity = min(CANDIDATES, n), Popularity(dataset, until_ms)
    rates, candidates, queries = [], [], []
    for number, length in enumerate(LENGTHS):
        start = made.histories.offsets[number]
        own = np.unique(made.item_rows[start : start + length])
        own = rng.permutation(own[own > 0])[: c // 2]
        others = np.setdiff1d(np.arange(1, n + 1), own)
        rows = np.concatenate([own, rng.choice(others, c - len(own), replace=False)]).astype(np.int64)
        asked = len(made.tokens) if number % 2 else 0  # its row is the last one
        row = Row(length, until_ms, asked, rows, np.zeros(c, np.float32), source, None)
        with torch.no_grad():
            odds = logits(model, made, vocabulary, [pad(number, [row])], popularity)[0][0].numpy().astype(np.float64)
        rates.append(1 / (1 + np.exp(-(logistic[0] * odds + logistic[1]))))
        candidates.append(dataset.item_ids[rows - 1])
        queries.append(ASKED if asked else "")
    return Golden(
        made.histories.records,
        made.histories.offsets,
        np.full(len(LENGTHS), until_ms, np.int64),
        np.array(queries, np.str_),
        np.array(candidates, np.uint64),
        np.array(rates, np.float64),
    )


def _made_up(dataset: Dataset, rng: np.random.Generator, until_ms: int, token_rows: int) -> Dataset:
    """The same items and queries, and one query more, with made-up users of LENGTHS behaviours before a time."""
    items, queries, size = len(dataset.item_ids), len(dataset.query_ids), sum(LENGTHS)
    offsets = np.cumsum([0, *LENGTHS])
    pool = rng.integers(1, items + 1, 1 + size // 4)  # items come again, as they do
    item_rows, query_rows = rng.choice(pool, size), rng.integers(0, queries + 1, size)
    searches = (rng.random(size) < 0.2) & (query_rows > 0)
    item_rows[searches] = 0
    records = np.zeros(size, RECORD)
    for begin, end in pairwise(offsets.tolist()):
        records["time"][begin:end] = np.sort(until_ms - rng.integers(1, DAYS * DAY_MS, end - begin))
    records["item"] = np.concatenate([np.zeros(1, np.uint64), dataset.item_ids])[item_rows]
    records["query"] = np.concatenate([np.zeros(1, np.uint64), dataset.query_ids])[query_rows]
    records["kind"] = np.where(searches, KIND_SEARCH, KIND_BROWSE)
    records["digest"] = np.arange(size)
    asked = tokens(ASKED, token_rows)
    return replace(
        dataset,
        histories=Histories([str(i) for i in range(len(LENGTHS))], offsets, records),
        item_rows=item_rows,
        query_rows=query_rows,
        basket_starts=np.zeros(size, np.int64),
        query_texts=[*dataset.query_texts, ASKED],
        tokens=np.concatenate([dataset.tokens, asked[None]]),
    )
