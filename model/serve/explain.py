"""Why a candidate got its score: which past behaviours attention took, when, and with what weight."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.online import Online
from features.record import KIND_SEARCH, Records

MOST = 20


def explain(online: Online, records: Records, weights: NDArray[np.float32], candidate: str, now_ms: int) -> dict[str, Any]:
    """The behaviours [k] that a candidate retrieved, the heaviest first, named from Feast.

    weights [h, k]: attention by head. A behaviour's attention is their mean over the heads; what is missing to 1 went to
    the null behaviour ("nothing in the past speaks for it").
    """
    attention = weights.mean(0)
    order = np.argsort(-attention, kind="stable")[:MOST]
    chosen = records[order]
    items = online.items(chosen["item"].tolist())
    queries = online.queries(chosen["query"].tolist())
    behaviours = [
        {
            "kind": "search" if record["kind"] == KIND_SEARCH else "browse",
            "item": item["item_id"] if item else None,
            "title": item["title"] if item else None,
            "query": query,
            "age_s": round((now_ms - int(record["time"])) / 1000),
            "attention": round(float(share), 5),
        }
        for record, item, query, share in zip(chosen, items, queries, attention[order], strict=True)
    ]
    return {
        "candidate": candidate,
        "retrieved": len(records),
        "attention_shown": round(float(attention[order].sum()), 5),
        "attention_total": round(float(attention.sum()), 5),
        "behaviours": behaviours,
    }
