"""What a data set is: a small adapter that says its items, its users' behaviour and what they were shown, as events."""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from streaming.events import Event, Message

Key = TypeVar("Key")
MIN_TYPE = 10
"""Items that a constructed query must answer with at least: none singles out its item."""


class DataSet(Protocol):
    """Yields events; or messages, where a row's file and line are its origin, also of rows that make no event."""

    @property
    def name(self) -> str:
        """Of the import: history and dead letters say `import:<name>/...` as the origin."""

    @property
    def notice(self) -> str:
        """What is real and what is constructed, to be quoted wherever results are shown."""

    def items(self) -> Iterator[Event | Message]:
        """The catalogue."""

    def behaviour(self) -> Iterator[Event | Message]:
        """Searches and browses; a browse names the query that led to it."""

    def impressions(self) -> Iterator[Event | Message]:
        """What was shown; nothing where the data do not say, and labels are then sampled negatives."""


def name_of(folder: Path) -> str:
    """The name of an import of a folder: two folders of one base name are two origins, wherever they are named from."""
    path = folder.resolve()
    return f"{path.name}-{hashlib.blake2b(os.fsencode(path), digest_size=4).hexdigest()}"


def queries(names: Mapping[Key, Sequence[str]]) -> dict[Key, str]:
    """The words with which each item would be searched, of its names from narrow to wide; none where there are none.

    The first that `MIN_TYPE` items share which no narrower words cover: counted over what remains, because a category of
    which one item remains would name that item.
    """
    found: dict[Key, str] = {}
    for level in range(max(map(len, names.values()), default=0)):
        texts = {item: wide[level] for item, wide in names.items() if item not in found and level < len(wide)}
        answers = Counter(texts.values())
        found |= {item: text for item, text in texts.items() if text and answers[text] >= MIN_TYPE}
    return found


def words(name: str | None) -> str:
    """Lower-case words of a catalogue name: letters only, no sizes or codes."""
    return " ".join(w for w in re.sub(r"[^a-z]+", " ", (name or "").lower()).split() if len(w) > 1)


def coin(*parts: object) -> float:
    """A number in [0, 1) drawn by these parts: the same in every run and process."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=6).digest()
    return int.from_bytes(digest, "little") / 2**48
