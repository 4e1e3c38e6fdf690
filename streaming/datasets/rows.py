"""Rows of files as they were written, each with its line, and how a row becomes a message that says where it came from."""

import csv
import gzip
import json
import math
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from features.errors import SeminarError
from streaming.events import END_MS, Event, Invalid, Message, build, key_field

MILLISECONDS_FROM = 100_000_000_000
"""A number of at least this much is a time in ms, a smaller one in s: 1973 and the year 5138."""
UNDASHED = {4: "%Y", 6: "%Y%m", 8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
"""How a date reads without dashes, by its number of digits; seconds of our time have 10, ms 13."""
TIME_REMEDY = "write RFC 3339 (2024-05-01T09:30:00Z), or seconds or ms since 1970"

Row = dict[str, Any]
Numbered = Iterator[tuple[int, Row | Invalid]]
"""Line (a parquet file's: row), from 1, and the row; or what is wrong with the line."""


def problem(field: str, value: object, reason: str, remedy: str) -> Invalid:
    """What is wrong with a row, and what to do."""
    return Invalid(field, value, f"{reason}; {remedy}")


def header(file: Path) -> list[str]:
    """The names of a file's columns; SeminarError where a CSV file's are not separated by commas."""
    if file.suffix != ".csv":
        names: list[str] = open_parquet(file).schema_arrow.names
        return names
    with _open(file) as lines:
        return _names(file, csv.reader(lines, strict=True))


def read_csv(file: Path, required: tuple[str, ...]) -> Numbered:
    """Rows under the header's names; empty fields are left out. SeminarError: the header lacks a required column."""
    with _open(file) as lines:
        reader = csv.reader(lines, strict=True)
        header = _names(file, reader)
        check_header(file, header, required)
        while True:
            line = reader.line_num + 1
            try:
                values = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield line, _no_csv(line, reader.line_num, error)
                continue
            if not values:
                continue
            whole = ",".join(values)
            if not whole.isascii() and (told := _not_utf8(whole)):
                yield line, told
            elif len(values) != len(header):
                reason = f"has {len(values)} fields, the header {len(header)}"
                yield line, problem("line", whole, reason, "quote fields that hold commas")
            else:
                yield line, {name: value for name, value in zip(header, values, strict=True) if value != ""}


def _open(file: Path) -> TextIO:
    return file.open(newline="", encoding="utf-8-sig", errors="surrogateescape")


def _names(file: Path, reader: Iterator[list[str]]) -> list[str]:
    try:
        found = [name.strip() for name in next(reader, [])]
    except csv.Error as error:
        raise SeminarError(f"{file} header", "", f"is no CSV ({error})", "close each quote in its first line") from None
    if len(found) == 1 and any(mark in found[0] for mark in ";\t|"):
        raise SeminarError(f"{file} header", found[0], "is one column", "separate columns by commas")
    return found


def _no_csv(first: int, last: int, error: csv.Error) -> Invalid:
    remedy = "quote fields that hold commas, double quotes inside"
    if last > first:
        return problem("lines", f"{first} to {last}", f"are one quoted field ({error})", f"close the quote, or {remedy}")
    return problem("line", "", f"is no CSV ({error})", remedy)


def _not_utf8(text: str) -> Invalid | None:
    try:
        text.encode()
    except UnicodeEncodeError:
        shown = text.encode(errors="surrogateescape").decode(errors="backslashreplace")
        return problem("line", shown, "is not UTF-8", "save the file as UTF-8")
    return None


def open_parquet(file: Path) -> pq.ParquetFile:
    """A parquet file; SeminarError where it is none, or half of one."""
    try:
        return pq.ParquetFile(file)
    except pa.ArrowInvalid as error:
        raise SeminarError("file", file, f"is no whole parquet file ({error})", "write or copy it again") from None


def read_parquet(file: Path, required: tuple[str, ...]) -> Numbered:
    """Rows of a parquet file; nulls are left out."""
    table = open_parquet(file)
    check_header(file, table.schema_arrow.names, required)
    line = 0
    for batch in table.iter_batches(batch_size=8_192):
        for row in batch.to_pylist():
            line += 1
            yield line, {name: value for name, value in row.items() if value is not None and value != ""}


def read_json_lines(file: Path) -> Numbered:
    """One JSON object a line; a name that ends in .gz is unpacked on the way."""
    with gzip.open(file, "rb") if file.suffix == ".gz" else file.open("rb") as lines:
        for line, raw in enumerate(_whole(file, lines), 1):
            if not raw.strip():
                continue
            try:
                row = json.loads(raw)
            except (ValueError, RecursionError) as error:
                yield line, problem("line", raw[:80], f"is no JSON ({error})", "write one JSON object a line")
                continue
            yield line, row if isinstance(row, dict) else problem("line", raw[:80], "is no JSON object", "write {...}")


def _whole(file: Path, lines: Iterable[bytes]) -> Iterator[bytes]:
    """Lines of a file; SeminarError where what is packed in it breaks off."""
    try:
        yield from lines
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise SeminarError("file", file, f"is no whole gzip file ({error})", "write or copy it again") from None


def check_header(file: Path, header: list[str], required: tuple[str, ...]) -> None:
    """SeminarError where a required column is missing, or one is there twice."""
    for name in required:
        if name not in header:
            found = ", ".join(header) or "nothing"
            raise SeminarError(
                f"{file} column", name, "is missing", f"name the columns in its first line, which has {found}"
            )
    if twice := {name for name in header if header.count(name) > 1}:
        raise SeminarError(f"{file} column", ", ".join(sorted(twice)), "is there twice", "rename or drop one")


def moment(field: str, value: object) -> int:
    """A time as ms: of a text (RFC 3339, UTC where it has no zone), a datetime, or a number of s or ms; else Invalid."""
    if isinstance(value, datetime):
        found = value
    else:
        try:
            number = float(str(value))
        except ValueError:
            number = math.nan
        if math.isfinite(number):
            if _undashed(number):
                raise problem(field, value, "is a date without dashes", TIME_REMEDY)
            return _bounded(field, value, round(number if abs(number) >= MILLISECONDS_FROM else number * 1000))
        try:
            found = datetime.fromisoformat(str(value).strip())
        except ValueError:
            raise problem(field, value, "is no time", TIME_REMEDY) from None
    return _bounded(field, value, round((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1000))


def _undashed(number: float) -> bool:
    digits = f"{number:.0f}"
    try:
        return len(digits) in UNDASHED and 1900 <= datetime.strptime(digits, UNDASHED[len(digits)]).year < 2100
    except ValueError:
        return False


def _bounded(field: str, value: object, time_ms: int) -> int:
    if not 0 <= time_ms < END_MS:
        raise problem(field, value, "is not between the years 1970 and 9999", TIME_REMEDY)
    return time_ms


def needed(row: Row, field: str) -> Any:
    """A row's field, which must be there; else Invalid."""
    if row.get(field) is None:
        raise problem(field, "", "is empty", "fill it in, or drop the row")
    return row[field]


def number(row: Row, field: str) -> float:
    """A row's field as a number; else Invalid."""
    try:
        return float(needed(row, field))
    except (TypeError, ValueError):
        raise problem(field, row[field], "is no number", "write digits, with a point for decimals") from None


def event(kind: str, data: Mapping[str, Any], time_ms: int, source: str, event_id: str | None = None) -> Event:
    """`build`, for data of a row; Invalid with what to do."""
    try:
        return build(kind, dict(data), time_ms, source, event_id)
    except Invalid as bad:
        raise problem(bad.field, bad.value, bad.reason, "correct the row") from None


def messages(topic: str, rows: Numbered, kind: str, make: Callable[[Row], Iterator[Event]]) -> Iterator[Message]:
    """The messages of a file's rows, of origin (topic, 0, line - 1).

    A row that makes no event becomes a message that says why, with the row as its body: `apply` sets it aside as a dead
    letter of that line, `validate` counts it.
    """
    for line, row in rows:
        try:
            if isinstance(row, Invalid):
                raise row
            for made in make(row):
                yield made.message(topic, 0, line - 1)
        except Invalid as bad:
            yield refused(topic, line, {} if isinstance(row, Invalid) else row, kind, bad)


def refused(topic: str, line: int, row: Row, kind: str, bad: Invalid) -> Message:
    """The message of a row that makes no event."""
    headers = {"ce_type": f"seminar.{kind}.v1".encode(), "ce_source": topic.encode(errors="replace")}
    body = json.dumps(row or {"line": bad.value}, default=str).encode()
    key = str(row.get(key_field(kind), "")).encode(errors="surrogateescape")
    return Message(topic, 0, line - 1, key, body, headers, problem=bad)
