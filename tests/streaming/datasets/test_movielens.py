"""MovieLens 100k as events: whole, deterministic, and no query that singles out a film."""

import itertools
from collections import Counter, defaultdict
from importlib import util

import pytest

from features.errors import SeminarError
from streaming.datasets.dataset import MIN_TYPE, queries
from streaming.datasets.movielens import SITTING_MS, MovieLens
from streaming.events import BROWSE, SEARCH

installed = pytest.mark.skipif(util.find_spec("recbole") is None, reason="`make data` installs recbole")


@installed
def test_it_is_whole() -> None:
    data = MovieLens()
    found = Counter(event.type for event in data.behaviour())
    assert (len(data.users), found[BROWSE], len(list(data.items())), list(data.impressions())) == (943, 100_000, 1_682, [])
    titles = {event.key: event.data for event in data.items()}
    assert (titles["1"]["title"], titles["1"]["category"]) == ("Toy Story", "animation")
    assert all(len(x["attributes"]) <= 6 and x["title"] for x in titles.values())


@installed
def test_a_sample_is_seeded_and_in_order() -> None:
    data = MovieLens(users=40)
    events = list(data.behaviour())
    assert events == list(MovieLens(users=40).behaviour())
    assert MovieLens(users=40, seed=1).users != data.users
    assert max(Counter(event.id for event in events).values()) == 1
    ratings = defaultdict(list)
    for event in events:
        if event.type == BROWSE:
            ratings[event.key].append(event.time_ms)
    assert len(ratings) == 40
    assert all(a <= b for times in ratings.values() for a, b in itertools.pairwise(times))


@installed
def test_queries_are_types_with_ten_films_and_half_of_them_asked() -> None:
    data = MovieLens(users=100)
    events = list(data.behaviour())
    answers = Counter(data.query_of(event.key) for event in data.items())
    searches = {event.id: event for event in events if event.type == SEARCH}
    assert min(answers[event.data["query"]] for event in searches.values()) >= MIN_TYPE
    browses = [event for event in events if event.type == BROWSE]
    led = [event for event in browses if "search_id" in event.data]
    assert 0.4 < len(led) / len(browses) < 0.6
    for event in led:
        search = searches[event.data["search_id"]]
        assert (search.key, search.data["query"]) == (event.key, event.data["query"])
        assert data.query_of(event.data["item_id"]) == event.data["query"]
        assert search.time_ms < event.time_ms
    idle = [search for search in searches.values() if search.id.endswith("-idle")]
    assert idle
    assert not {search.id for search in idle} & {event.data["search_id"] for event in led}
    first = {}
    for event in browses:
        first.setdefault((event.key, event.data.get("search_id")), event.time_ms)
    assert all(
        first[event.key, key] - searches[key].time_ms <= SITTING_MS for event in led if (key := event.data["search_id"])
    )


def test_types_are_counted_over_what_narrower_ones_leave() -> None:
    names = {i: ["red shoe", "shoe"] for i in range(12)} | {100 + i: ["blue shoe", "shoe"] for i in range(9)}
    found = queries(names)
    assert {found[i] for i in range(12)} == {"red shoe"}
    assert not any(100 + i in found for i in range(9))  # nine shoes are left
    assert queries({**names, 200: ["", "shoe"]})[100] == "shoe"


def test_without_the_package_it_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(util, "find_spec", lambda name: None)
    with pytest.raises(SeminarError, match=r"recbole.*--no-deps"):
        MovieLens()
