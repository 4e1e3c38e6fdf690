"""Attention of targets over places of a history, in compiled code: `attend.c` where it was built, else `attend_portable`.

Letters: n targets (c of each of t moments), l behaviours, m rows of places (t, or n), k places, h heads, d width, b gap
buckets. Vectors [.., d] hold heads innermost. A target touches only the k rows that it attends to; its k weights are kept
for the gradient.
"""

import ctypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from model.built import built
from model.nn import attend_portable

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
LANES, WIDEST = 8, 256
"""Floats of a register of `attend.c`, and the widest vectors that it takes."""
_POINTERS = (
    *("q", "keys", "values", "bias", "time", "kind", "now", "edges", "places", "codes"),
    *("out", "mass", "weights", "d_out", "d_mass", "d_q", "d_keys", "d_values", "d_bias"),
)


class _Work(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in _POINTERS),
        *((name, ctypes.c_int64) for name in ("b", "kinds", "l", "c", "k", "share", "d", "h")),
    ]


class Given(NamedTuple):
    """q [n, d] (scaled), keys, values [l, d]; biases [b, kinds, h]; time (ms), kind [l]; now [t]; edges [b - 1] of gaps.

    places [m, k]: -1 from where there are no more.
    """

    q: Floats
    keys: Floats
    values: Floats
    bias: Floats
    time: Ints
    kind: Ints
    now: Ints
    edges: Ints
    places: NDArray[np.int32]


class Found(NamedTuple):
    """out [n, d]; mass [n, h], the log of 1 + the sum of exp(logits); weights [n, k, h]; codes [m, k] of gap and kind."""

    out: Floats
    mass: Floats
    weights: Floats
    codes: NDArray[np.uint8]


class Slopes(NamedTuple):
    """Gradients in q [n, d], keys and values [l, d], biases [b, kinds, h]."""

    q: Floats
    keys: Floats
    values: Floats
    bias: Floats


def library() -> ctypes.CDLL | None:
    """The compiled code, or None where it was not built."""
    return built("model.nn._attend")


def attend(given: Given) -> Found:
    """Attend every target over its places; a null behaviour of logit 0 and value 0 takes part."""
    (n, d), k, h = given.q.shape, given.places.shape[1], given.bias.shape[2]
    out, mass, weights = (np.empty(shape, np.float32) for shape in ((n, d), (n, h), (n, k, h)))
    found = Found(out, mass, weights, np.empty(given.places.shape, np.uint8))
    bias, compiled = _biases(given), _compiled(given)
    if compiled is None:
        c, kinds = n // max(len(given.now), 1), given.bias.shape[1]
        told = c, *given[:3], bias, *given[4:8], kinds, given.places, found.codes, *found[:3]
        _each(lambda first, last: attend_portable.attend(first, last, *told), n)
    else:
        work = _work(given, found, bias=bias)
        _each(lambda first, last: _checked(compiled.attend(ctypes.byref(work), _long(first), _long(last))), n)
    return found


def attend_backward(given: Given, found: Found, d_out: Floats, d_mass: Floats) -> Slopes:
    """The gradient of `attend`, from those in out [n, d] and mass [n, h]."""
    bias, compiled, d_q = _biases(given), _compiled(given), np.empty_like(given.q)

    def run(first: int, last: int) -> list[Floats]:
        sums = [np.zeros_like(x) for x in (given.keys, given.values, bias)]
        if compiled is None:
            told = *given[:3], given.places, found.codes, found.weights, d_out, d_mass, d_q, *sums
            attend_portable.attend_backward(first, last, *told)
        else:
            slopes = dict(zip(_POINTERS[-6:], (d_out, d_mass, d_q, *sums), strict=True))
            work = _work(given, found, bias=bias, **slopes)
            _checked(compiled.attend_backward(ctypes.byref(work), _long(first), _long(last)))
        return sums

    keys, values, biases = (sum(x[1:], x[0]) for x in zip(*_each(run, len(d_q)), strict=True))
    return Slopes(d_q, keys, values, biases[:, : given.bias.shape[2]].reshape(given.bias.shape))


def _compiled(given: Given) -> ctypes.CDLL | None:
    d, h = given.q.shape[1], given.bias.shape[2]
    return library() if LANES % h == 0 and d % LANES == 0 and d <= WIDEST else None


def _biases(given: Given) -> Floats:
    """Biases by code, [b kinds, h]; for the compiled code as often as a register has room for."""
    flat = given.bias.reshape(-1, given.bias.shape[2])
    return np.ascontiguousarray(flat if _compiled(given) is None else np.tile(flat, (1, LANES // flat.shape[1])))


def _work(given: Given, found: Found, **more: Floats) -> _Work:
    arrays = {**given._asdict(), **found._asdict(), **more}
    (n, d), (m, k), (b, kinds, h) = given.q.shape, given.places.shape, given.bias.shape
    sizes = b, kinds, len(given.keys), n // max(len(given.now), 1), k, n // max(m, 1), d, h
    return _Work(*(arrays[name].ctypes.data if name in arrays else None for name in _POINTERS), *sizes)


def _checked(failed: int) -> None:
    if failed:
        raise MemoryError


_long = ctypes.c_long


@lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "attend")


def _each(run: Callable[[int, int], Any], n: int) -> list[Any]:
    """Run over stretches of n targets, one a thread of torch's; a few targets are not worth a thread."""
    threads = torch.get_num_threads()
    if threads == 1 or n < 256:
        return [run(0, n)]
    cuts = np.linspace(0, n, threads + 1).astype(int).tolist()
    return list(_pool(threads).map(run, cuts[:-1], cuts[1:]))
