"""Building codebooks from a published PSU: population training, recall on held-out users by code size."""

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from features.errors import SeminarError
from features.publish import path, point, publish
from model.compute import tune
from model.config import Config, Windows
from model.nn.backbone import Backbone
from model.nn.tiers import compared
from model.search.cells import calibrate as calibrated
from model.search.choose import recall
from model.search.codebooks import Codebooks, fit
from model.search.keys import Coded, Floats, Keys, Parts
from model.search.pq import OVER
from model.train import checkpoint
from model.train.dataset import Dataset, load

log = logging.getLogger(__name__)
Ints = NDArray[np.int64]

SHAPES: tuple[dict[str, Any], ...] = (
    {"item_bytes": 4, "query_bytes": 4, "sub_bits": 8, "opq": False},
    {"item_bytes": 8, "query_bytes": 8, "sub_bits": 4, "opq": True},
    {"item_bytes": 8, "query_bytes": 8, "sub_bits": 8, "opq": True},
    {"item_bytes": 16, "query_bytes": 8, "sub_bits": 8, "opq": True},
    {"item_bytes": 32, "query_bytes": 16, "sub_bits": 8, "opq": True},
)
"""Bytes of an item's and a query's code, bits a sub-vector, with a learned rotation or not; the smallest first. An item has
its cell beside: at most one cache line."""
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


def encode_alike(backbone: Backbone, dataset: Dataset, rows: Ints, names: Sequence[str], step: int = 4096) -> Floats:
    """Unit vectors [s, n + 1, d] of the whole catalogue that tiers compare; row 0: none."""
    found = np.zeros((len(names), len(dataset.item_ids) + 1, backbone.no_item.shape[0]), np.float32)
    nothing = torch.zeros(0, dataset.tokens.shape[1], dtype=torch.long)
    for start in range(1, len(dataset.item_ids) + 1, step):
        here = np.arange(start, min(start + step, len(dataset.item_ids) + 1))
        with torch.no_grad():
            parts = backbone.parts(dataset.item_inputs(here, rows), nothing)
        for side, vectors in zip(found, compared(names, parts), strict=True):
            side[0], side[here] = vectors[0], vectors[1:]
    return found


def population(dataset: Dataset, item_parts: Floats, query_parts: Floats, until_ms: int) -> tuple[Floats, Floats]:
    """What codebooks are trained on: distinct parts in histories before `until_ms` of users that are not held out."""
    owner = np.repeat(np.arange(len(dataset.histories.user_ids)), np.diff(dataset.histories.offsets))
    seen = (owner % HELD_OUT != 0) & (dataset.histories.records["time"] < until_ms)
    return item_parts[np.unique(dataset.item_rows[seen])], query_parts[np.unique(dataset.query_rows[seen])]


def held_out_recall(
    backbone: Backbone, dataset: Dataset, items: Coded, queries: Coded, books: Codebooks, k: int, over: int = OVER
) -> dict[str, float]:
    """Mean recall@k of held-out users' last targets, by search: what each finds of the exact top k."""
    found: dict[str, list[float]] = {"pq": [], "cells": []}
    for user in range(0, len(dataset.histories.user_ids), HELD_OUT):
        history = dataset.history(user)
        length = len(history.time) - 8
        if length <= over * k:
            continue
        with torch.no_grad():
            bias = backbone.attention.bias(history.time[length] - history.time[:length], history.kind[:length]).numpy()
        item_rows, query_rows = (side.numpy().astype(np.int32) for side in (history.item, history.query))
        keys = Keys(Parts(items), item_rows[:length], Parts(queries), query_rows[:length], bias)
        targets = items.parts[item_rows[length:]] + queries.parts[query_rows[length:]]
        with torch.no_grad():
            folded = backbone.attention.fold(torch.from_numpy(targets)).numpy()
        for method, values in found.items():
            values.append(recall(folded, keys, k, books, method, over))
    return {method: float(np.mean(values)) if values else float("nan") for method, values in found.items()}


def calibrate(
    backbone: Backbone, dataset: Dataset, items: Coded, queries: Coded, books: Codebooks, k: int, most: int = 50_000
) -> Codebooks:
    """Codebooks whose search by cells loses little on held-out users' histories, put one after another to be long."""
    rows: list[tuple[Ints, Ints]] = []
    targets = []
    for user in range(0, len(dataset.histories.user_ids), HELD_OUT):
        history = dataset.history(user)
        sides = history.item.numpy(), history.query.numpy()
        if len(sides[0]) > 8 and sum(len(known) for known, _ in rows) < most:
            rows.append((sides[0][:-8], sides[1][:-8]))
            targets.append(items.parts[sides[0][-8:]] + queries.parts[sides[1][-8:]])
    if not rows:
        return books
    item_rows, query_rows = (np.concatenate(side).astype(np.int32) for side in zip(*rows, strict=True))
    if len(item_rows) <= k:
        return books
    keys = Keys(Parts(items), item_rows, Parts(queries), query_rows, np.zeros(len(item_rows), np.float32))
    with torch.no_grad():
        folded = backbone.attention.fold(torch.from_numpy(np.concatenate(targets))).numpy()
    return replace(books, coarse=calibrated(books.coarse, folded, keys, k))


def build(
    home: Path,
    *,
    psu: str,
    windows: Windows,
    config: Config | None = None,
    seed: int = 0,
    least: float = 0.0,
    history: str | None = None,
) -> dict[str, Any]:
    """Fit codebooks of growing sizes on a PSU's parts, measure each on held-out users, publish the first good enough.

    least: recall below which nothing is published (SeminarError); it does not apply where no held-out history is long
    enough to need a search. history: the version of history that is read.
    Returns {"version", "recall": [{"item_bytes", "query_bytes", "sub_bits", "opq", "bits", "recall", "recall_scan",
    "recall_cells"}], "chosen"}.
    """
    tune()
    config, begin = config or Config(), time.monotonic()
    found = checkpoint.read(path(home / "psu", psu))
    dataset = load(home, windows.t1, config.model, history, found.spec)
    module = found.spec.psu()
    module.load_state_dict(found.weights)
    backbone = module.eval().backbone
    parts, spec = encode_all(backbone, dataset, found.vocabulary(dataset)), found.spec
    trained = population(dataset, *parts, windows.t1)
    rows, books = [], []
    cells = None  # they do not depend on the shape of the codes
    for shape in SHAPES:
        sizes, way = (shape["item_bytes"], shape["query_bytes"]), {"bits": shape["sub_bits"], "opq": shape["opq"]}
        fitted = fit(*trained, *sizes, seed, **way, cells=cells)
        coded = fitted.code_items(parts[0]), fitted.code_queries(parts[1])
        if cells is None:
            fitted = calibrate(backbone, dataset, *coded, fitted, spec.retrieved)
            cells = fitted.coarse
        found_by, scan = (held_out_recall(backbone, dataset, *coded, fitted, spec.retrieved, over) for over in (OVER, 1))
        bits = 8 * (shape["item_bytes"] + shape["query_bytes"])
        row = {**shape, "bits": bits, "recall": found_by["pq"], "recall_scan": scan["pq"], "recall_cells": found_by["cells"]}
        rows.append(row)
        books.append(fitted)
        log.info("codebooks %s", row)
        if found_by["pq"] >= ENOUGH:
            break  # larger ones would not be chosen
    chosen = next((i for i, row in enumerate(rows) if row["recall"] >= ENOUGH), len(rows) - 1)
    if rows[chosen]["recall"] < least:  # NaN, where nothing could be measured, is not
        value = round(rows[chosen]["recall"], 4)
        raise SeminarError("codebooks", f"recall {value}", f"is below {least}", "look at the PSU's losses; the former stay")
    facts = {"psu": psu, "windows": windows.as_dates(), "seed": seed, "recall": rows, "chosen": rows[chosen]}
    facts["history"] = history

    def write(folder: Path) -> None:
        books[chosen].save(folder)
        (folder / "codebooks.json").write_text(json.dumps(facts, indent=1))

    def check(folder: Path) -> None:
        Codebooks.load(folder)

    version = publish(home / "codebooks", write, check)
    point(home / "codebooks", version)
    return {"version": version, "recall": rows, "chosen": rows[chosen], "seconds": round(time.monotonic() - begin, 1)}
