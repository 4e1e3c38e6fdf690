"""COARSE: cells of the item parts, by k-means over the population. A cell's number is the first code of an item (2 bytes).

Letters: n vectors, c cells, d width.
"""

import math
from dataclasses import dataclass

import faiss
import numpy as np

from model.search.keys import Cells, Floats

MOST = 1024
LOSS = 0.015
"""Share of a target's k best that the cells left out are expected to hold, before it is calibrated."""


@dataclass(frozen=True)
class Coarse:
    """Centroids [c, d], the covariance [d, d] of the residuals, and the loss to expect of a search (`cells.calibrate`)."""

    centroids: Floats
    covariance: Floats
    loss: float = LOSS

    def assign(self, parts: Floats) -> Cells:
        """The nearest centroid's cell [n] of parts [n, d]."""
        index = faiss.IndexFlatL2(self.centroids.shape[1])
        index.add(self.centroids)
        found: Cells = index.search(np.ascontiguousarray(parts, np.float32), 1)[1][:, 0].astype(np.uint16)
        return found

    @classmethod
    def single(cls, width: int) -> "Coarse":
        """One cell of everything: nothing can be left out."""
        return cls(np.zeros((1, width), np.float32), np.eye(width, dtype=np.float32))


def fit(parts: Floats, seed: int = 0) -> Coarse:
    """Cells of a population [n, d]: a power of two near 1.5 sqrt(n), MOST at most."""
    n, width = parts.shape
    if n == 0:
        return Coarse.single(width)
    parts = np.ascontiguousarray(parts, np.float32)
    count = min(n, MOST, 1 << round(math.log2(1.5 * math.sqrt(n))))
    means = faiss.Kmeans(width, count, niter=12, seed=seed + 1, min_points_per_centroid=1)
    means.train(parts)
    centroids = np.asarray(means.centroids, np.float32)
    cells = Coarse(centroids, np.eye(width, dtype=np.float32))
    residual = parts - centroids[cells.assign(parts)]
    return Coarse(centroids, (residual.T @ residual / n).astype(np.float32))
