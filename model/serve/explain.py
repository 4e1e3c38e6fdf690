"""Why a candidate got its score: which past behaviours attention took, by what of them, and the score without them.

Letters: k retrieved, m modalities, h heads, d width.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from features.record import KIND_SEARCH, Records, entity_id
from model.bundle import Bundle
from model.nn.modalities import ItemEncoder
from model.search.keys import Floats
from model.serve.answers import Behaviour, Explanation
from model.serve.entities import Entities
from model.serve.scoring import Scored, Scoring
from model.serve.store import Store

MOST = 20
"""Behaviours that are shown, the heaviest first."""


class Explainer:
    """Explains one bundle's scores."""

    def __init__(self, bundle: Bundle, store: Store, entities: Entities, scoring: Scoring) -> None:
        self._bundle, self._store, self._entities, self._scoring = bundle, store, entities, scoring

    def __call__(
        self, key: str, place: int, records: Records, scored: Scored, *, query: str | None, time_ms: int, method: str
    ) -> Explanation:
        """One candidate (its key, and its place among those scored) after records [l].

        A behaviour's attention is its weight summed over the heads and divided by their number, so that all sum to 1 with
        what the null behaviour took ("nothing in the past speaks for it").
        """
        places = scored.places[place]
        places = places[places >= 0]
        attention = scored.weights[place][: len(places)].mean(1)
        ids = np.array([entity_id(key)], np.uint64)
        without = self._scoring(np.delete(records, places), ids, query, time_ms, method)
        found: Explanation = {
            "candidate": key,
            "rate": float(scored.rates[place]) if scored.known[place] else None,
            "rate_without": float(without.rates[0]) if without.known[0] else None,
            "retrieved": len(places),
            "attention_shown": 0.0,
            "attention_total": round(float(attention.sum()), 5),
            "behaviours": [],
        }
        order = np.argsort(-attention, kind="stable")[:MOST]
        try:
            found["behaviours"] = self._named(records[places[order]], attention[order], scored, place, time_ms)
            found["attention_shown"] = round(float(attention[order].sum()), 5)
        except Exception as error:  # names are no reason to lose the rates
            found["error"] = f"{type(error).__name__}: {error}"
        return found

    def _named(self, chosen: Records, attention: Floats, scored: Scored, place: int, now: int) -> list[Behaviour]:
        items = self._store.ask(self._store.online.items, chosen["item"].tolist())
        queries = self._store.ask(self._store.online.queries, chosen["query"].tolist())
        shares = self.shares(chosen, items, scored.folded[place])
        return [
            {
                "kind": "search" if record["kind"] == KIND_SEARCH else "browse",
                "item": item["item_id"] if item else None,
                "title": item["title"] if item else None,
                "query": query,
                "time": datetime.fromtimestamp(int(record["time"]) / 1000, UTC).isoformat(),
                "age_s": round((now - int(record["time"])) / 1000),
                "attention": round(float(weight), 5),
                "modalities": share,
            }
            for record, item, query, weight, share in zip(chosen, items, queries, attention, shares, strict=True)
        ]

    def shares(self, chosen: Records, items: Sequence[dict[str, Any] | None], folded: Floats) -> list[dict[str, float]]:
        """The share of each modality and of the query in what matches a candidate's folded query [d], of behaviours [k].

        A key is a sum: of the gated vector of each modality of the item, and of the query. The logit is the sum of their
        inner products with the folded query; a share is the part of one in the sum of their absolute values.
        """
        parts = self.match(chosen, items, folded)
        total = np.abs(parts).sum(1, keepdims=True)
        names = (*ItemEncoder.modalities, "query")
        found = np.abs(parts) / np.where(total > 0, total, 1)
        return [{name: round(float(x), 4) for name, x in zip(names, row, strict=True) if x > 0} for row in found]

    def match(self, chosen: Records, items: Sequence[dict[str, Any] | None], folded: Floats) -> NDArray[np.float32]:
        """Inner products [k, m + 1] of a folded query [d] with what a behaviour's key is the sum of; the last: the query."""
        vocabulary = self._bundle.vocabulary
        rows = self._bundle.items.rows(np.ascontiguousarray(chosen["item"]))
        queries = self._entities.queries(None, np.ascontiguousarray(chosen["query"]))
        words = queries.parts.take(queries.rows[0]) @ folded
        encoder = self._bundle.model.backbone.items
        with torch.inference_mode():
            inputs = self._entities.inputs(list(items), vocabulary[np.maximum(rows, 0)].astype(np.int64))
            vectors, present = encoder.modality_vectors(inputs)
            gates = encoder.gates(vectors, present) * present.sum(1, keepdim=True)
            by_modality = (torch.einsum("nm,nmd->nmd", gates, vectors) @ torch.from_numpy(folded)).numpy()
        by_modality[chosen["item"] == 0] = 0  # a search has no item
        return np.concatenate([by_modality, words[:, None]], 1).astype(np.float32)
