"""CODEBOOKS: product quantisers over item parts and query parts, trained over the population, never on a target.

Letters: n vectors, d width, s sub-vectors (bytes a code), 256 centroids each of width d / s. Asymmetric distance
computation (ADC): the folded query stays a float; its inner products with all centroids are a table, and a code's score is a
sum of s entries (Jegou et al., PAMI 2011). Scores are never counts of equal codes.
"""

from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Codes = NDArray[np.uint8]
CENTROIDS = 256


@dataclass(frozen=True)
class Quantiser:
    """Centroids [s, 256, d / s]."""

    centroids: Floats

    def tables(self, folded: Floats) -> Floats:
        """Lookup tables [t, s, 256] of folded queries [t, d]."""
        s, _, width = self.centroids.shape
        pieces = folded.reshape(len(folded), s, width)
        tables: Floats = np.einsum("tsw,scw->tsc", pieces, self.centroids, optimize=True).astype(np.float32)
        return tables

    def encode(self, vectors: Floats) -> Codes:
        """Codes [n, s] of vectors [n, d]: the nearest centroid of each sub-vector."""
        s, _, width = self.centroids.shape
        pieces = np.ascontiguousarray(vectors, np.float32).reshape(len(vectors), s, width)
        norms = (self.centroids**2).sum(2)
        codes = np.empty((len(vectors), s), np.uint8)
        for j in range(s):
            codes[:, j] = (norms[j] - 2 * pieces[:, j] @ self.centroids[j].T).argmin(1)
        return codes

    def decode(self, codes: Codes) -> Floats:
        """Vectors [n, d] that the codes stand for."""
        return self.centroids[np.arange(codes.shape[1]), codes].reshape(len(codes), -1)


@dataclass(frozen=True)
class Codebooks:
    """A quantiser of item parts and one of query parts."""

    item: Quantiser
    query: Quantiser

    def save(self, folder: Path) -> None:
        """Write `codebooks.npz`."""
        np.savez(folder / "codebooks.npz", item=self.item.centroids, query=self.query.centroids)

    @classmethod
    def load(cls, folder: Path) -> "Codebooks":
        """Read `codebooks.npz`."""
        with np.load(folder / "codebooks.npz") as stored:
            return cls(Quantiser(stored["item"]), Quantiser(stored["query"]))


def fit(item_parts: Floats, query_parts: Floats, item_bytes: int, query_bytes: int, seed: int = 0) -> Codebooks:
    """Train on populations [n, d] of item parts and query parts."""
    return Codebooks(_train(item_parts, item_bytes, seed), _train(query_parts, query_bytes, seed))


def _train(vectors: Floats, s: int, seed: int) -> Quantiser:
    d = vectors.shape[1]
    if len(vectors) < CENTROIDS:  # k-means wants a vector a centroid: with fewer, the vectors are their own codebook
        vectors = np.resize(vectors, (CENTROIDS, d)) if len(vectors) else np.zeros((CENTROIDS, d), np.float32)
    quantiser = faiss.ProductQuantizer(d, s, 8)
    quantiser.cp.seed = seed + 1
    quantiser.cp.niter = 15
    quantiser.cp.min_points_per_centroid = 1
    quantiser.train(np.ascontiguousarray(vectors, np.float32))
    return Quantiser(faiss.vector_to_array(quantiser.centroids).reshape(s, CENTROIDS, d // s).copy())
