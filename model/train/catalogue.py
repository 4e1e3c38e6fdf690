"""CATALOGUE: all items encoded with a PSU and its codebooks, in shards of arrays that readers map.

    <home>/catalogue/v000001/catalogue.json                        codebooks, psu, history, items, shards, error
    <home>/catalogue/v000001/<shard>.{ids,cells,codes,error}.npy   sorted ids [n], cells [n], codes [n, s], error [n]

A shard is encoded by a task of its own and lies aside until all are there: encoding one again replaces it with the same.
`error` is the relative squared error of what an item's code stands for: how well the codebooks fit it.
"""

import json
import os
import shutil
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from features.errors import SeminarError
from features.publish import path, point, publish, sync, versions
from model.compute import tune
from model.config import Config, Windows
from model.nn.backbone import Backbone
from model.search.codebooks import Codebooks
from model.train import checkpoint
from model.train.dataset import Dataset, load

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
FIELDS = ("ids", "cells", "codes", "error")
SHARD = 50_000
STEP = 4096


def encoder(home: Path, psu: str, dataset: Dataset) -> tuple[Backbone, Ints]:
    """A PSU's backbone, and the id-table rows [n + 1] of a data set's items in it."""
    found = checkpoint.read(path(home / "psu", psu))
    module = found.spec.psu()
    module.load_state_dict(found.weights)
    return module.eval().backbone, found.vocabulary(dataset)


def parts(backbone: Backbone, dataset: Dataset, vocabulary: Ints, rows: Ints) -> Floats:
    """Parts [i, d] of item rows [i] (each > 0)."""
    with torch.no_grad():
        cut = [backbone.items(dataset.item_inputs(rows[i : i + STEP], vocabulary)) for i in range(0, len(rows), STEP)]
        found: Floats = torch.cat([torch.zeros(0, backbone.no_item.shape[0]), *cut]).numpy()
        return found


def error(books: Codebooks, vectors: Floats) -> Floats:
    """Relative squared error [i] of vectors [i, d] as their codes stand for them."""
    stands = books.item.decode(books.item.encode(vectors))
    size = np.maximum((vectors**2).sum(1), 1e-12)
    found: Floats = (((vectors - stands) ** 2).sum(1) / size).astype(np.float32)
    return found


def shards(items: int, size: int = SHARD) -> list[list[int]]:
    """[number, first row, last row + 1] of each shard of item rows 1 to `items`."""
    return [[i, start, min(start + size, items + 1)] for i, start in enumerate(range(1, items + 1, size))]


def encode(
    home: Path, *, codebooks: str, psu: str, shard: list[int], windows: Windows, config: Config, history: str | None = None
) -> dict[str, Any]:
    """Encode one shard aside; {"shard", "items", "error"}."""
    tune()
    number, first, last = shard
    dataset = load(home, windows.end, config.model, history, checkpoint.spec_of(path(home / "psu", psu)))
    rows = np.arange(first, min(last, len(dataset.item_ids) + 1))
    books = Codebooks.load(path(home / "codebooks", codebooks))
    vectors = parts(*_with(encoder(home, psu, dataset), dataset), rows)
    coded = books.code_items(vectors)
    values: list[NDArray[Any]] = [dataset.item_ids[rows - 1], coded.cells, coded.codes, error(books, vectors)]
    folder = _aside(home, codebooks)
    folder.mkdir(parents=True, exist_ok=True)
    for field, array in zip(FIELDS, values, strict=True):
        aside = folder / f".{uuid.uuid4().hex}.npy"
        np.save(aside, array)
        sync(aside)
        os.replace(aside, folder / f"{number:05d}.{field}.npy")
    return {"shard": number, "items": len(rows), "error": float(values[3].mean()) if len(rows) else 0.0}


def _with(found: tuple[Backbone, Ints], dataset: Dataset) -> tuple[Backbone, Dataset, Ints]:
    return found[0], dataset, found[1]


def assemble(home: Path, *, codebooks: str, psu: str, encoded: list[dict[str, Any]], history: str | None) -> dict[str, Any]:
    """Publish the shards as one catalogue, and point to it; {"version", "items", "shards", "error"}.

    Where the newest one is made of the same, as after a run that was killed, it is pointed to and none is published.
    """
    items = sum(x["items"] for x in encoded)
    facts = {
        "codebooks": codebooks,
        "psu": psu,
        "history": history,
        "items": items,
        "shards": len(encoded),
        "error": sum(x["error"] * x["items"] for x in encoded) / max(items, 1),
    }
    kind, aside = home / "catalogue", _aside(home, codebooks)

    def build(folder: Path) -> None:
        for x in encoded:
            for field in FIELDS:
                name = f"{x['shard']:05d}.{field}.npy"
                shutil.copyfile(aside / name, folder / name)
        (folder / "catalogue.json").write_text(json.dumps(facts, indent=1))

    def check(folder: Path) -> None:
        ids = read(folder)["ids"]
        if len(ids) != items or (np.diff(ids.astype(np.uint64)) == 0).any():
            raise SeminarError("catalogue", folder, f"has {len(ids)} items instead of {items}", "encode its shards again")

    version = next(reversed(versions(kind)), None)
    if version is None or json.loads((kind / version / "catalogue.json").read_text()) != facts:
        version = publish(kind, build, check)
    point(kind, version)
    shutil.rmtree(aside, ignore_errors=True)
    return {"version": version, **{name: facts[name] for name in ("items", "shards", "error")}}


def read(folder: Path) -> dict[str, NDArray[Any]]:
    """ids [n] sorted and error [n] of a published catalogue."""
    names = sorted(file.name[:5] for file in folder.glob("*.ids.npy"))
    return {
        field: np.concatenate([np.load(folder / f"{name}.{field}.npy", mmap_mode="r") for name in names] or [np.zeros(0)])
        for field in ("ids", "error")
    }


def _aside(home: Path, codebooks: str) -> Path:
    return home / "catalogue" / f".shards-{codebooks}"
