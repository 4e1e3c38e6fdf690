"""Redrive: dead letters through the same `apply` again, as they came or repaired; one that is applied is taken back.

A letter stays where it is until its event is in history and online; a crash in between repeats it, which changes nothing.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from features.errors import SeminarError
from features.online import Online
from streaming.apply import Applier
from streaming.deadletters import Letter
from streaming.events import Invalid, Message
from streaming.importer import structured

BATCH = 1_000


class Box(Protocol):
    """Where letters are kept."""

    def remove(self, keys: Iterable[str]) -> None:
        """Take letters back; returns when that is safe."""


class _Refused:
    """The sink of a redrive: a message that is still no valid event has its letter already."""

    def __init__(self) -> None:
        self.found: dict[int, Invalid] = {}

    def send(self, rejected: Sequence[tuple[Message, Invalid]]) -> None:
        self.found |= {id(message): invalid for message, invalid in rejected}


def redrive(
    letters: Sequence[tuple[Letter, Box]], online: Online, home: Path, repaired: Mapping[str, Message] | None = None
) -> dict[str, Any]:
    """Apply letters; those in `repaired` (by the letter's key) as the message given there.

    Returns redriven (letters that are applied now and taken back) and refused: [{key, field, value, reason}].
    """
    sink, fixed = _Refused(), repaired or {}
    applier = Applier(online, home, sink)
    whole = [(letter, box) for letter, box in letters if letter.key in fixed or not letter.truncated_from]
    refused = [
        {"key": x.key, "field": "body", "value": f"{x.truncated_from} bytes", "reason": "was too large to be kept whole"}
        for x, _ in letters
        if x.truncated_from and x.key not in fixed
    ]
    redriven = 0
    for start in range(0, len(whole), BATCH):
        chunk = whole[start : start + BATCH]
        messages = [fixed.get(letter.key, letter.message) for letter, _ in chunk]
        applier.apply(messages)
        done: dict[int, tuple[Box, list[str]]] = {}
        for message, (letter, box) in zip(messages, chunk, strict=True):
            if invalid := sink.found.get(id(message)):
                found = {"field": invalid.field, "value": invalid.value, "reason": invalid.reason}
                refused.append({"key": letter.key, **found})
            else:
                done.setdefault(id(box), (box, []))[1].append(letter.key)
        for box, keys in done.values():
            box.remove(keys)
            redriven += len(keys)
    return {"redriven": redriven, "refused": refused}


def write_letters(letters: Iterable[Letter], file: Path) -> int:
    """Write letters to be repaired, a line each: `key`, `reason` and the event (`type`, `source`, `id`, `time`, `data`)."""
    count = 0
    with file.open("w") as lines:
        for letter in letters:
            count += 1
            names = ("type", "source", "id", "time")
            event = {name: letter.message.headers.get(f"ce_{name}", b"").decode(errors="replace") for name in names}
            body = (letter.message.value or b"").decode(errors="replace")
            try:
                data = json.loads(body)
            except (ValueError, RecursionError):
                data = body
            why = {"key": letter.key, "field": letter.field, "reason": letter.reason}
            lines.write(json.dumps({**why, **event, "data": data}, ensure_ascii=True) + "\n")
    return count


def read_repaired(file: Path, letters: Iterable[Letter]) -> Iterator[tuple[str, Message]]:
    """(key, message with the letter's origin) of each line of a repaired file; SeminarError: a line without its letter."""
    if not file.is_file():
        raise SeminarError("FILE", file, "is no file", "write one with `seminar deadletters --out FILE`, and repair it")
    known = {letter.key: letter for letter in letters}
    for number, line in enumerate(file.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        try:
            key = str(json.loads(line)["key"])
        except (ValueError, RecursionError, TypeError, KeyError):
            raise SeminarError(f"{file}:{number}", line[:80], "has no `key`", "keep each letter's key on its line") from None
        if key not in known:
            raise SeminarError(f"{file}:{number} key", key, "is no dead letter (any more)", "remove the line")
        origin = known[key].message
        yield key, structured(line, origin.topic, origin.partition, origin.offset)
