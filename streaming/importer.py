"""Bulk import: events from files or data sets, without a broker, through the same `Applier` as the stream."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from features.errors import SeminarError
from features.online import Online
from streaming.apply import Applied, Applier, DeadLetters
from streaming.datasets.dataset import DataSet
from streaming.deadletters import FileSink, key_of, letters_in_file
from streaming.events import Event, Invalid, Message

BATCH = 50_000
EXAMPLES = 5


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


@dataclass
class Refusals:
    """Sends on what an import refuses; remembers which letters these were, and the first few in words."""

    sink: FileSink
    keys: set[str] = field(default_factory=set)
    examples: list[str] = field(default_factory=list)
    taken_back: int = 0
    """Letters of an earlier import that are no more."""

    def send(self, rejected: Sequence[tuple[Message, Invalid]]) -> None:
        """Append to the file of dead letters."""
        self.sink.send(rejected)
        for message, invalid in rejected:
            self.keys.add(key_of(message))
            if len(self.examples) < EXAMPLES:
                file = message.topic.removeprefix("import:").rpartition("/")[2]
                self.examples.append(f"{file} line {message.offset + 1}: {invalid}")


def import_dataset(
    data: DataSet, online: Online, home: Path, on_batch: Callable[[int], Any] = lambda done: None
) -> tuple[Applied, Refusals]:
    """Apply a whole data set: catalogue, behaviour, impressions. Dead letters of an earlier import of the same folder
    whose rows are correct now, or no longer there, are taken back.
    """
    refusals, total = Refusals(FileSink(home)), Applied()
    origins: set[str] = set()

    def seen(events: Iterable[Event | Message]) -> Iterator[Event | Message]:
        for x in events:
            if isinstance(x, Message):
                origins.add(x.topic)
            yield x

    for part, events in (("items", data.items()), ("behaviour", data.behaviour()), ("impressions", data.impressions())):
        total += import_events(f"{data.name}/{part}", seen(events), online, home, refusals, on_batch=on_batch)
    former = {letter.key for letter in letters_in_file(home) if letter.message.topic in origins} - refusals.keys
    refusals.sink.remove(sorted(former))
    refusals.taken_back = len(former)
    return total, refusals


def dataset_messages(data: DataSet) -> Iterator[Message]:
    """A data set's messages, as an import would apply them, for `streaming.validate`."""
    for part, events in (("items", data.items()), ("behaviour", data.behaviour()), ("impressions", data.impressions())):
        for i, x in enumerate(events):
            yield x.message(f"import:{data.name}/{part}", 0, i) if isinstance(x, Event) else x


def read_jsonl(file: Path) -> Iterator[Message]:
    """Messages from a file with one CloudEvent a line, in structured mode (`type`, `source`, `id`, `time`, `data`).

    A line that is no JSON object becomes a message without headers, which `apply` sets aside as a dead letter.
    """
    if not file.is_file():
        raise SeminarError(
            "FILE", file, "is no file", "name a file with one CloudEvent (JSON) a line, or of a folder its --format"
        )
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
