"""One interface to search, which takes the cheapest way for the size at hand.

Letters: t targets, l behaviours, d width, k retrieved. The sizes below are measured by `seminar bench search`
(docs/results/search.md).
"""

import numpy as np

from features.errors import SeminarError
from model.search import cells, exact, pq
from model.search.codebooks import Codebooks
from model.search.keys import Floats, Keys, Rows
from model.search.units import units

SHORT = 2_000
"""Behaviours up to which writing all scores down is cheapest."""
BREAK_EVEN = 8_000
"""Distinct items from which leaving cells out pays."""
REPEATS = 3
"""Behaviours an item from which scoring parts is no longer what takes the time, so that leaving cells out gains nothing."""
WORTH = 0.25
"""Share of the scores that a plan may leave to do; above it, one matrix product is cheaper."""
METHODS = ("auto", "exact", "cells", "pq")


def search(folded: Floats, keys: Keys, k: int, codebooks: Codebooks | None = None, method: str = "auto") -> Rows:
    """The places [t, min(k, l)] of the behaviours that folded queries [t, d] retrieve, in no order."""
    return scored(folded, keys, k, codebooks, method)[0]


def scored(
    folded: Floats, keys: Keys, k: int, codebooks: Codebooks | None = None, method: str = "auto"
) -> tuple[Rows, Floats]:
    """The same places with their exact scores [t, min(k, l)]."""
    if method not in METHODS or (codebooks is None and method in ("cells", "pq")):
        raise SeminarError("search method", method, "is not known, or needs codebooks", f"use one of {', '.join(METHODS)}")
    if len(keys) <= max(k, SHORT if method == "auto" else 0) or codebooks is None:
        return exact.plain(folded, keys, k)
    if method == "pq":
        return pq.search(folded, units(keys), k, codebooks)
    coarse = codebooks.coarse
    enough = least(len(keys)) if method == "auto" else 0
    found = units(keys, len(coarse.centroids) if method != "exact" else 1, enough)
    if method == "exact" or len(found.items) < enough:
        return exact.search(folded, found, k)
    searches, queries = found.search_scores(folded), found.query_scores(folded)
    plan = cells.plan(folded, found, coarse, k, searches, queries)
    if method == "auto" and plan.work > WORTH:
        return exact.search(folded, found, k)
    return cells.follow(plan, folded, found, k, searches, queries)


def least(behaviours: int) -> int:
    """Distinct items from which leaving cells out is likely to be cheaper than one product with all of them."""
    return max(BREAK_EVEN, behaviours // REPEATS + 1)


def recall(folded: Floats, keys: Keys, k: int, codebooks: Codebooks, method: str = "cells", over: int = pq.OVER) -> float:
    """Share of the exact top k of each target that a search finds; a hit scores the k-th best - 1e-6 at least, exactly."""
    truth = folded @ keys.gather(np.arange(len(keys))).T + keys.bias
    found = (
        pq.search(folded, units(keys), k, codebooks, over) if method == "pq" else scored(folded, keys, k, codebooks, method)
    )
    least = np.partition(truth, len(keys) - k, 1)[:, -k][:, None] if len(keys) > k else -np.inf
    return float((np.take_along_axis(truth, found[0].astype(np.int64), 1) >= least - 1e-6).mean())
