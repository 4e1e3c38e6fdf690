"""One interface to search, which takes the cheaper way for the size at hand."""

import numpy as np

from model.search import exact, pq
from model.search.codebooks import Codebooks, Floats
from model.search.exact import Ints, Keys

BREAK_EVEN = 20_000
"""Distinct items and queries of a history from which the scan pays. Provisional: `benchmarks/` will measure it."""

METHODS = ("auto", "exact", "pq")


def search(folded: Floats, keys: Keys, k: int, codebooks: Codebooks | None = None, method: str = "auto") -> Ints:
    """The places [t, min(k, l)] of the behaviours that folded queries [t, d] retrieve.

    A matrix product over distinct parts beats a scan of codes until a history has very many of them.
    """
    coded = codebooks is not None and keys.item_codes is not None
    if method == "auto":
        method = "pq" if coded and len(keys.item_parts) + len(keys.query_parts) >= BREAK_EVEN else "exact"
    if method == "exact":
        return exact.search(folded, keys, k)
    if method == "pq" and codebooks is not None:
        return pq.search(folded, keys, k, codebooks)
    raise ValueError(f"search method {method!r} is none of {METHODS}, or needs codebooks")


def recall(folded: Floats, keys: Keys, k: int, codebooks: Codebooks, over: int = pq.OVER) -> float:
    """Share of the exact top k of each target that the quantised search finds (ties at the k-th score count as found)."""
    truth = exact.spread(folded @ keys.item_parts.T, folded @ keys.query_parts.T, keys)
    found = pq.search(folded, keys, k, codebooks, over)
    least = np.sort(truth, 1)[:, -found.shape[1]][:, None]
    return float((np.take_along_axis(truth, found, 1) >= least - 1e-6).mean())
