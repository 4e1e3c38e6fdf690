"""Where to begin reading topics: `earliest`, a while back, or a time; the one parser of `--from`."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from kafka import TopicPartition

from features.errors import SeminarError
from streaming import offsets

_UNITS_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_REMEDY = "write earliest, last=90m (s, m, h or d) or ts=2024-05-01T12:00:00Z"


@dataclass(frozen=True)
class Position:
    """A place in every partition: the first message whose Kafka timestamp is `time_ms` or later; None: the earliest."""

    time_ms: int | None = None


def parse_from(text: str, now_ms: int) -> Position:
    """The position that `earliest | last=90m|1h|2d | ts=RFC3339` names; SeminarError for anything else.

    `now_ms`: what `last=` counts back from, ms since the epoch. A time without a zone is UTC.
    """
    kind, _, value = text.strip().partition("=")
    if kind == "earliest" and not value:
        return Position()
    if kind == "last":
        if not (found := re.fullmatch(r"(\d{1,9})([smhd])", value)):
            raise SeminarError("from", text, "names no span of time", _REMEDY)
        return Position(max(0, now_ms - int(found[1]) * _UNITS_MS[found[2]]))
    if kind == "ts":
        try:
            moment = datetime.fromisoformat(value)
            time_ms = int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
        except (ValueError, OverflowError) as error:
            raise SeminarError("from", text, "is no RFC 3339 time", _REMEDY) from error
        if time_ms < 0:
            raise SeminarError("from", text, "is before 1970", _REMEDY)
        return Position(time_ms)
    raise SeminarError("from", text, "is no position", _REMEDY)


def start_offsets(consumer: Any, partitions: Iterable[TopicPartition], position: Position) -> dict[TopicPartition, int]:
    """The first offset of each partition at a position; the end offset where nothing is as late as that.

    Where retention has removed what lay there, the first offset that is left. The times are those of the messages in
    Kafka (a producer's clock, unless the topic says otherwise), not those of the events.
    """
    wanted = list(partitions)
    if position.time_ms is None:
        return offsets.first(consumer, wanted)
    found = offsets.since(consumer, wanted, position.time_ms)
    return offsets.end(consumer, (p for p in wanted if p not in found)) | found
