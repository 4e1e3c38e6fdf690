"""Bulk import: events from files or data sets, without a broker, through the same `Applier` as the stream."""

import json
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from features.errors import SeminarError
from features.online import Online
from streaming.apply import Applied, Applier, DeadLetters
from streaming.events import Event, Message

BATCH = 50_000


def import_events(
    name: str,
    events: Iterable[Event | Message],
    online: Online,
    home: Path,
    deadletters: DeadLetters,
    *,
    batch: int = BATCH,
    on_batch: Callable[[int], Any] = lambda done: None,
) -> Applied:
    """Apply events in batches; their origin is (`import:<name>`, 0, running number), so an import can be repeated."""
    applier, total, offset, stream = Applier(online, home, deadletters), Applied(), 0, iter(events)
    while chunk := list(islice(stream, batch)):
        messages = [x.message(f"import:{name}", 0, offset + i) if isinstance(x, Event) else x for i, x in enumerate(chunk)]
        total += applier.apply(messages)
        offset += len(chunk)
        on_batch(len(chunk))
    return total


def read_jsonl(file: Path) -> Iterator[Message]:
    """Messages from a file with one CloudEvent a line, in structured mode (`type`, `source`, `id`, `time`, `data`).

    A line that is no JSON object becomes a message without headers, which `apply` sets aside as a dead letter.
    """
    if not file.is_file():
        raise SeminarError("FILE", file, "is no file", "name a file with one CloudEvent (JSON) a line")
    with file.open("rb") as lines:
        for number, line in enumerate(lines):
            if text := line.strip():
                yield structured(text, f"import:{file.name}", 0, number)


def structured(line: bytes, topic: str, partition: int, offset: int) -> Message:
    """The message of one CloudEvent in structured mode; without headers where the line is no JSON object."""
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        event = None
    if not isinstance(event, dict):
        return Message(topic, partition, offset, None, line, {})
    data = event.get("data")
    key = None
    if isinstance(data, dict):
        key = data.get("item_id") if str(event.get("type")) == "seminar.item.v1" else data.get("user_id")
    names = [name for name in ("type", "source", "id", "time") if event.get(name) is not None]
    headers = {f"ce_{name}": _bytes(event[name]) for name in names}
    return Message(topic, partition, offset, _bytes(key), json.dumps(data).encode(), headers)


def _bytes(value: object) -> bytes:
    return str(value).encode(errors="surrogatepass")  # not UTF-8 then, which validation refuses
