"""Which changes of a schema refuse what was valid before: what a producer that knows the earlier schema may still send."""

from collections.abc import Iterator
from typing import Any

_UPPER = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
_LOWER = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_KNOWN = {
    *_UPPER,
    *_LOWER,
    *("type", "enum", "const", "pattern", "required", "properties", "items", "additionalProperties"),
}
_WORDS = {"$schema", "$id", "title", "description", "examples", "default"}


def incompatible(old: Any, new: Any, at: str = "data") -> Iterator[str]:
    """What a value that fits `old` may break in `new`, a line each. Fields that are not named are always allowed.

    A keyword that is not known here and differs counts as incompatible: better a question than a silent refusal.
    """
    if old == new or new is True:
        return
    if new is False or not isinstance(new, dict) or not isinstance(old, dict):
        yield f"{at}: allowed before, and not now"
        return
    if lost := _types(old) - _types(new):
        yield f"{at}: type {'/'.join(sorted(lost))} is no longer allowed"
    if "const" in new and old.get("const") != new["const"]:
        yield f"{at}: const"
    if "enum" in new and not ("enum" in old and set(map(repr, old["enum"])) <= set(map(repr, new["enum"]))):
        yield f"{at}: enum is narrower"
    for name in _UPPER:
        if name in new and not (name in old and old[name] <= new[name]):
            yield f"{at}: {name} is lower"
    for name in _LOWER:
        if name in new and not (name in old and old[name] >= new[name]):
            yield f"{at}: {name} is higher"
    if "pattern" in new and old.get("pattern") != new["pattern"]:
        yield f"{at}: pattern differs"  # whether one pattern allows all that another does is not to be decided in general
    for name in set(new.get("required", ())) - set(old.get("required", ())):
        yield f"{at}.{name}: is now required"
    yield from _fields(old, new, at)
    for name in ("items", "additionalProperties"):
        if name in new:
            yield from incompatible(old.get(name, {}), new[name], f"{at}.{name}")
    for name in new.keys() - _KNOWN - _WORDS:
        if old.get(name) != new[name]:
            yield f"{at}: {name} is new or differs"


def _fields(old: dict[str, Any], new: dict[str, Any], at: str) -> Iterator[str]:
    before, now = old.get("properties", {}), new.get("properties", {})
    for name in before:
        if name not in now:
            yield f"{at}.{name}: is no longer named, so what it means is lost"
        else:
            yield from incompatible(before[name], now[name], f"{at}.{name}")
    for name in now.keys() - before.keys():
        # A producer may have sent the field already, with anything in it: only its absence is sure to fit.
        if name in new.get("required", ()):
            yield f"{at}.{name}: is new and required"


def _types(schema: dict[str, Any]) -> set[str]:
    given = schema.get("type", ["null", "boolean", "number", "string", "array", "object"])
    found = {given} if isinstance(given, str) else set(given)
    return found | ({"integer"} if "number" in found else set())
