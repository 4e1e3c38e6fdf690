"""The click model's two heads for serving: one user and moment, in few products, without what differs for no candidate.

Letters: c candidates, d width, h heads, p plain features, w width of a first layer. The same numbers as
`ClickModel.combine` of `evidence`, up to the order of sums; gradients are theirs alone.
"""

from typing import Any

import numpy as np
from torch import Tensor, nn

from model.nn.click import ClickModel
from model.nn.features import PLAIN, Floats
from model.nn.folded import Attended

_LEAST = np.float32(1e-8)
"""The least norm in a cosine, as torch has it."""


class Head:
    """One `ClickModel`'s heads: the first layers are one matrix for plain features, and one for each kind of vector."""

    def __init__(self, model: ClickModel) -> None:
        self._mean, self._spread = _own(model.mean), _own(model.spread)
        (first, *self._deep), (wide, *self._wide) = _layers(model.head), _layers(model.wide)
        self._hidden, p = len(first[1]), len(self._mean)
        vectors = np.split(first[0][:-p], 6)  # of long, recent, item, query, long * item, recent * item
        self._query = vectors.pop(3)
        self._vectors = np.concatenate(vectors)
        unread = np.zeros((p - PLAIN, wide[0].shape[1]), np.float32)  # the wide head reads the last, plain features alone
        self._plain = np.concatenate([first[0][-p:], np.concatenate([unread, wide[0]])], 1)
        self._bias = np.concatenate([first[1], wide[1]])
        catalogue, shown = ((np.array([0, 1], np.float32) - self._mean[-1]) / self._spread[-1]).clip(-8, 8)
        self._shown = (shown - catalogue) * self._plain[-1]  # what it adds that candidates are shown

    def __call__(
        self,
        long: Attended,
        recent: Attended,
        item: Floats,
        query: Floats,
        alike: Floats,
        searched: bool,
        counted: Floats,
        popularity: Floats,
        about: Floats,
        bias: Floats,
    ) -> Floats:
        """Log-odds [2, c] of candidates from the catalogue and of the same as a list that is shown (SAMPLED, IMPRESSED).

        item [c, d] and query [1, d] parts; alike [c, 33 s]: tiers, or no column; counted [c, 18], popularity [c, 5]; about:
        context [1, 6]; bias [c]: the items' own.
        """
        same = np.append(about[0], np.array([searched, 0], np.float32))
        same = np.broadcast_to(same, (len(item), len(same)))
        plain = np.concatenate([long.mass, recent.mass, _cosine(item, query), alike, counted, popularity, same], 1)
        plain = ((plain - self._mean) / self._spread).clip(-8, 8)
        first = plain @ self._plain + self._bias
        vectors = [long.vector, recent.vector, item, long.vector * item, recent.vector * item]
        first[:, : self._hidden] += np.concatenate(vectors, 1) @ self._vectors + query @ self._query
        first = _silu(np.stack([first, first + self._shown]))
        odds: Floats = _rest(first[..., : self._hidden], self._deep) + _rest(first[..., self._hidden :], self._wide) + bias
        return odds


def _own(tensor: Tensor) -> Floats:
    return np.ascontiguousarray(tensor.detach().numpy())


def _layers(head: nn.Sequential) -> list[tuple[Floats, Floats]]:
    """Weights [in, out] and bias [out] of the linear layers."""
    return [(_own(layer.weight.T), _own(layer.bias)) for layer in head if isinstance(layer, nn.Linear)]


def _rest(hidden: Floats, layers: list[tuple[Floats, Floats]]) -> Any:
    """The layers after the first, of its activations [2, c, w], to one number [2, c]."""
    (weight, bias), (out, last) = layers
    return (_silu(hidden @ weight + bias) @ out + last)[..., 0]


def _silu(x: Floats) -> Floats:
    with np.errstate(over="ignore"):  # of what is far below zero nothing is left, as it should be
        found: Floats = x / (1 + np.exp(-x))
    return found


def _cosine(item: Floats, query: Floats) -> Floats:
    """Cosines [c, 1] of item parts [c, d] and a query part [1, d]."""
    norms = [np.maximum(np.linalg.norm(x, axis=1, keepdims=True), _LEAST) for x in (item, query)]
    found: Floats = item @ query.T / (norms[0] * norms[1])
    return found
