"""CODEBOOKS: quantisers of item parts and query parts, trained over the population, never on a target.

Letters: n vectors, d width, s bytes of a code. Product quantisation: a byte codes one sub-vector of width d / s by 256
centroids (8 bits), or two of half the width by 16 each (4 bits); `rotation` turns vectors beforehand (OPQ: Ge et al.,
CVPR 2013). Asymmetric distance computation (ADC): the folded query stays a float; its inner products with all centroids
are a table, and a code's score is a sum of s entries (Jegou et al., PAMI 2011). Scores are never counts of equal codes.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from model.search import coarse
from model.search.coarse import Coarse
from model.search.keys import Coded, Codes, Floats


@dataclass(frozen=True)
class Quantiser:
    """Centroids [m, 2^bits, d / m] of m sub-vectors and the rotation [d, d] before them; bits: 8 (m = s) or 4 (m = 2 s)."""

    centroids: Floats
    rotation: Floats | None = None

    @property
    def bits(self) -> int:
        """Bits a sub-vector."""
        return int(self.centroids.shape[1]).bit_length() - 1

    def tables(self, folded: Floats) -> Floats:
        """Lookup tables [t, s, 256] of folded queries [t, d]; of 4 bits, a byte's entry is the sum of its halves'."""
        pieces = self._pieces(folded)
        tables: Floats = np.einsum("tmw,mcw->tmc", pieces, self.centroids, optimize=True).astype(np.float32)
        if self.bits == 8:
            return tables
        low, high = tables[:, ::2, None, :], tables[:, 1::2, :, None]
        return np.ascontiguousarray((low + high).reshape(len(folded), -1, 256))

    def encode(self, vectors: Floats) -> Codes:
        """Codes [n, s] of vectors [n, d]: the nearest centroid of each sub-vector."""
        pieces = self._pieces(vectors)
        norms = (self.centroids**2).sum(2)
        codes = np.empty(pieces.shape[:2], np.uint8)
        for j, centroids in enumerate(self.centroids):
            codes[:, j] = (norms[j] - 2 * pieces[:, j] @ centroids.T).argmin(1)
        packed: Codes = codes if self.bits == 8 else (codes[:, ::2] | codes[:, 1::2] << 4).astype(np.uint8)
        return packed

    def decode(self, codes: Codes) -> Floats:
        """Vectors [n, d] that the codes stand for."""
        if self.bits == 4:
            codes = np.stack([codes & 15, codes >> 4], 2).reshape(len(codes), -1)
        found: Floats = self.centroids[np.arange(codes.shape[1]), codes].reshape(len(codes), -1)
        return found if self.rotation is None else found @ self.rotation.T

    def _pieces(self, vectors: Floats) -> Floats:
        turned = np.asarray(vectors, np.float32)
        if self.rotation is not None:
            turned = turned @ self.rotation
        return np.ascontiguousarray(turned).reshape(len(turned), len(self.centroids), -1)


@dataclass(frozen=True)
class Codebooks:
    """A quantiser of item parts and one of query parts, and the coarse cells of item parts."""

    item: Quantiser
    query: Quantiser
    coarse: Coarse

    def code_items(self, parts: Floats) -> Coded:
        """Item parts [n, d] with their cells and codes."""
        return Coded(parts, self.coarse.assign(parts), self.item.encode(parts))

    def code_queries(self, parts: Floats) -> Coded:
        """Query parts [n, d] with their codes; they have no cells."""
        return Coded(parts, np.zeros(len(parts), np.uint16), self.query.encode(parts))

    def save(self, folder: Path) -> None:
        """Write `codebooks.npz`."""
        cells = self.coarse
        columns: dict[str, Any] = {"cells": cells.centroids, "covariance": cells.covariance, "loss": cells.loss}
        for name, quantiser in (("item", self.item), ("query", self.query)):
            columns[name] = quantiser.centroids
            if quantiser.rotation is not None:
                columns[f"{name}_rotation"] = quantiser.rotation
        np.savez(folder / "codebooks.npz", allow_pickle=False, **columns)

    @classmethod
    def load(cls, folder: Path) -> "Codebooks":
        """Read `codebooks.npz`; one of an earlier version has a single cell."""
        with np.load(folder / "codebooks.npz") as stored:
            item, query = (Quantiser(stored[name], stored.get(f"{name}_rotation")) for name in ("item", "query"))
            width = item.centroids.shape[0] * item.centroids.shape[2]
            if "cells" not in stored:
                return cls(item, query, Coarse.single(width))
            return cls(item, query, Coarse(stored["cells"], stored["covariance"], float(stored["loss"])))


def fit(
    item_parts: Floats,
    query_parts: Floats,
    item_bytes: int,
    query_bytes: int,
    seed: int = 0,
    *,
    bits: int = 8,
    opq: bool = False,
    cells: Coarse | None = None,
) -> Codebooks:
    """Train on populations [n, d] of item parts and query parts; cells: those of an earlier fit, if there was one."""
    item, query = train(item_parts, item_bytes, seed, bits, opq), train(query_parts, query_bytes, seed, bits, opq)
    return Codebooks(item, query, cells or coarse.fit(item_parts, seed))


def train(vectors: Floats, s: int, seed: int = 0, bits: int = 8, opq: bool = False) -> Quantiser:
    """A product quantiser of s bytes, or, with `opq`, one after a learned rotation."""
    d, count, m = vectors.shape[1], 1 << bits, s * 8 // bits
    rotation = None
    if len(vectors) < count:  # k-means wants a vector a centroid: with fewer, the vectors are their own codebook
        vectors = np.resize(vectors, (count, d)) if len(vectors) else np.zeros((count, d), np.float32)
        opq = False
    vectors = np.ascontiguousarray(vectors, np.float32)
    if opq and len(vectors) >= d:  # faiss writes beyond its buffers when a rotation has fewer vectors than dimensions
        turning = faiss.OPQMatrix(d, m)
        turning.niter, turning.niter_pq, turning.max_train_points = 5, 4, 16_384
        turning.pq = inner = _product(d, m, bits, seed)
        turning.train(vectors)
        turning.pq = None
        del inner
        rotation = faiss.vector_to_array(turning.A).reshape(d, d).T.copy()
        vectors = np.ascontiguousarray(vectors @ rotation)
    quantiser = _product(d, m, bits, seed)
    quantiser.train(vectors)
    return Quantiser(faiss.vector_to_array(quantiser.centroids).reshape(m, count, d // m).copy(), rotation)


def _product(d: int, m: int, bits: int, seed: int) -> faiss.ProductQuantizer:
    quantiser = faiss.ProductQuantizer(d, m, bits)
    quantiser.cp.seed = seed + 1
    quantiser.cp.niter = 15
    quantiser.cp.min_points_per_centroid = 1
    return quantiser
