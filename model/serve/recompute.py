"""Logged requests recomputed from history alone: does what was served follow from what is on record?

Sequences, contents of unknown items and words of unknown queries come from history's files, scores from the bundle that
the answer named. What was read online is known by its digest: where history gives the same records, rates must be the
same; where it does not (events were applied late, or lost), the difference says what that cost. Contents have
no digest: an answer is left out if one that it needs came after it.
"""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features import requests
from features.errors import SeminarError
from features.fences import fences
from features.history import EVENTS, ITEMS, QUERIES, milliseconds, newest_items, one_of_each, read, read_entities
from features.publish import path
from features.record import Records, entity_id, signed, union, unsigned
from features.requests import Logged, digest
from features.sequences import packed
from model import bundle
from model.serve.entities import Entities
from model.serve.kept import KEEP_S
from model.serve.scoring import Scoring
from model.serve.store import until

T = TypeVar("T")
SAME = 1e-5
"""Rates may differ by this much where the same records were read."""


def recompute(home: Path, since_ms: int = 0, most: int = 1_000) -> dict[str, Any]:
    """Recompute the newest `most` logged requests since a moment.

    {"requests", "recomputed", "same_records", "max_difference", "max_difference_same_records", "worst", "left_out": {reason:
    how many}}; left out are answers that were made without the store, of bundles that are gone, and from before contents.
    """
    wanted = sorted(requests.read(home, since_ms), key=lambda found: found.scored_ms)[-most:]
    left_out: Counter[str] = Counter()
    chosen = []
    for found in wanted:
        if any(reason.startswith("store") for reason in found.degraded):
            left_out["the store was away"] += 1
        else:
            chosen.append(found)
    past = _Past(home, {found.user for found in chosen})
    differences: list[tuple[float, bool, Logged]] = []
    for version in sorted({found.version for found in chosen}):
        mine = [found for found in chosen if found.version == version]
        try:
            loaded = bundle.load(path(home / "bundles", version))
        except SeminarError:
            left_out[f"bundle {version} is gone"] += len(mine)
            continue
        history = _History(home)
        scoring = Scoring(loaded, Entities(loaded, history))
        for found in mine:
            records, same = past.of(found)
            ids = np.array([entity_id(key) for key in found.candidates], np.uint64)
            scored = scoring(records, ids, found.query, found.time_ms, found.method)
            if history.came(*scored.items.cold.tolist(), *scored.queries.cold.tolist()) > found.scored_ms - KEEP_S * 1000:
                left_out["contents came after the answer"] += 1
                continue
            rates = [rate if ok else None for rate, ok in zip(scored.rates.tolist(), scored.known.tolist(), strict=True)]
            differences.append((difference(found.rates, rates), same, found))
    worst = max(differences, key=lambda x: x[0], default=None)
    return {
        "requests": len(wanted),
        "recomputed": len(differences),
        "same_records": sum(same for _, same, _ in differences),
        "max_difference": max((x for x, _, _ in differences), default=0.0),
        "max_difference_same_records": max((x for x, same, _ in differences if same), default=0.0),
        "worst": None
        if worst is None
        else {"user": worst[2].user, "version": worst[2].version, "scored_ms": worst[2].scored_ms, "same_records": worst[1]},
        "left_out": dict(left_out),
    }


def difference(served: Sequence[float | None], computed: Sequence[float | None]) -> float:
    """The greatest difference of two answers' rates; 1 where only one of them has a rate."""
    pairs = zip(served, computed, strict=True)
    return max((float((a is None) != (b is None)) if a is None or b is None else abs(a - b) for a, b in pairs), default=0.0)


class _Past:
    """History's records of some users, with when each came."""

    def __init__(self, home: Path, users: Collection[str]) -> None:
        rows = read(home, EVENTS, users=users, columns=["user_id", "sequence", "arrived"])
        self._fences = fences(home)
        self._users = np.array(rows["user_id"].to_pylist(), object)
        column = rows["sequence"].combine_chunks()
        self._records = packed(column.chunk(0) if isinstance(column, pa.ChunkedArray) else column)
        self._arrived: NDArray[np.int64] = milliseconds(rows["arrived"]) if len(rows) else np.empty(0, np.int64)

    def of(self, found: Logged) -> tuple[Records, bool]:
        """The records [l] of a request, and whether they are those that were read online.

        What had come by then, or else all that counts by now: a store that was rebuilt has it before it came again.
        """
        mine = self._users == found.user
        for came in (self._arrived <= found.scored_ms, True):
            records = until(union(self._records[mine & came], fence=self._fences.of(found.user)), found.time_ms)
            if digest(records) == found.digest:
                return records, True
        return records, False


class _History:
    """History in place of the online store, as far as `Entities` asks one, and when what it told came."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._came: dict[int, float] = {}
        self.online = self

    def contents(self, read: Callable[[Sequence[int]], list[T]], ids: Sequence[int]) -> tuple[list[T], str]:
        """Read at once."""
        return read(ids), ""

    def items(self, ids: Sequence[int]) -> list[dict[str, Any] | None]:
        """The newest content of items by their unsigned ids."""
        found = newest_items(read_entities(self._home, ITEMS, [signed(int(i)) for i in ids]))
        rows = {unsigned(row["item"]): row for row in found.to_pylist()}
        self._came.update((i, row["arrived"].timestamp() * 1000) for i, row in rows.items())
        return [rows.get(int(i)) for i in ids]

    def queries(self, ids: Sequence[int]) -> list[str | None]:
        """Texts of queries by their unsigned ids."""
        found = one_of_each(
            read_entities(self._home, QUERIES, [signed(int(i)) for i in ids]), ["query"], ("arrived",), last=False
        )
        rows = {unsigned(row["query"]): row for row in found.to_pylist()}
        self._came.update((i, row["arrived"].timestamp() * 1000) for i, row in rows.items())
        return [rows[int(i)]["text"] if int(i) in rows else None for i in ids]

    def came(self, *ids: int) -> float:
        """When the last of what was told of these ids came (ms since 1970); 0 where nothing was."""
        return max((self._came.get(i, 0.0) for i in ids), default=0.0)
