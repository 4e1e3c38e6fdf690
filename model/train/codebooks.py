"""Building codebooks from a published PSU: population training, recall on held-out users by code size."""

import json
import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from features.publish import path, point, publish
from model.compute import tune
from model.config import Config, Windows
from model.nn.backbone import Backbone
from model.search.choose import recall
from model.search.codebooks import Codebooks, Floats, fit
from model.search.exact import Keys
from model.search.pq import OVER
from model.train import checkpoint
from model.train.dataset import Dataset, load

log = logging.getLogger(__name__)
Ints = NDArray[np.int64]

SIZES = ((4, 4), (8, 8), (16, 8), (32, 16))
"""Bytes of an item's and a query's code that are tried; together at most one cache line."""
ENOUGH = 0.95
HELD_OUT = 10  # one user in ten trains no codebook


def encode_all(backbone: Backbone, dataset: Dataset, rows: Ints, step: int = 4096) -> tuple[Floats, Floats]:
    """Parts of the whole catalogue [n + 1, d] and of all queries [q + 1, d]; row 0: none."""
    with torch.no_grad():
        pieces = []
        for start in range(1, len(dataset.item_ids) + 1, step):
            here = np.arange(start, min(start + step, len(dataset.item_ids) + 1))
            pieces.append(backbone.items(dataset.item_inputs(here, rows)))
        items = torch.cat([backbone.no_item.unsqueeze(0), *pieces])
        queries = backbone.parts(dataset.item_inputs(np.ones(0, np.int64), rows), torch.from_numpy(dataset.tokens)).query
    return items.numpy(), queries.numpy()


def population(dataset: Dataset, item_parts: Floats, query_parts: Floats, until_ms: int) -> tuple[Floats, Floats]:
    """What codebooks are trained on: distinct parts in histories before `until_ms` of users that are not held out."""
    owner = np.repeat(np.arange(len(dataset.histories.user_ids)), np.diff(dataset.histories.offsets))
    seen = (owner % HELD_OUT != 0) & (dataset.histories.records["time"] < until_ms)
    return item_parts[np.unique(dataset.item_rows[seen])], query_parts[np.unique(dataset.query_rows[seen])]


def held_out_recall(
    backbone: Backbone, dataset: Dataset, item_parts: Floats, query_parts: Floats, books: Codebooks, k: int, over: int = OVER
) -> float:
    """Mean recall@k of held-out users' last targets: what the scan and rerank find of the exact top k."""
    codes = books.item.encode(item_parts), books.query.encode(query_parts)
    found = []
    for user in range(0, len(dataset.histories.user_ids), HELD_OUT):
        history = dataset.history(user)
        length = len(history.time) - 8
        if length <= over * k:
            continue
        with torch.no_grad():
            bias = backbone.attention.bias(history.time[length] - history.time[:length], history.kind[:length]).numpy()
        keys = Keys(item_parts, history.item[:length].numpy(), query_parts, history.query[:length].numpy(), bias, *codes)
        targets = item_parts[history.item[length:].numpy()] + query_parts[history.query[length:].numpy()]
        with torch.no_grad():
            folded = backbone.attention.fold(torch.from_numpy(targets)).numpy()
        found.append(recall(folded, keys, k, books, over))
    return float(np.mean(found)) if found else float("nan")


def build(home: Path, *, psu: str, windows: Windows, config: Config | None = None, seed: int = 0) -> dict[str, Any]:
    """Fit codebooks of several sizes on a PSU's parts, measure them on held-out users, publish the smallest good enough.

    Returns {"version", "recall": [{"item_bytes", "query_bytes", "bits", "recall", "recall_scan"}], "chosen"}.
    """
    tune()
    config, begin = config or Config(), time.monotonic()
    found = checkpoint.read(path(home / "psu", psu))
    dataset = load(home, windows.t1, config.model)
    module = found.spec.psu()
    module.load_state_dict(found.weights)
    backbone = module.eval().backbone
    parts = encode_all(backbone, dataset, found.vocabulary(dataset))
    trained = population(dataset, *parts, windows.t1)
    rows, books = [], []
    for item_bytes, query_bytes in SIZES:
        fitted = fit(*trained, item_bytes, query_bytes, seed)
        k = found.spec.retrieved
        rows.append(
            {
                "item_bytes": item_bytes,
                "query_bytes": query_bytes,
                "bits": 8 * (item_bytes + query_bytes),
                "recall": held_out_recall(backbone, dataset, *parts, fitted, k),
                "recall_scan": held_out_recall(backbone, dataset, *parts, fitted, k, over=1),
            }
        )
        books.append(fitted)
        log.info("codebooks %s", rows[-1])
    chosen = next((i for i, row in enumerate(rows) if row["recall"] >= ENOUGH), len(rows) - 1)
    facts = {"psu": psu, "windows": windows.as_dates(), "seed": seed, "recall": rows, "chosen": rows[chosen]}

    def write(folder: Path) -> None:
        books[chosen].save(folder)
        (folder / "codebooks.json").write_text(json.dumps(facts, indent=1))

    def check(folder: Path) -> None:
        Codebooks.load(folder)

    version = publish(home / "codebooks", write, check)
    point(home / "codebooks", version)
    return {"version": version, "recall": rows, "chosen": rows[chosen], "seconds": round(time.monotonic() - begin, 1)}
