"""A home to serve from: a bundle, and users with histories of a given length.

`trained`: the promoted bundle of SEMINAR_HOME, with real histories put one after another and timed anew. `hard`: a bundle of
an untrained model over 200,000 items around 300 Gaussian centres and 20,000 queries, histories uniform over the items: what
repeats is rare, which is the worst case. Letters: d width, l behaviours.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness.searches import hard, table
from features.history import read_items, read_sequences
from features.publish import current, path, point, publish
from features.record import RECORD, Records
from model import bundle
from model.golden import Golden
from model.nn.spec import Spec
from model.search.codebooks import fit

QUERIES = 20_000
HOUR_MS = 3_600_000


@dataclass(frozen=True)
class World:
    """The folder of bundles to serve from; candidates' own keys; where histories come from."""

    name: str
    bundles: Path
    candidates: list[str]
    items: NDArray[np.uint64]
    queries: NDArray[np.uint64]
    stored: Records | None

    def history(self, length: int, user: int, until_ms: int) -> Records:
        """The history [l] of a user: one event an hour until a moment."""
        rng = np.random.default_rng([length, user])
        records = np.zeros(length, RECORD)
        if self.stored is not None:  # stretches of real histories, each of at most 2,000 events
            filled = 0
            while filled < length:
                begin, n = int(rng.integers(len(self.stored))), int(rng.integers(500, 2000))
                piece = self.stored[begin : begin + min(n, length - filled)]
                records[filled : filled + len(piece)] = piece
                filled += len(piece)
        else:
            records["item"], records["kind"] = rng.choice(self.items, length), 2
            records["query"] = np.where(rng.random(length) < 0.5, rng.choice(self.queries, length), np.uint64(0))
            searched = rng.random(length) < 0.2
            records["kind"][searched], records["item"][searched] = 1, 0
            records["query"][searched] = rng.choice(self.queries, int(searched.sum()))
        records["time"] = until_ms - HOUR_MS * np.arange(length, 0, -1)
        records["digest"] = rng.integers(0, 1 << 32, length, dtype=np.uint64).astype(np.uint32)
        return records

    def event(self, rng: np.random.Generator, time_ms: int) -> Records:
        """One browse of any item."""
        record = np.zeros(1, RECORD)
        record["time"], record["kind"] = time_ms, 2
        record["item"], record["digest"] = rng.choice(self.items), rng.integers(0, 1 << 32)
        return record


def trained(home: Path) -> World | None:
    """The promoted bundle of a home with its histories; None where there is none."""
    kind = home / "bundles"
    version = current(kind)
    if version is None:
        return None
    found = bundle.load(path(kind, version))
    rows = read_items(home)
    known = np.isin(rows["item"].to_numpy().view(np.uint64), found.items.ids)
    keys = [key for key, ok in zip(rows["item_id"].to_pylist(), known, strict=True) if ok]
    return World(
        "trained", kind, keys, np.asarray(found.items.ids), np.asarray(found.queries.ids), read_sequences(home).records
    )


def untrained(folder: Path, dim: int = 64, items: int = 200_000, seed: int = 0) -> World:
    """Publish a bundle of an untrained model over hard keys in a folder of bundles."""
    from features.record import entity_id

    rng = np.random.default_rng(seed)
    keys = [f"item-{i}" for i in range(items)]
    ids = np.array([entity_id(key) for key in keys], np.uint64)
    ids = np.unique(ids)
    made = hard(dim, len(ids), seed)
    parts = np.asarray(made.items.parts[: len(ids) + 1])
    if len(parts) < len(ids) + 1:
        ids = ids[: len(parts) - 1]
    queries = np.unique(rng.integers(1, 1 << 63, QUERIES, dtype=np.uint64))
    words = rng.standard_normal((len(queries) + 1, dim), np.float32) * np.float32(0.3 / np.sqrt(dim))
    books = fit(parts[1:], words[1:], 16, 8, seed, cells=made.books.coarse)
    spec = Spec(dim, 4, 100, 50, "topk", 1000, 1000, 1000, 256, 0)
    known, asked = (
        table(some, coded) for some, coded in ((ids, books.code_items(parts)), (queries, books.code_queries(words)))
    )
    types = bundle.Types(np.empty(0, np.uint64), np.zeros(1, np.float32))
    manifest: dict[str, Any] = {"encoder": "hashing", "logistic": [1.0, 0.0], "windows": {}, "metrics": {}}
    manifest["labels"] = {"impressions": 0}
    model, rows = spec.click(), np.zeros(len(ids) + 1, np.int64)
    version = publish(
        folder, lambda aside: bundle.write(aside, spec, model, known, asked, books, types, manifest, rows, Golden.none())
    )
    point(folder, version)
    return World("hard", folder, keys, ids, queries, None)


def copy_bundle(source: Path, bundles: Path) -> str:
    """Copy the promoted bundle of a folder into another as its next version."""
    version = current(source)
    assert version is not None
    folder = path(source, version)

    def build(aside: Path) -> None:
        for file in folder.iterdir():
            if file.name not in ("READY", "SHA256SUMS"):
                shutil.copy(file, aside / file.name)

    return publish(bundles, build)
