"""Exact search: the attention's own scores.

Letters: t targets, l behaviours, u units, d width, k retrieved.
"""

import numpy as np

from model.search.kernel import Best
from model.search.keys import Floats, Keys, Rows
from model.search.units import Units


def plain(folded: Floats, keys: Keys, k: int) -> tuple[Rows, Floats]:
    """The definition: places [t, min(k, l)] and scores, in no order, from all scores [t, l] of folded queries [t, d]."""
    vectors = keys.items.take(keys.item_rows)
    vectors += keys.queries.take(keys.query_rows)
    scores = folded @ vectors.T
    scores += keys.bias
    if len(keys) <= k:
        return np.broadcast_to(np.arange(len(keys), dtype=np.int32), scores.shape), scores
    places = np.argpartition(scores, len(keys) - k, 1)[:, -k:]
    return places.astype(np.int32), np.take_along_axis(scores, places, 1)


def search(folded: Floats, units: Units, k: int) -> tuple[Rows, Floats]:
    """The same, of each distinct part once, and without writing all scores down."""
    best = Best(units.behaviours, units.query_scores(folded), k)
    best.offer(units.search_scores(folded), len(units.items))
    best.offer(folded @ units.keys.items.take(units.items).T, 0)
    return best.result()
