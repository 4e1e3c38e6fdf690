"""CHECK: a figure, its limit, and whether it applies; what the gate, the quality of history and health are made of."""

from collections.abc import Iterable, Mapping
from math import isnan
from typing import Any

Check = dict[str, Any]
"""name, value, limit, at ("least" or "most"), applies, passed, why (it does not apply, or failed without a figure)."""


def check(name: str, value: float | None, limit: float, why: str = "", *, most: bool = False) -> Check:
    """Hold a value against a limit. why: the reason for which the check does not apply; "" when it does.

    One that does not apply passes; one that should have a value and has none does not.
    """
    value = None if value is None or isnan(value) else value
    passed = bool(why) or (value is not None and (value <= limit if most else value >= limit))
    return {
        "name": name,
        "value": value,
        "limit": round(limit, 4),
        "at": "most" if most else "least",
        "applies": not why,
        "passed": passed,
        "why": why,
    }


def failure(name: str, limit: float, why: str) -> Check:
    """A check that failed without a figure, and why."""
    return check(name, None, limit) | {"why": why}


def missed(checks: Iterable[Mapping[str, Any]]) -> str:
    """The checks that did not pass, with figures and limits; "" when all did."""
    return ", ".join(f"{x['name']} {x['why'] or _short(x['value'])} (limit {x['limit']})" for x in checks if not x["passed"])


def _short(value: float | None) -> str:
    return "without a figure" if value is None else f"{value:.4g}"
