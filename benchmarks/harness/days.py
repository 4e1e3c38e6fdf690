"""Days of a small shop that can be learned from, and days that nobody should learn from.

Each user likes two of six kinds: on a day it searches one of them, is shown six items, clicks the one it likes and browses
another. `POISONS` are what goes wrong with a day.
"""

import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from streaming.events import BROWSE, IMPRESSION, ITEM, SEARCH, Event, build

DAY_MS = 86_400_000
KINDS = ("milk", "bread", "apples", "coffee", "cheese", "rice")
ITEMS = 10  # of a kind
POISONS = ("empty", "tenfold", "duplicated", "flipped", "unknown", "clocks")
SOURCE = "shop"
SMALL = """[ctr]
baselines = []

[model]
dim = 32
heads = 2
retrieved = 8
recent = 8
encoder = "hashing"

[train]
psu_epochs = 1
psu_targets = 8
targets = 32
lr = 0.01
table_lr = 0.03
"""
"""Settings of a model that such a shop can train in seconds; more of [train], and other tables, may follow."""
LATE_DAYS = 12


def catalogue(time_ms: int) -> list[Event]:
    """An `item` event of everything on sale."""
    return [
        build(
            ITEM,
            {
                "item_id": f"{kind}-{i}",
                "title": f"{kind} number {i}",
                "category": kind,
                "brand": f"brand {i}",
                "attributes": {"product_type": kind},
            },
            time_ms,
            SOURCE,
        )
        for kind in KINDS
        for i in range(ITEMS)
    ]


def day(date_ms: int, users: int = 24, poison: str = "") -> list[Event]:
    """A day's events in order of time; the same for the same date and users."""
    if poison == "empty":
        return []
    rng = np.random.default_rng(date_ms // DAY_MS)
    rounds = 10 if poison == "tenfold" else 1
    found = [
        event for user in range(users) for number in range(rounds) for event in _visit(rng, user, number, date_ms, poison)
    ]
    if poison == "duplicated":  # by a producer that tries again under another id
        found += [build(x.type, x.data, x.time_ms, x.source, f"{x.id}-again") for x in found]
    return sorted(found, key=lambda event: event.time_ms)


def _visit(rng: np.random.Generator, user: int, number: int, date_ms: int, poison: str) -> Iterator[Event]:
    name = f"user-{user}"
    liked = np.random.default_rng(zlib.crc32(name.encode())).choice(len(KINDS), 2, replace=False)
    kind = KINDS[rng.choice(liked)] if rng.random() < 0.9 else KINDS[rng.integers(len(KINDS))]
    now = date_ms + int(rng.integers(8, 20)) * 3_600_000 + int(rng.integers(3_600_000 - 120_000))
    now -= LATE_DAYS * DAY_MS if poison == "clocks" else 0
    mark = f"{name}-{date_ms // DAY_MS}-{number}"
    chosen = [f"{kind}-{int(ITEMS * rng.random() ** 2)}" for _ in range(2)]
    others = [f"{KINDS[rng.integers(len(KINDS))]}-{rng.integers(ITEMS)}" for _ in range(5)]
    shown = list(dict.fromkeys([chosen[0], *others]))
    rng.shuffle(shown)
    if poison == "unknown":
        chosen = [f"{item}-of-another-shop" for item in chosen]

    def event(what: str, offset_ms: int, tag: str, **data: Any) -> Event:
        return build(what, {"user_id": name, **data}, now + offset_ms, SOURCE, f"{mark}-{tag}")

    yield event(SEARCH, 0, "search", query=kind)
    items = [{"item_id": item, "position": i} for i, item in enumerate(shown)]
    yield event(IMPRESSION, 1_000, "shown", impression_id=mark, items=items, query=kind)
    clicked = [item for item in shown if item != chosen[0]] if poison == "flipped" else [chosen[0]]
    for i, item in enumerate(clicked):
        asked = {"query": kind, "search_id": f"{mark}-search", "impression_id": mark}
        yield event(BROWSE, 20_000 + 1_000 * i, f"click-{i}", item_id=item, dwell_s=int(rng.integers(5, 90)), **asked)
    if poison != "flipped":
        yield event(BROWSE, 50_000, "browse", item_id=chosen[1], dwell_s=int(rng.integers(5, 90)), query=kind)
