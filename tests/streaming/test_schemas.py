"""Schemas stay compatible with what producers know: copies of the published ones, and one event of each type.

After a compatible change run `python -m tests.streaming.test_schemas`, which renews the copies. An incompatible one needs a
type of its own (`seminar.<type>.v2`) beside the first.
"""

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import streaming
from streaming.events import TYPES, parse
from streaming.importer import read_jsonl

from .schema_changes import incompatible

NOW = Path(streaming.__file__).parent / "schemas"
GOLDEN = Path(__file__).parent.parent / "golden"


@pytest.mark.parametrize("kind", TYPES)
def test_a_schema_takes_what_the_published_one_took(kind: str) -> None:
    published, now = (json.loads((folder / f"{kind}.json").read_text()) for folder in (GOLDEN / "schemas", NOW))
    assert list(incompatible(published, now)) == []
    assert published == now, "compatible, and not yet published: renew the copy (see the head of this file)"


def test_every_type_has_its_files() -> None:
    for folder in (NOW, GOLDEN / "schemas"):
        assert sorted(file.stem for file in folder.iterdir()) == sorted(TYPES)
    assert sorted(file.stem for file in (GOLDEN / "events").iterdir()) == sorted(TYPES)


@pytest.mark.parametrize("kind", TYPES)
def test_events_of_then_are_valid_now(kind: str) -> None:
    """The smallest and the fullest event of the type."""
    messages = list(read_jsonl(GOLDEN / "events" / f"{kind}.jsonl"))
    assert len(messages) >= 2
    for message in messages:
        event = parse(message)
        assert event.type == kind
        assert dict(event.headers())["ce_time"] == message.headers["ce_time"]


BASE: dict[str, Any] = {
    "type": "object",
    "required": ["a"],
    "properties": {
        "a": {"type": "string", "minLength": 1, "maxLength": 9, "pattern": "x"},
        "n": {"type": ["number", "null"], "minimum": 0, "maximum": 5},
        "e": {"enum": ["one", "two"]},
        "l": {"type": "array", "minItems": 1, "maxItems": 3, "items": {"type": "object", "required": ["p"]}},
        "m": {"type": "object", "maxProperties": 4, "additionalProperties": {"type": "string", "maxLength": 5}},
        "free": {},
    },
}


def at(*path: str, **changes: Any) -> Callable[[dict[str, Any]], None]:
    """A change at a path of the schema; None removes a keyword."""

    def change(schema: dict[str, Any]) -> None:
        for name in path:
            schema = schema[name]
        for name, value in changes.items():
            if value is None:
                del schema[name]
            else:
                schema[name] = value

    return change


def changed(change: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    schema = copy.deepcopy(BASE)
    change(schema)
    return schema


P = "properties"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (at(required=["a", "n"]), "data.n: is now required"),
        (lambda s: s.update(required=["a", "z"], properties={**s[P], "z": {}}), "data.z: is now required"),
        (at(P, a=None), "data.a: is no longer named"),
        (at(P, "a", type="number"), "data.a: type string"),
        (at(P, "n", type="number"), "data.n: type null"),
        (at(P, "n", type=["integer", "null"]), "data.n: type number"),
        (at(P, "free", type="string"), "data.free: type"),
        (at(P, "e", enum=["one"]), "data.e: enum"),
        (at(P, "a", enum=["x"]), "data.a: enum"),
        (at(P, "a", const="x"), "data.a: const"),
        (at(P, "a", maxLength=8), "data.a: maxLength"),
        (at(P, "a", minLength=2), "data.a: minLength"),
        (at(P, "n", maximum=4), "data.n: maximum"),
        (at(P, "n", minimum=1), "data.n: minimum"),
        (at(P, "n", exclusiveMaximum=5), "data.n: exclusiveMaximum"),
        (at(P, "n", multipleOf=2), "data.n: multipleOf"),
        (at(P, "l", maxItems=2), "data.l: maxItems"),
        (at(P, "l", minItems=2), "data.l: minItems"),
        (at(P, "l", uniqueItems=True), "data.l: uniqueItems"),
        (at(P, "l", "items", required=["p", "q"]), "data.l.items.q: is now required"),
        (at(P, "l", "items", type="string"), "data.l.items: type object"),
        (at(P, "m", maxProperties=3), "data.m: maxProperties"),
        (at(P, "m", "additionalProperties", maxLength=4), "data.m.additionalProperties: maxLength"),
        (at(P, "m", additionalProperties=False), "data.m.additionalProperties: allowed before"),
        (at(additionalProperties=False), "data.additionalProperties: allowed before"),
        (at(P, "a", pattern="^x$"), "data.a: pattern"),
        (at(P, "free", pattern="x"), "data.free: pattern"),
        (at(P, a=False), "data.a: allowed before"),
        (at(anyOf=[{"required": ["n"]}]), "data: anyOf"),
    ],
)
def test_an_incompatible_change_is_seen(change: Callable[[dict[str, Any]], None], words: str) -> None:
    found = list(incompatible(BASE, changed(change)))
    assert any(line.startswith(words) for line in found), found


@pytest.mark.parametrize(
    "change",
    [
        lambda schema: None,
        at(title="Another", description="words"),
        at(required=None),
        lambda s: s[P].update(z={"type": "string"}),
        at(P, "a", maxLength=10, minLength=0),
        at(P, "a", pattern=None, maxLength=None),
        at(P, "n", minimum=-1, maximum=6),
        at(P, "n", type=["number", "null", "string"]),
        at(P, "n", type=None),
        at(P, "e", enum=["one", "two", "three"]),
        at(P, "e", enum=None),
        at(P, "l", minItems=0, maxItems=4),
        at(P, "l", "items", required=None),
        at(P, "m", additionalProperties=True),
        at(P, a=True),
    ],
)
def test_a_compatible_change_is_tolerated(change: Callable[[dict[str, Any]], None]) -> None:
    assert list(incompatible(BASE, changed(change))) == []


if __name__ == "__main__":
    for file in NOW.iterdir():
        shutil.copy(file, GOLDEN / "schemas" / file.name)
