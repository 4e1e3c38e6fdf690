"""Quantised search: a scan of product-quantisation codes by lookup tables, then an exact rerank of what it retrieved.

Letters: t targets, l behaviours, n coded vectors, s bytes a code, k retrieved. For machines where memory is short: it reads
codes of a few bytes and only the parts that it reranks. `cells` is faster at every size measured.
"""

import numba
import numpy as np
from numpy.typing import NDArray

from model.search.codebooks import Codebooks
from model.search.kernel import Best
from model.search.keys import Codes, Floats, Rows
from model.search.units import Units

OVER = 4
"""The scan retrieves this times k; the rerank keeps k."""


@numba.njit(nogil=True, cache=True)
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


def search(folded: Floats, units: Units, k: int, codebooks: Codebooks, over: int = OVER) -> tuple[Rows, Floats]:
    """The places [t, min(k, l)] that the scan ranks first and exact scores of folded queries [t, d] confirm; the scores."""
    keys = units.keys
    item_tables, query_tables = codebooks.item.tables(folded), codebooks.query.tables(folded)
    queries = np.zeros((len(folded), 1 + len(units.queries)), np.float32)
    queries[:, 1:] = scan(query_tables, keys.queries.codes(units.queries))
    none = scan(item_tables, keys.items.codes(np.zeros(1, np.int32)))
    best = Best(units.behaviours, queries, min(over * k, len(keys)))
    best.offer(scan(query_tables, keys.queries.codes(units.searches)) + none, len(units.items))
    best.offer(scan(item_tables, keys.items.codes(units.items)), 0)
    found = best.result()[0]
    exact = np.einsum("td,tkd->tk", folded, keys.gather(found), optimize=True) + keys.bias[found]
    if found.shape[1] <= k:
        return found, exact
    kept = np.argpartition(exact, found.shape[1] - k, 1)[:, -k:]
    return np.take_along_axis(found, kept, 1), np.take_along_axis(exact, kept, 1)
