"""Exact search: the attention's own scores of every behaviour.

Letters: t targets, l behaviours, i distinct items and q distinct queries of the history, d width, k retrieved.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Keys:
    """A history to search. Row 0 of the parts stands for "no item" and "no query"; a key is the sum of its two parts.

    item_parts [i, d], item_rows [l], query_parts [q, d], query_rows [l], bias [l] of time gap and kind; codes [i, s] and
    [q, s] of the same rows where a quantised search is to be used.
    """

    item_parts: Floats
    item_rows: Ints
    query_parts: Floats
    query_rows: Ints
    bias: Floats
    item_codes: NDArray[np.uint8] | None = None
    query_codes: NDArray[np.uint8] | None = None

    def gather(self, rows: Ints) -> Floats:
        """Keys [..., d] of behaviours (any shape)."""
        return self.item_parts[self.item_rows[rows]] + self.query_parts[self.query_rows[rows]]


def spread(item_scores: Floats, query_scores: Floats, keys: Keys) -> Floats:
    """Scores [t, l] of behaviours from scores [t, i] and [t, q] of their parts: what repeats was scored once."""
    scores = item_scores[:, keys.item_rows]
    scores += query_scores[:, keys.query_rows]
    scores += keys.bias
    return scores


def best(scores: Floats, k: int) -> Ints:
    """The places [t, min(k, l)] of the best scores [t, l], in no order."""
    if scores.shape[1] <= k:
        return np.broadcast_to(np.arange(scores.shape[1]), scores.shape)
    return np.argpartition(scores, scores.shape[1] - k, axis=1)[:, -k:]


def search(folded: Floats, keys: Keys, k: int) -> Ints:
    """The places [t, min(k, l)] with the highest score under folded queries [t, d]."""
    return best(spread(folded @ keys.item_parts.T, folded @ keys.query_parts.T, keys), k)
