"""What `seminar validate` looks for, as queries over its table of events: a row for each that is not as it should be.

Tables: events (see `streaming.validate`), and what is known besides: known_items(item), known_searches(key, id),
known_impressions(key, id). Every query yields n, place and words.
"""

from dataclasses import dataclass

PASS_FAIL = ("PASS", "FAIL")


@dataclass(frozen=True)
class Query:
    """A check: `rows` selects what is wrong among what `of` counts. `least`: the limit is of what is right, from below."""

    name: str
    of: str
    rows: str
    nothing: str
    note: str = ""
    least: bool = False


_WHO = "'event ' || id || ' of ' || key || ' '"
_ALL = "SELECT count(*) FROM events"
_NO_EVENTS = "there is no valid event"
_LOST_SEARCH = (
    "NOT EXISTS (SELECT 1 FROM events s WHERE s.kind = 'search' AND s.id = b.search AND s.key = b.key)"
    " AND NOT EXISTS (SELECT 1 FROM known_searches k WHERE k.id = b.search AND k.key = b.key)"
)
_LOST_IMPRESSION = (
    "NOT EXISTS (SELECT 1 FROM events s WHERE s.kind = 'impression' AND s.impression = b.impression AND s.key = b.key)"
    " AND NOT EXISTS (SELECT 1 FROM known_impressions k WHERE k.id = b.impression AND k.key = b.key)"
)


def _lost(what: str, column: str, condition: str) -> str:
    name = "id" if what == "search" else column
    other = f"(SELECT any_value(s.key) FROM events s WHERE s.kind = '{what}' AND s.{name} = b.{column})"
    return (
        f"SELECT b.n, b.place, 'event ' || b.id || ' of ' || b.key || ': {column}_id ' || b.{column} ||"
        f" coalesce(' is of user ' || {other}, ' is of no {what}') AS words"
        f" FROM events b WHERE b.kind = 'browse' AND b.{column} IS NOT NULL AND {condition}"
    )


CHECKS = (
    Query(
        "conflicts",
        _ALL,
        f"SELECT n, place, {_WHO} || 'has the source and id of an event with other content' AS words FROM events"
        " SEMI JOIN (SELECT source, id FROM events GROUP BY ALL HAVING count(DISTINCT content) > 1) USING (source, id)",
        _NO_EVENTS,
        "an id names one event: both stay, and both count",
    ),
    Query(
        "duplicates",
        _ALL,
        f"SELECT n, place, {_WHO} || 'was there before' AS words FROM events"
        " QUALIFY row_number() OVER (PARTITION BY source, id, content ORDER BY n) > 1",
        _NO_EVENTS,
        "the same event again changes nothing",
    ),
    Query(
        "disorder",
        _ALL,
        f"SELECT n, place, {_WHO} || 'is ' || (latest - time) / 1000 || ' s older than one before it' AS words FROM ("
        " SELECT *, max(time) OVER (PARTITION BY stream, key ORDER BY n ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)"
        " AS latest FROM events) WHERE latest > time",
        _NO_EVENTS,
        "order changes no sequence; much disorder speaks of a wrong clock or a wrong key",
    ),
    Query(
        "ahead",
        _ALL,
        f"SELECT n, place, {_WHO} || 'is ' || (time - coalesce(stamp, now_ms())) / 1000 || ' s ahead of '"
        " || if(stamp IS NULL, 'now', 'Kafka') AS words FROM events WHERE time > coalesce(stamp, now_ms()) + $ahead_ms",
        _NO_EVENTS,
        "a day ahead is refused by the consumer",
    ),
    Query(
        "late",
        "SELECT count(*) FROM events WHERE stamp IS NOT NULL",
        f"SELECT n, place, {_WHO} || 'came ' || (stamp - time) / 1000 || ' s after it happened' AS words FROM events"
        " WHERE stamp > time + $late_ms",
        "a file does not say when Kafka got an event",
        "late events find their place; scores until then did without them",
    ),
    Query(
        "unknown_items",
        "SELECT count(*) FROM events WHERE kind = 'browse'",
        "SELECT b.n, b.place, 'event ' || b.id || ' of ' || b.key || ': item ' || b.item_id || ' was not described' AS words"
        " FROM events b WHERE b.kind = 'browse' AND b.item NOT IN (SELECT item FROM events WHERE kind = 'item')"
        " AND b.item NOT IN (SELECT item FROM known_items)",
        "there is no browse",
        "send an item event for each: without one an item has no content and cannot be scored",
    ),
    Query(
        "lost_searches",
        "SELECT count(*) FROM events WHERE kind = 'browse' AND search IS NOT NULL",
        _lost("search", "search", _LOST_SEARCH),
        "no browse carries a search_id",
    ),
    Query(
        "lost_impressions",
        "SELECT count(*) FROM events WHERE kind = 'browse' AND impression IS NOT NULL",
        _lost("impression", "impression", _LOST_IMPRESSION),
        "no browse carries an impression_id",
    ),
    Query(
        "searched",
        "SELECT count(*) FROM events WHERE kind = 'browse'",
        "SELECT b.n, b.place, 'event ' || b.id || ' of ' || b.key || ' finds no search' AS words FROM events b"
        f" WHERE b.kind = 'browse' AND (b.search IS NULL OR ({_LOST_SEARCH}))",
        "there is no browse",
        "counts the browses that find theirs; others are used without it",
        least=True,
    ),
)
