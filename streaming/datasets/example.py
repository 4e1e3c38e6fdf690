"""A made-up shop as two CSV files, for whom there are no data at hand: users with a taste that searches and clicks show."""

import csv
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

from features.errors import SeminarError

BEGIN = datetime(2024, 1, 1, tzinfo=UTC)
DAYS = 90
KINDS = (
    "espresso beans",
    "green tea",
    "running shoes",
    "rain jacket",
    "desk lamp",
    "office chair",
    "garden hose",
    "flower seeds",
    "board game",
    "jigsaw puzzle",
    "cat food",
    "dog leash",
)
BRANDS = ("Alder", "Birch", "Cedar", "Dogwood", "Elm")
ADJECTIVES = ("small", "large", "classic", "light", "strong", "soft", "bright", "simple")
PER_KIND = 25


def write(folder: Path, users: int = 150, seed: int = 0) -> dict[str, int]:
    """Write events.csv and items.csv into a folder; rows by file. A user comes back to few kinds, brands and items."""
    folder.mkdir(parents=True, exist_ok=True)
    if any((folder / f"{name}.csv").exists() for name in ("events", "items")):
        raise SeminarError("DIR", folder, "has such files already", "name an empty folder")
    draw = random.Random(seed)
    items = [(f"{kind[:3]}-{i}", kind, BRANDS[i % len(BRANDS)], i) for kind in KINDS for i in range(PER_KIND)]
    with (folder / "items.csv").open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["item_id", "title", "category", "brand", "size"])
        for item, kind, brand, i in items:
            title = f"{ADJECTIVES[i % len(ADJECTIVES)]} {kind}, {brand}"
            out.writerow([item, title, kind, brand, ("S", "M", "L")[i % 3]])
    count = 0
    with (folder / "events.csv").open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["user_id", "timestamp", "item_id", "query", "dwell_s"])
        for user in range(users):
            for row in _visits(draw, f"user-{user}", items):
                out.writerow(row)
                count += 1
    return {"events": count, "items": len(items)}


def _visits(draw: random.Random, user: str, items: list[tuple[str, str, str, int]]) -> list[list[str]]:
    kinds, brand = draw.sample(KINDS, 3), draw.choice(BRANDS)
    favourites = {kind: draw.sample([x for x in items if x[1] == kind], 4) for kind in kinds}
    found = []
    for day in sorted(draw.sample(range(DAYS), draw.randint(15, 45))):
        moment = BEGIN + timedelta(days=day, hours=draw.randint(7, 22), seconds=draw.randint(0, 3599))
        kind = draw.choices([*kinds, draw.choice(KINDS)], (5, 3, 2, 1))[0]
        of_kind = [x for x in items if x[1] == kind]
        wanted = [x for x in of_kind if x[2] == brand] or of_kind
        query = kind if draw.random() < 0.5 else ""
        if query:
            found.append([user, moment.isoformat(), "", query, ""])
        for _ in range(draw.randint(1, 3)):
            moment += timedelta(seconds=draw.randint(5, 120))
            pool = draw.choices((favourites.get(kind, wanted), wanted, of_kind), (6, 3, 2))[0]
            found.append([user, moment.isoformat(), draw.choice(pool)[0], query, str(draw.randint(3, 300))])
    return found
