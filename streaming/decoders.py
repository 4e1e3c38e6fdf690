"""Compiled decoders made from the schemas: a body that one takes is valid by its schema, what it refuses is looked at again.

A decoder parses and validates in one step in C. It may only accept: what it does not take (also fields that the schema does
not name, escapes that could be halves of surrogate pairs) goes through `json` and the complete validator, which says what
is wrong with it, if anything is. So a decoder can cost time, never an event.
"""

import json
from collections.abc import Callable
from functools import cache
from importlib import resources
from types import GenericAlias
from typing import Annotated, Any

import msgspec

_BOUNDS = {
    "minLength": "min_length",
    "maxLength": "max_length",
    "minItems": "min_length",
    "maxItems": "max_length",
    "maxProperties": "max_length",
    "pattern": "pattern",
    "minimum": "ge",
    "maximum": "le",
}
_PLAIN = {"string": str, "number": float, "integer": int}
_NOTES = {"$schema", "title", "description"}
_untyped = msgspec.json.Decoder(dict[str, Any]).decode


def schema(kind: str) -> dict[str, Any]:
    """The JSON Schema of a type of events."""
    found: dict[str, Any] = json.loads(resources.files("streaming").joinpath(f"schemas/{kind}.json").read_text())
    return found


def decode(kind: str, body: bytes) -> dict[str, Any] | None:
    """The body's object if it is surely valid by the schema of its type; None: look closer."""
    if b"\\u" in body:
        return None
    try:
        _decoder(kind)(body)
        return _untyped(body)
    except (ValueError, RecursionError):  # msgspec's own errors are ValueErrors too
        return None


@cache
def _decoder(kind: str) -> Callable[[bytes], Any]:
    return msgspec.json.Decoder(_type(schema(kind))).decode


def _type(rules: dict[str, Any]) -> Any:
    """The msgspec type that takes no more than a schema allows; TypeError for a rule that it cannot express."""
    rules = {name: rule for name, rule in rules.items() if name not in _NOTES}
    kind = rules.pop("type")
    if kind == "object" and "additionalProperties" not in rules:
        required = rules.pop("required")
        fields = [
            (name, _type(rule)) if name in required else (name, _type(rule) | msgspec.UnsetType, msgspec.UNSET)
            for name, rule in sorted(rules.pop("properties").items(), key=lambda x: x[0] not in required)
        ]
        if rules:
            raise TypeError(f"a decoder cannot express {sorted(rules)}")
        return msgspec.defstruct("Body", fields, forbid_unknown_fields=True, gc=False)
    found: Any = _PLAIN.get(kind)
    if kind == "object":
        found = GenericAlias(dict, (str, _type(rules.pop("additionalProperties"))))
    elif kind == "array":
        found = GenericAlias(list, (_type(rules.pop("items")),))
    if unknown := rules.keys() - _BOUNDS.keys():
        raise TypeError(f"a decoder cannot express {sorted(unknown)}")
    bounds = {_BOUNDS[name]: bound for name, bound in rules.items()}
    return Annotated[found, msgspec.Meta(**bounds)] if bounds else found
