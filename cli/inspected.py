"""What the inspect page shows of the parts that the scorer cannot know: the stream and its dead letters."""

from typing import Any

from features.errors import SeminarError
from features.online import Online
from features.settings import settings

UNNAMED = "none is named (KAFKA_BOOTSTRAP_SERVERS)"
LETTERS = 200
"""Dead letters that are shown, the newest of each place."""


def stream() -> dict[str, Any]:
    """`streaming.status.look`; with `broker` saying why where the broker that is named is away."""
    from streaming.status import look

    home, bootstrap = settings().home, settings().bootstrap_servers
    if bootstrap is None:
        return look(Online(), home, None) | {"broker": f"{UNNAMED}: lag is as members last said"}
    try:
        return look(Online(), home, bootstrap) | {"broker": bootstrap}
    except SeminarError as away:
        return look(Online(), home, None) | {"broker": str(away)}


def letters() -> dict[str, Any]:
    """The newest dead letters of imports and of the stream, and how often each reason comes among all.

    missing: why those of the stream, which are in Kafka, are not among them; null where they are.
    """
    from collections import Counter

    from streaming.deadletters import letters_in_file, letters_in_kafka

    bootstrap = settings().bootstrap_servers
    found, away = letters_in_file(settings().home), None if bootstrap else UNNAMED
    try:
        found += letters_in_kafka(bootstrap) if bootstrap else []
    except SeminarError as error:
        away = str(error)
    reasons = Counter((x.field, x.reason) for x in found)
    rows = [{name: x.as_dict()[name] for name in ("origin", "field", "value", "reason")} for x in found[-LETTERS:]]
    counted = [{"field": field, "reason": reason, "count": n} for (field, reason), n in reasons.most_common(50)]
    return {"count": len(found), "reasons": counted, "newest": rows[::-1], "missing": away}


OUTSIDE = {"stream": stream, "letters": letters}
"""Sections of the page's health by name."""
