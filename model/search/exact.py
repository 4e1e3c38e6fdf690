"""Exact search: the attention's own scores.

Letters: t targets, l behaviours, u units, d width, k retrieved.
"""

import numpy as np

from model.search.kernel import Side, padded
from model.search.keys import Floats, Keys, Rows
from model.search.units import Units

BLOCK = 128
"""Targets at a time: what a behaviour is compared with stays in the cache."""


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
    items, found = units.keys.items.take(units.items), []
    for start in range(0, len(folded), BLOCK):
        some = folded[start : start + BLOCK]
        wide = padded(some)
        own = items @ wide, units.search_parts @ wide, units.query_parts @ wide
        found.append(Side(units.behaviours, *own, len(some)).best(k))
    if len(found) == 1:
        return found[0]
    return np.concatenate([places for places, _ in found]), np.concatenate([scores for _, scores in found])
