"""What the model's parts hand each other: behaviours, what a moment sees of them, encoded parts, what attention found.

Letters: l behaviours of all users of a step, one user after another; t moments; c candidates of a moment; i distinct items
and q distinct queries; h heads; d width; k places retrieved. No user has a dimension: a moment sees the stretch [begin, end)
of the behaviours, so users of any length lie side by side without padding, and moments of one user share its stretch.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class History(NamedTuple):
    """Behaviours, each user's in order of time: rows of the step's parts (0: none), ms, kinds; all [l]."""

    item: Tensor
    query: Tensor
    time: Tensor
    kind: Tensor


class Seen(NamedTuple):
    """What moments see: behaviours [begin, end) as of now (ms); all [t]. Moments of one user stand together."""

    begin: Tensor
    end: Tensor
    now: Tensor

    @classmethod
    def of_one(cls, prefix: Tensor, now: Tensor) -> "Seen":
        """Moments of one user, whose first `prefix` [t] behaviours they see."""
        return cls(torch.zeros_like(prefix), prefix, now)


class Frozen(NamedTuple):
    """What search units of peers read of items and queries: types [1 + i] (-1: none) and frozen unit vectors of texts
    [1 + i, w] and [1 + q, w], zeros where there is none. Row 0: none."""

    type: Tensor
    text: Tensor
    query_text: Tensor


class Parts(NamedTuple):
    """Encoded once a step: item parts [1 + i, d] (row 0: a search, no item), query parts [1 + q, d] (row 0: none).

    modalities [i, m, d]: what each modality says of the items, of `ItemEncoder.modalities`; without a gradient.
    """

    item: Tensor
    query: Tensor
    frozen: Frozen | None = None
    modalities: Tensor | None = None


class Targets(NamedTuple):
    """Candidates: vectors [t, c, d] (item part + query part), rows [t, c] of the item and query parts."""

    vector: Tensor
    item: Tensor
    query: Tensor


class Interest(NamedTuple):
    """What attention found: interest [t, c, d]; mass [t, c, h]; weights [t, c, h, k] of the places it attended to."""

    vector: Tensor
    mass: Tensor
    weights: Tensor
