"""Export of a fine-tuned checkpoint as a bundle: the whole catalogue encoded with the fine-tuned encoders."""

import json
import platform
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from features.publish import path, publish
from features.record import entity_id
from model import bundle
from model.compute import tune
from model.config import Config, Windows
from model.nn.click import rated
from model.nn.features import POPULARITY
from model.search.codebooks import fit
from model.train import checkpoint
from model.train.codebooks import calibrate, encode_alike, encode_all, held_out_recall, population
from model.train.dataset import load
from model.train.golden import golden
from model.train.lineage import code
from model.train.popularity import Popularity


def export(
    home: Path,
    *,
    checkpoint_folder: str,
    codebooks: str,
    windows: Windows,
    metrics: dict[str, Any],
    config: Config | None = None,
    seed: int = 0,
    history: str | None = None,
) -> dict[str, Any]:
    """Publish a bundle, without pointing to it. `metrics` is what `evaluate` returned, with the method `seminar`.

    The codebooks' sizes are those of the pinned version; their centroids are fitted again on the fine-tuned parts, since
    fine-tuning moved these, and their recall on held-out users is what the gate reads.
    """
    tune()
    config, begin = config or Config(), time.monotonic()
    found = checkpoint.read(Path(checkpoint_folder))
    dataset = load(home, windows.end, config.model, history, found.spec)
    model = found.spec.click()
    model.load_state_dict(found.weights)
    vocabulary = found.vocabulary(dataset)
    item_parts, query_parts = encode_all(model.eval().backbone, dataset, vocabulary)
    alike = encode_alike(model.backbone, dataset, vocabulary, model.tiers)
    chosen = json.loads((path(home / "codebooks", codebooks) / "codebooks.json").read_text())["chosen"]
    trained = population(dataset, item_parts, query_parts, windows.t3)
    shape = {"bits": chosen.get("sub_bits", 8), "opq": chosen.get("opq", False)}
    books = fit(*trained, chosen["item_bytes"], chosen["query_bytes"], seed, **shape)
    coded = books.code_items(item_parts), books.code_queries(query_parts)
    books = calibrate(model.backbone, dataset, *coded, books, found.spec.retrieved)
    recalls = held_out_recall(model.backbone, dataset, *coded, books, found.spec.retrieved)
    recall = min(recalls["pq"], recalls["cells"])  # the gate reads the worse one
    bias = model.item_bias.weight.detach().numpy()[vocabulary, 0].astype(np.float32)
    everything = np.arange(len(item_parts))
    popularity = Popularity(dataset, windows.end).features(everything, np.full(len(everything), windows.end)).numpy()
    hashes = np.array([entity_id(name) for name in dataset.type_names], np.uint64)
    order = np.argsort(hashes)
    numbers = np.zeros(len(hashes) + 1, np.int32)
    numbers[order + 1] = np.arange(1, len(hashes) + 1)
    numbers = numbers[dataset.types + 1]
    kinds = np.zeros(len(hashes) + 1, np.float32)
    kinds[numbers] = popularity[:, 3]  # alike for all items of a type
    types = bundle.Types(hashes[order], kinds)
    items = bundle.Table.of(dataset.item_ids, coded[0], bias, popularity, numbers, alike)
    zeros = np.zeros((len(query_parts), POPULARITY), np.float32)
    queries = bundle.Table.of(dataset.query_ids, coded[1], zeros[:, 0], zeros, np.zeros(len(zeros), np.int32))
    mine = {row["mode"]: row for row in metrics["methods"] if row["name"] == "seminar"}
    calibration = metrics["calibration"].get("seminar") or {}
    manifest = {
        "created": datetime.now(UTC).isoformat(),
        "encoder": dataset.encoder,
        "windows": windows.as_dates(),
        "logistic": metrics["logistic"]["seminar"],
        "labels": found.facts["labels"],
        "methods": metrics["methods"],
        "metrics": {
            "gauc": mine["recommendation"]["gauc"],
            "ndcg10": mine["recommendation"]["ndcg10"],
            "search_gauc": mine["search"]["gauc"],
            "logloss": mine["recommendation"]["logloss"],
            "codes_recall": recall,
            "predicted_to_observed": calibration.get("predicted_to_observed"),
            "slope": calibration.get("slope"),
        },
        "codes": {
            **chosen,
            **{f"recall_{way}": value for way, value in recalls.items()},
            "cells": len(books.coarse.centroids),
            "loss": books.coarse.loss,
        },
        "lineage": {
            "psu": found.facts["psu"],
            "codebooks": codebooks,
            "checkpoint": Path(checkpoint_folder).name,
            "history": history,
            "seed": found.facts["seed"],
            "code": code(),
            "candidates": metrics.get("candidates"),
            "seminar": version("seminar"),
            "torch": version("torch"),
            "python": platform.python_version(),
        },
    }

    def check(folder: Path) -> None:
        bundle.load(folder)

    source = rated(found.facts["labels"])
    requests = golden(model, dataset, vocabulary, metrics["logistic"]["seminar"], windows.end, seed, source)

    def write(folder: Path) -> None:
        bundle.write(folder, found.spec, model, items, queries, books, types, manifest, vocabulary, requests)

    name = publish(home / "bundles", write, check)
    return {"version": name, "codes_recall": recall, "items": len(items.ids), "seconds": round(time.monotonic() - begin, 1)}
