"""Quantised search: a scan of codes by lookup tables, then an exact rerank of what the scan retrieved.

Letters: t targets, l behaviours, n coded vectors, s bytes a code, k retrieved.
"""

import numba
import numpy as np
from numpy.typing import NDArray

from model.search.codebooks import Codebooks, Codes, Floats
from model.search.exact import Ints, Keys, best, spread

OVER = 4
"""The scan retrieves this times k; the rerank keeps k."""


@numba.njit(cache=True, fastmath=False)
def _scan(tables: Floats, codes: Codes, out: Floats) -> None:
    for t in range(tables.shape[0]):
        table = tables[t]
        for n in range(codes.shape[0]):
            total = np.float32(0)
            for s in range(codes.shape[1]):
                total += table[s, codes[n, s]]
            out[t, n] = total


def scan(tables: Floats, codes: Codes) -> Floats:
    """Scores [t, n] of codes [n, s] under tables [t, s, 256], compiled."""
    out = np.empty((len(tables), len(codes)), np.float32)
    _scan(tables, np.ascontiguousarray(codes), out)
    return out


def scan_portable(tables: Floats, codes: Codes) -> Floats:
    """The same scores by the definition, in numpy."""
    entries: NDArray[np.float32] = tables[:, np.arange(codes.shape[1]), codes]
    scores: Floats = entries.sum(2, dtype=np.float32)
    return scores


def search(folded: Floats, keys: Keys, k: int, codebooks: Codebooks, over: int = OVER) -> Ints:
    """The places [t, min(k, l)] that the scan ranks first and exact scores confirm, for folded queries [t, d]."""
    if keys.item_codes is None or keys.query_codes is None:
        raise ValueError("keys have no codes; encode them with the same codebooks")
    items = scan(codebooks.item.tables(folded), keys.item_codes)
    queries = scan(codebooks.query.tables(folded), keys.query_codes)
    found = best(spread(items, queries, keys), over * k)
    if found.shape[1] <= k:
        return found
    exact = np.einsum("td,tkd->tk", folded, keys.gather(found), optimize=True) + keys.bias[found]
    return np.take_along_axis(found, best(exact, k), 1)
