"""The catalogue as the page searches it: items by words of their title, category or brand, the popular ones first."""

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from features.history import read_items
from features.record import query_text, unsigned
from model.bundle import Table

PERIOD_S = 60.0
"""How long a read of the catalogue holds."""
_COLUMNS = ("item", "item_id", "title", "category", "brand")


class Catalogue:
    """History's items, read when they are asked for; safe for threads."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._lock = threading.Lock()
        self._due, self._rows, self._text = 0.0, pa.table({}), pa.chunked_array([[""]])

    def find(self, words: str, most: int, bundle: Table | None) -> dict[str, Any]:
        """Items that have all the words, the most popular first (as of the bundle's export; without a bundle: by name).

        {"items": [{"item", "title", "category", "brand", "scored": whether the bundle knows it}], "found", "of"}
        """
        rows, text = self._read()
        for word in query_text(words).split():
            kept = pc.match_substring(text, word)
            rows, text = rows.filter(kept), text.filter(kept)
        place = np.zeros(len(rows), np.int64)
        if bundle is not None and len(rows):
            place = np.maximum(bundle.rows(np.array([unsigned(i) for i in rows["item"].to_pylist()], np.uint64)), 0)
        popular = np.zeros(len(rows)) if bundle is None else bundle.popularity[place].max(1)
        order = np.argsort(-popular, kind="stable")[:most]
        chosen = rows.take(pa.array(order)).select([name for name in _COLUMNS if name in rows.column_names]).to_pylist()
        items = [
            {
                "item": row["item_id"],
                "title": row["title"],
                "category": row["category"],
                "brand": row["brand"],
                "scored": known,
            }
            for row, known in zip(chosen, (place[order] > 0).tolist(), strict=True)
        ]
        return {"items": items, "found": len(rows), "of": len(self._rows)}

    def _read(self) -> tuple[pa.Table, pa.ChunkedArray]:
        with self._lock:
            if time.monotonic() >= self._due:
                rows = read_items(self._home).select(list(_COLUMNS)).sort_by("item_id")
                words = [pc.fill_null(rows[name], "") for name in ("title", "category", "brand")]
                self._rows, self._text = rows, pc.utf8_lower(pc.binary_join_element_wise(*words, " "))
                self._due = time.monotonic() + PERIOD_S
            return self._rows, self._text
