"""The online features as this project uses them: deltas in, sequences and entity rows out, through Feast.

Views and provider are held once: looking them up in the registry costs milliseconds on each call.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
from feast import FeatureView
from feast.errors import FeatureServiceNotFoundException
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value

from features.errors import SeminarError
from features.record import RECORD, Records, decode, encode, signed
from features.repository import open_store
from features.rows import text_of

SEQUENCE, ITEM, QUERY, STATE = "user_sequence", "item_content", "query_text", "stream_state"
_TICK = timedelta(microseconds=1)
_KEYS = {ITEM: "item", QUERY: "query"}


class Online:
    """Reads and writes of the home's online store; safe for threads."""

    def __init__(self) -> None:
        store = open_store()
        self._config = store.config
        self._provider = store._get_provider()
        self._store: Any = self._provider.online_store
        self._feast = store
        names = (SEQUENCE, ITEM, QUERY, STATE)
        self._views: dict[str, FeatureView] = {name: store.get_feature_view(name) for name in names}

    def service(self, name: str) -> list[str]:
        """The views of a registered feature service; SeminarError where there is none."""
        try:
            found = self._feast.get_feature_service(name)
        except FeatureServiceNotFoundException:
            raise SeminarError("feature service", name, "is not registered", "run `seminar apply`") from None
        return [projection.name for projection in found.feature_view_projections]

    def append(self, deltas: Mapping[str, Records], fences: Mapping[str, int] | None = None) -> None:
        """Add records [n] to each user's set; one atomic step a user, all or nothing where the store can.

        fences: ms by user; what a user's row holds or gets that is older is dropped, now and later.
        """
        now, given = datetime.now(UTC), fences or {}
        rows = [
            (
                _user(user),
                {"sequence": Value(bytes_val=encode(delta, given.get(user, 0)))},
                now,
                None,
            )
            for user, delta in deltas.items()
        ]
        if rows:
            self._provider.online_write_batch(self._config, self._views[SEQUENCE], rows, None)

    def forget(self, user: str, fence: int) -> None:
        """Replace a user's sequence by a fence (ms), atomically."""
        self.append({user: np.empty(0, RECORD)}, {user: fence})

    def delete_queries(self, ids: Sequence[int]) -> None:
        """Remove query texts by their unsigned ids."""
        keys = [_key("query", Value(int64_val=signed(i))) for i in ids]
        if keys:
            self._store.delete_rows(self._config, self._views[QUERY], keys)

    def purge(self) -> None:
        """Let no file of the store hold what was deleted from it."""
        self._store.purge(self._config)

    def sequences(self, users: Sequence[str]) -> list[tuple[Records, int] | None]:
        """(records [n] canonical, fence) of each user; None for one never seen."""
        keys = [_user(user) for user in users]
        found = self._read(SEQUENCE, keys)
        return [decode(row["sequence"].bytes_val) if row else None for row in found]

    def sequence(self, user: str) -> tuple[Records, int] | None:
        """(records [n] canonical, fence) of one user; None for one never seen."""
        return self.sequences([user])[0]

    def users(self) -> set[str]:
        """Every user of whom the store has a row, if only a fence. It looks at all keys: seconds for a million users."""
        return {text_of(self._config, key) for key in self._store.keys(self._config, self._views[SEQUENCE])}

    def write_items(self, rows: pa.Table) -> None:
        """Overwrite item rows (schema of history.ITEMS)."""
        self._write(ITEM, "item", rows)

    def write_queries(self, rows: pa.Table) -> None:
        """Overwrite query rows (schema of history.QUERIES)."""
        self._write(QUERY, "query", rows)

    def items(self, ids: Sequence[int]) -> list[dict[str, Any] | None]:
        """Content of items by their unsigned ids; None for one that the store does not know."""
        return [row[1] if row else None for row in self.dated(ITEM, ids)]

    def queries(self, ids: Sequence[int]) -> list[str | None]:
        """Texts of queries by their unsigned ids."""
        return [row[1]["text"] if row else None for row in self.dated(QUERY, ids)]

    def dated(self, view: str, ids: Sequence[int]) -> list[tuple[datetime, dict[str, Any]] | None]:
        """(time of the event, content) of items or queries (the view) by their unsigned ids; None for one not known."""
        found = []
        for start in range(0, len(ids), 500):  # SQLite limits the parameters of one statement
            keys = [_key(_KEYS[view], Value(int64_val=signed(int(i)))) for i in ids[start : start + 500]]
            found += self._provider.online_read(self._config, self._views[view], keys)
        return [(time, {name: _plain(x) for name, x in row.items()}) if row else None for time, row in found]

    def write_states(self, rows: Mapping[str, tuple[str, int, int]]) -> None:
        """Overwrite rows (text, offset, time in ms) of the stream's state."""
        now, keys = datetime.now(UTC), [_key("stream", Value(string_val=name)) for name in rows]
        before = self._provider.online_read(self._config, self._views[STATE], keys) if keys else []
        batch = [
            (
                key,
                {"text": _value(text), "offset": Value(int64_val=offset), "time_ms": Value(int64_val=time_ms)},
                # Later than the row that it replaces, also where that one's writer has a clock that is ahead of ours.
                max(now, time.replace(tzinfo=UTC) + _TICK) if time else now,
                None,
            )
            for key, (time, _), (text, offset, time_ms) in zip(keys, before, rows.values(), strict=True)
        ]
        if batch:
            self._provider.online_write_batch(self._config, self._views[STATE], batch, None)

    def states(self, names: Sequence[str]) -> list[tuple[str, int, int] | None]:
        """(text, offset, time in ms) of rows of the stream's state; None for one that is not there."""
        keys = [_key("stream", Value(string_val=name)) for name in names]
        found = self._read(STATE, keys)
        return [
            (row["text"].string_val, row["offset"].int64_val, row["time_ms"].int64_val) if row else None for row in found
        ]

    def _read(self, view: str, keys: list[EntityKey]) -> list[dict[str, Value] | None]:
        if not keys:
            return []
        return [row for _, row in self._provider.online_read(self._config, self._views[view], keys)]

    def _write(self, view: str, join_key: str, rows: pa.Table) -> None:
        names = [field.name for field in self._views[view].features]
        batch = [
            (
                _key(join_key, Value(int64_val=row[join_key])),
                {name: _value(row[name]) for name in names},
                row["event_timestamp"],
                None,
            )
            for row in rows.select([join_key, "event_timestamp", *names]).to_pylist()
        ]
        if batch:
            self._provider.online_write_batch(self._config, self._views[view], batch, None)


def _key(name: str, value: Value) -> EntityKey:
    return EntityKey(join_keys=[name], entity_values=[value])


@lru_cache(maxsize=1 << 14)
def _user(user: str) -> EntityKey:
    return _key("user_id", Value(string_val=user))


def _value(value: str | bytes | None) -> Value:
    if value is None:
        return Value()
    return Value(bytes_val=value) if isinstance(value, bytes) else Value(string_val=value)


def _plain(value: Value) -> str | bytes | int | None:
    kind = value.WhichOneof("val")
    found: str | bytes | int | None = getattr(value, kind) if kind else None
    return found
