"""Recall of quantised keys by the protocol of SEMINAR's official recall script, with its flaws put right.

    python -m benchmarks.recall --json

A user has 2048 keys and a target in 4 modalities, independent Gaussian unit vectors of 16 dimensions; the truth are the 32
best by <sum w q, sum w k>, with equal weights or .1 to .4. Put right: one set of codebooks for everybody, trained on
other users' keys, never on a target, and scores by lookup tables (ADC). The script's own way (a codebook for each user,
symmetric tables), HNSW, LSH and residual quantisation stand beside it. "fused" quantises the weighted sum of the modalities
once; "by modality" each of them. Bits are those of a key's codes; of HNSW and cells, which keep the vectors, what they add.
"""

import argparse
import json
import platform
from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import Any

import faiss
import numpy as np

from model.search import coarse, pq
from model.search.choose import recall
from model.search.codebooks import Codebooks, train
from model.search.keys import Floats, Keys, Parts

LENGTH, DIM, MODALITIES, K, LINKS = 2048, 16, 4, 32, 64
WEIGHTS = {"equal": np.full(MODALITIES, 0.25, np.float32), ".1 to .4": np.array([0.1, 0.2, 0.3, 0.4], np.float32)}
Score = Callable[[Floats, Floats], Floats]
"""Scores [l] of a user's keys [l, m, d] under a target [m, d]."""


def run(users: int = 200, length: int = LENGTH, population: int = 16_384) -> dict[str, Any]:
    """Measure every method on this many users, with codebooks from a population of other keys."""
    faiss.omp_set_num_threads(1)
    rows = []
    others = _unit(np.random.default_rng(1), population)
    for weighting, weights in WEIGHTS.items():
        for method, bits, score in _methods(others, weights):
            rng = np.random.default_rng(0)
            hits = 0
            for _ in range(users):
                keys, target = _unit(rng, length), _unit(rng, 1)[0]
                truth = (keys * weights[:, None]).sum(1) @ (target * weights[:, None]).sum(0)
                best = np.argpartition(-truth, K)[:K]
                hits += len(np.intersect1d(best, np.argpartition(-score(keys, target), K)[:K]))
            rows.append({"method": method, "bits": bits, "weighting": weighting, "recall": round(hits / users / K, 4)})
        rows += _cells(others, weights, weighting, min(users, 100), length)
    return {
        "bench": "recall",
        "rows": rows,
        "users": users,
        "length": length,
        "k": K,
        "dim": DIM,
        "modalities": MODALITIES,
        "population": population,
        "versions": {"python": platform.python_version(), "faiss-cpu": version("faiss-cpu"), "numpy": version("numpy")},
    }


def _unit(rng: np.random.Generator, n: int) -> Floats:
    vectors = rng.standard_normal((n, MODALITIES, DIM), np.float32)
    unit: Floats = vectors / np.linalg.norm(vectors, axis=2, keepdims=True)
    return unit


def _fuse(vectors: Floats, weights: Floats) -> Floats:
    fused: Floats = np.ascontiguousarray((vectors * weights[:, None]).sum(-2))
    return fused


def _methods(others: Floats, weights: Floats) -> Iterator[tuple[str, int, Score]]:
    fused = _fuse(others, weights)
    for name, s, bits, opq in (
        ("PQ fused", 16, 8, False),
        ("PQ fused", 8, 8, False),
        ("OPQ fused", 8, 8, True),
        ("PQ fused, 4 bits", 8, 4, False),
        ("PQ fused", 4, 8, False),
    ):
        quantiser = train(fused, s, 0, bits, opq)

        def tables(keys: Floats, target: Floats, quantiser: Any = quantiser) -> Floats:
            table = quantiser.tables(_fuse(target[None], weights))
            scores: Floats = pq.scan(table, quantiser.encode(_fuse(keys, weights)))[0]
            return scores

        yield name, 8 * s, tables
    for s in (16, 8, 4):
        quantisers = [train(others[:, m], s, m) for m in range(MODALITIES)]

        def apart(keys: Floats, target: Floats, quantisers: Any = quantisers) -> Floats:
            asked = _fuse(target[None], weights)
            parts = (q.decode(q.encode(keys[:, m])) * weights[m] for m, q in enumerate(quantisers))
            scores: Floats = np.sum(list(parts), 0) @ asked[0]
            return scores

        yield "PQ by modality", 8 * s * MODALITIES, apart
    for stages in (4, 8):
        residual = faiss.ResidualQuantizer(DIM, stages, 8)
        residual.max_beam_size, residual.train_type = 4, faiss.ResidualQuantizer.Train_default
        residual.train(fused)
        yield "residual fused", 8 * stages, _decoded(residual, weights)
    for bits in (64, 256):
        turn = np.random.default_rng(2).standard_normal((DIM, bits)).astype(np.float32)

        def hashed(keys: Floats, target: Floats, turn: Floats = turn) -> Floats:
            differ = ((_fuse(keys, weights) @ turn > 0) != (_fuse(target[None], weights) @ turn > 0)).sum(1)
            scores: Floats = -differ.astype(np.float32)
            return scores

        yield "LSH fused", bits, hashed
    yield "HNSW by pairs of modalities", 2 * LINKS * 32 * MODALITIES, lambda keys, target: _hnsw(keys, target, weights)
    yield "PQ by modality, each user's own, SDC", 8 * DIM * MODALITIES, lambda keys, target: _own(keys, target, weights)


def _decoded(residual: Any, weights: Floats) -> Score:
    def score(keys: Floats, target: Floats) -> Floats:
        decoded = residual.decode(residual.compute_codes(_fuse(keys, weights)))
        scores: Floats = decoded @ _fuse(target[None], weights)[0]
        return scores

    return score


def _hnsw(keys: Floats, target: Floats, weights: Floats) -> Floats:
    """A graph for each modality's keys, searched by each modality of the target; what they find is scored exactly."""
    found = []
    for m in range(MODALITIES):
        graph = faiss.IndexHNSWFlat(DIM, LINKS, faiss.METRIC_INNER_PRODUCT)
        graph.add(np.ascontiguousarray(keys[:, m]))
        found.append(graph.search(np.ascontiguousarray(target), K)[1])
    places = np.unique(np.concatenate(found))
    scores = np.full(len(keys), -np.inf, np.float32)
    scores[places] = _fuse(keys[places], weights) @ _fuse(target[None], weights)[0]
    return scores


def _own(keys: Floats, target: Floats, weights: Floats) -> Floats:
    """The script's way: 16 one-dimensional sub-vectors a modality, trained on the user's keys, target coded, too."""
    coded, asked = np.empty_like(keys), np.empty_like(target)
    for m in range(MODALITIES):
        quantiser = train(keys[:, m], DIM, m)
        coded[:, m] = quantiser.decode(quantiser.encode(keys[:, m]))
        asked[m] = quantiser.decode(quantiser.encode(target[m : m + 1]))[0]
    scores: Floats = _fuse(coded, weights) @ _fuse(asked[None], weights)[0]
    return scores


def _cells(others: Floats, weights: Floats, weighting: str, users: int, length: int) -> Iterator[dict[str, Any]]:
    """Coarse cells with exact scores inside: what `model.search.cells` finds where nothing clusters."""
    fused = _fuse(others, weights)
    small = train(fused[:1000], 4)
    books = Codebooks(small, small, coarse.fit(fused))
    rng = np.random.default_rng(0)
    found = []
    for _ in range(users):
        parts, target = _fuse(_unit(rng, length), weights), _fuse(_unit(rng, 1), weights)
        whole = np.concatenate([np.zeros((1, DIM), np.float32), parts])
        none = np.zeros((1, DIM), np.float32)
        at = np.arange(1, length + 1, dtype=np.int32)
        bias = np.zeros(length, np.float32)
        keys = Keys(Parts(books.code_items(whole)), at, Parts(books.code_queries(none)), np.zeros(length, np.int32), bias)
        found.append(recall(target, keys, K, books, "cells"))
    yield {
        "method": "coarse cells, exact inside",
        "bits": 16,
        "weighting": weighting,
        "recall": round(float(np.mean(found)), 4),
    }


def main() -> None:
    """Print one JSON line, and the figures as a table before it without --json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="few users, to see that everything runs")
    parser.add_argument("--users", type=int, default=200)
    options = parser.parse_args()
    result = run(2, 512, 4096) if options.quick else run(options.users)
    if not options.json:
        for row in result["rows"]:
            print(f"{row['method']:>40} {row['bits']:>6} bits, weights {row['weighting']:>8}: recall {row['recall']:.4f}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
