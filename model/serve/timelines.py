"""What the page shows of a user: which users there are, a timeline of all behaviours, their names, online against history.

Letters: l behaviours of a user.
"""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.dataset as ds

from features import history, snapshot
from features.fences import fences
from features.online import Online
from features.record import KIND_SEARCH, Records, canonical_order

Sequence = tuple[Records, int]
"""Records [l] in canonical order, and the fence (ms)."""
ROWS = 500_000
"""Rows of history that are looked at for names of users: a look, no scan."""


def users(home: Path, begins: str, most: int) -> dict[str, Any]:
    """Users whose id begins so, those with most rows first, among the first `ROWS` such rows of history.

    {"users": [{"user", "events"}], "rows": rows looked at, "whole": whether these were all of them}
    """
    counts: Counter[str] = Counter()
    wanted = pc.starts_with(ds.field("user_id"), begins) if begins else None

    def take(dataset: ds.Dataset) -> bool:
        counts.clear()
        for batch in dataset.to_batches(columns=["user_id"], filter=wanted):
            for found in batch["user_id"].value_counts().to_pylist():
                counts[found["values"]] += found["counts"]
            if counts.total() >= ROWS:
                return False
        return True

    whole = snapshot.scan(home, history.EVENTS, history.SCHEMAS[history.EVENTS], take)
    found = [{"user": user, "events": count} for user, count in counts.most_common(most)]
    return {"users": found, "rows": counts.total(), "whole": whole}


def timeline(sequence: Sequence, user: str, now_ms: int) -> dict[str, Any]:
    """All behaviours of a user in columns [l], as the scorer sees them.

    {"user", "length", "fence": ms or null, "first", "last": ms or null, "age_s": of the last, "counts": by kind,
    "time": [ms], "kind": [1 search, 2 browse that a search led to, 3 browse without]}
    """
    records, fence = sequence
    times, kinds = records["time"], _kinds(records)
    names = {"searches": 1, "browses after a search": 2, "browses without a search": 3}
    return {
        "user": user,
        "length": len(records),
        "fence": fence or None,
        "first": int(times[0]) if len(times) else None,
        "last": int(times[-1]) if len(times) else None,
        "age_s": round((now_ms - int(times[-1])) / 1000, 1) if len(times) else None,
        "counts": {name: int((kinds == kind).sum()) for name, kind in names.items()},
        "time": times.tolist(),
        "kind": kinds.tolist(),
    }


def _kinds(records: Records) -> Any:
    return np.where(records["kind"] == KIND_SEARCH, 1, np.where(records["query"] != 0, 2, 3)).astype(np.uint8)


def events(online: Online, records: Records, since: int, until: int, most: int) -> dict[str, Any]:
    """The newest `most` of a user's records [l] with since <= time (ms) <= until, named, the newest first.

    {"found": how many there are, "events": [{"time", "kind", "item", "title", "category", "query", "dwell_s"}]}
    """
    begin, end = np.searchsorted(records["time"], since), np.searchsorted(records["time"], until, "right")
    chosen = records[begin:end][::-1][:most]
    items, queries = online.items(chosen["item"].tolist()), online.queries(chosen["query"].tolist())
    rows = [
        {
            "time": int(record["time"]),
            "kind": "search" if record["kind"] == KIND_SEARCH else "browse",
            "item": item["item_id"] if item else None,
            "title": item["title"] if item else None,
            "category": item["category"] if item else None,
            "query": query,
            "dwell_s": int(record["dwell"]),
        }
        for record, item, query in zip(chosen, items, queries, strict=True)
    ]
    return {"found": int(end - begin), "events": rows}


def agreement(sequence: Sequence, home: Path, user: str) -> dict[str, int]:
    """Whether the online store has what history has of a user: records {"online", "history", "lag", "extra"}.

    lag: in history, not online (yet); extra: online, in no file of history. Reads this user's rows of every file.
    """
    served, fence = sequence
    stored = history.read_sequences(home, users=[user])
    kept = stored.of(0) if len(stored.user_ids) else served[:0]
    kept = kept[kept["time"] >= max(fence, fences(home).of(user))]
    both = np.concatenate([served, kept])
    order = canonical_order(both) if len(both) else np.empty(0, np.intp)
    raw = both[order].view("V32")
    shared = int((raw[1:] == raw[:-1]).sum()) if len(raw) else 0
    return {
        "online": len(served),
        "history": len(kept),
        "lag": len(kept) - shared,
        "extra": len(served) - shared,
    }
