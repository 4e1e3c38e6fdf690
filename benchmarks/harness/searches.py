"""Histories to search and the ways to search them, from decoded records and folded queries to the exactly scored best.

Letters: l behaviours, t candidates, n items, d width, k retrieved. A way returns places [t, k] and exact scores [t, k].
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import faiss
import numpy as np
import torch
from numpy.typing import NDArray

from features.record import RECORD, Records
from model.bundle import Bundle, Table
from model.nn.features import POPULARITY
from model.search import cells, choose, exact
from model.search.codebooks import Codebooks, fit
from model.search.keys import Coded, Floats, Keys, Parts, Rows
from model.search.units import units

K = 100
Found = tuple[Rows, Floats]
Way = Callable[[Records, Floats], Found]
_EDGES = np.array([60_000 * (2 * 365 * 1440) ** (i / 22) for i in range(23)])  # of time gaps, as the model's


@dataclass(frozen=True)
class World:
    """Items and queries with their codebooks, and biases [gap buckets] and [kinds]."""

    items: Table
    queries: Table
    books: Codebooks
    gap_bias: Floats
    kind_bias: Floats

    def bias(self, records: Records) -> Floats:
        """Biases [l] as of the last record: constant on stretches of time, of which there are few."""
        gaps = (records["time"][-1] - records["time"])[::-1]
        cuts = np.searchsorted(gaps, _EDGES, "left")
        stretch = np.repeat(self.gap_bias, np.diff(np.concatenate([[0], cuts, [len(records)]])))[::-1]
        found: Floats = (stretch + self.kind_bias[records["kind"]]).astype(np.float32)
        return found

    def keys(self, records: Records) -> Keys:
        """The history, mapped to rows."""
        rows = self.items.rows(records["item"]), self.queries.rows(records["query"])
        return Keys(Parts(self.items.coded), rows[0], Parts(self.queries.coded), rows[1], self.bias(records))


def hard(d: int, n: int = 200_000, seed: int = 0) -> World:
    """Items around 300 Gaussian centres, with noise of 0.7, unit norm, no queries. Biases: 5 % of the scores' spread."""
    rng = np.random.default_rng(seed)
    parts = rng.standard_normal((300, d), np.float32)[rng.integers(0, 300, n)]
    parts += 0.7 * rng.standard_normal((n, d), np.float32)
    parts /= np.linalg.norm(parts, axis=1, keepdims=True)
    ids = np.unique(rng.integers(1, 1 << 63, n, dtype=np.uint64) * np.uint64(2))
    parts = np.concatenate([np.zeros((1, d), np.float32), parts[: len(ids)]])
    none = np.zeros((1, d), np.float32)
    books = fit(parts[1:], none, min(62, d // 4 if d < 256 else 32), 4, seed)
    gap_bias = (0.05 / np.sqrt(d) * rng.standard_normal(24)).astype(np.float32)
    items, queries = table(ids, books.code_items(parts)), table(np.empty(0, np.uint64), books.code_queries(none))
    world = World(items, queries, books, gap_bias, np.zeros(4, np.float32))
    asked, past = items.parts[rng.integers(1, len(items.parts), 200)], hard_history(world, min(n, 10_000), seed + 1)
    coarse = cells.calibrate(books.coarse, asked, world.keys(past), K)  # as for a bundle
    return replace(world, books=replace(books, coarse=coarse))


def table(ids: NDArray[np.uint64], coded: Coded) -> Table:
    """A table of nothing but what a search reads."""
    n = len(ids) + 1
    return Table.of(ids, coded, np.zeros(n, np.float32), np.zeros((n, POPULARITY), np.float32), np.zeros(n, np.int32))


def hard_history(world: World, length: int, seed: int) -> Records:
    """Uniform over the items, an event an hour."""
    records = np.zeros(length, RECORD)
    records["time"] = 1_500_000_000_000 + 3_600_000 * np.arange(length)
    records["item"] = np.random.default_rng(seed).choice(world.items.ids, length)
    records["kind"] = 2
    return records


def trained(bundle: Bundle) -> World:
    """A bundle's tables and biases."""
    attention = bundle.model.backbone.attention
    biases = [getattr(attention, name).detach().mean(0).numpy() for name in ("gap_bias", "kind_bias")]
    return World(bundle.items, bundle.queries, bundle.codebooks, biases[0], biases[1])


def fold(bundle: Bundle, item_rows: Rows, query_rows: Rows) -> Floats:
    """Folded queries [t, d] of candidates' rows."""
    targets = bundle.items.parts[item_rows] + bundle.queries.parts[query_rows]
    with torch.inference_mode():
        folded: Floats = bundle.model.backbone.attention.fold(torch.from_numpy(targets)).numpy()
    return folded


def ways(world: World, history: Records) -> dict[str, Way]:
    """Every way to search. Only `ours_cached` may know the history beforehand."""
    books, count = world.books, len(world.books.coarse.centroids)
    known = world.keys(history)
    packed = units(known, count, choose.least(len(history)))
    quantiser = np.abs(world.items.parts).max() / 127
    rows8 = np.clip(np.rint(world.items.parts / quantiser), -127, 127).astype(np.int8)
    query8 = np.clip(np.rint(world.queries.parts / quantiser), -127, 127).astype(np.int8)
    turn = np.random.default_rng(0).standard_normal((world.items.parts.shape[1], 256)).astype(np.float32)
    hashes = np.packbits(world.items.parts @ turn > 0, axis=1), world.items.parts, world.queries.parts
    return {
        "ours": lambda records, folded: choose.scored(folded, world.keys(records), K, books),
        "ours_cached": lambda records, folded: _cached(packed, folded, books),
        "exact fp32": lambda records, folded: exact.plain(folded, world.keys(records), K),
        "exact, repeats once": lambda records, folded: exact.search(folded, units(world.keys(records)), K),
        "exact, repeats once (numpy)": lambda records, folded: _once(world.keys(records), folded),
        "cells": lambda records, folded: choose.scored(folded, world.keys(records), K, books, "cells"),
        "int8 GEMM": lambda records, folded: _int8(world.keys(records), folded, rows8, query8, float(quantiser)),
        "faiss PQ": lambda records, folded: _faiss(world.keys(records), folded, world, "PQ"),
        "FastScan": lambda records, folded: _faiss(world.keys(records), folded, world, "FastScan"),
        "pq of ours": lambda records, folded: choose.scored(folded, world.keys(records), K, books, "pq"),
        "ETA hashes": lambda records, folded: _eta(world.keys(records), folded, hashes[0], turn),
    }


def bytes_per_item(world: World, way: str) -> int:
    """What a way reads of an item beside its fp32 part."""
    d = world.items.parts.shape[1]
    sizes = {"int8 GEMM": d, "faiss PQ": _shape(d)[0], "FastScan": d // 4, "pq of ours": world.items.codes.shape[1]}
    sizes |= {"ETA hashes": 32, "ours": 2, "ours_cached": 2, "cells": 2}
    return int(sizes.get(way, 0))


def _cached(packed: Any, folded: Floats, books: Codebooks) -> Found:
    if len(packed.cell_starts) > 2:
        return cells.search(folded, packed, books.coarse, K)
    return exact.search(folded, packed, K)


def _once(keys: Keys, folded: Floats) -> Found:
    (items, item_at), (queries, query_at) = (
        np.unique(rows, return_inverse=True) for rows in (keys.item_rows, keys.query_rows)
    )
    scores = (folded @ keys.items.take(items).T)[:, item_at]
    scores += (folded @ keys.queries.take(queries).T)[:, query_at]
    scores += keys.bias
    return _best(scores, K)


def _best(scores: Floats, k: int) -> Found:
    places = np.argpartition(scores, scores.shape[1] - k, 1)[:, -k:].astype(np.int32)
    return places, np.take_along_axis(scores, places, 1)


def _rerank(keys: Keys, folded: Floats, places: Rows) -> Found:
    """The k best of places [t, k'] by exact scores."""
    exactly = np.matmul(keys.gather(places), folded[:, :, None])[:, :, 0] + keys.bias[places]
    best, scores = _best(exactly, K)
    return np.take_along_axis(places, best, 1), scores


def _int8(keys: Keys, folded: Floats, rows8: Any, query8: Any, scale: float) -> Found:
    """An integer product of int8 rows and int8 queries, then an exact rerank of a few more than k."""
    own = np.abs(folded).max() / 127
    folded8 = torch.from_numpy(np.clip(np.rint(folded / own), -127, 127).astype(np.int8))
    if len(folded8) < 32:  # the product wants more rows than it has candidates
        folded8 = torch.cat([folded8, folded8.new_zeros(32 - len(folded8), folded8.shape[1])])
    gathered = torch.from_numpy(rows8[keys.item_rows])
    scores = torch._int_mm(folded8, gathered.T)[: len(folded)].numpy() * np.float32(own * scale)
    if len(query8) > 1:
        queries = torch.from_numpy(query8[np.minimum(np.arange(len(query8) + -len(query8) % 8), len(query8) - 1)])
        scores += (torch._int_mm(folded8, queries.T)[: len(folded)].numpy() * np.float32(own * scale))[:, keys.query_rows]
    scores += keys.bias
    return _rerank(keys, folded, _best(scores, min(K + 28, scores.shape[1]))[0])


_indexes: dict[tuple[int, str], Any] = {}


def _shape(d: int) -> tuple[int, int]:
    return min(64, d // 4), d // 2  # bytes of 8-bit codes; sub-vectors of 4 bits


def train_faiss(world: World) -> None:
    """Train the indexes that the faiss ways fill, over the population."""
    d = world.items.parts.shape[1]
    sample = np.ascontiguousarray(world.items.parts[1:100_001])
    for kind in ("PQ", "FastScan"):
        eight, four = _shape(d)
        inner = faiss.METRIC_INNER_PRODUCT
        index = faiss.IndexPQ(d, eight, 8, inner) if kind == "PQ" else faiss.IndexPQ(d, four, 4, inner)
        index.pq.cp.max_points_per_centroid = 100
        index.train(sample)
        _indexes[d, kind] = index, index.sa_encode(np.ascontiguousarray(world.items.parts))


def _faiss(keys: Keys, folded: Floats, world: World, kind: str) -> Found:
    """A scan of the history's codes with 4 k retrieved and reranked; parts of queries are scored exactly and added."""
    index, codes = _indexes[folded.shape[1], kind]
    index.reset()
    gathered = np.ascontiguousarray(codes[keys.item_rows])
    index.add_sa_codes(gathered)
    if kind == "FastScan":
        index = faiss.IndexPQFastScan(index, 32)  # lays the codes out for the registers
    if len(world.queries.parts) == 1:
        found = index.search(np.ascontiguousarray(folded), min(4 * K, len(keys)))[1].astype(np.int32)
        return _rerank(keys, folded, found)
    # Scores of queries and biases belong before selection, which faiss does: retrieve many more, add them, select again.
    scores, places = index.search(np.ascontiguousarray(folded), min(16 * K, len(keys)))
    places = np.maximum(places, 0)
    scores += (folded @ keys.queries.table.parts.T)[np.arange(len(folded))[:, None], keys.query_rows[places]]
    scores += keys.bias[places]
    best = _best(scores, min(4 * K, scores.shape[1]))[0]
    return _rerank(keys, folded, np.take_along_axis(places, best, 1).astype(np.int32))


def _eta(keys: Keys, folded: Floats, hashes: NDArray[np.uint8], turn: Floats) -> Found:
    """Hamming distance of 256 random hyperplanes' signs (arXiv 2108.04468), 4 k retrieved and reranked."""
    asked = np.packbits(folded @ turn > 0, axis=1).view(np.uint64)
    codes = hashes[keys.item_rows].view(np.uint64)
    distance = np.zeros((len(folded), len(keys)), np.int16)
    for word in range(codes.shape[1]):
        distance += np.bitwise_count(asked[:, word, None] ^ codes[:, word])
    places = np.argpartition(distance, min(4 * K, len(keys) - 1) - 1, 1)[:, : 4 * K].astype(np.int32)
    return _rerank(keys, folded, places)
