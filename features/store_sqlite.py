"""The SQLite online store with a native append for sequence views; every other view falls through to Feast's own.

A Feast row is overwritten as a whole, so an append would be a read, a change and a write, and two writers lose events.
Here a written value of a view tagged `sequence: append` is a delta (features.record): its records are added to the
user's pages inside one write transaction, blindly, and read back as one blob. Feast demands that the class of a SQLite
store is named `...SqliteOnlineStore`.

Tables of a sequence view: `<view>_head` (records, mark, fence of a user) and `<view>_page` (256 records a page).
"""

import sqlite3
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from feast import Entity, FeatureView
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.infra.online_stores.sqlite import SqliteOnlineStore, SqliteOnlineStoreConfig
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.repo_config import RepoConfig

from features.record import CAP, RECORD, decode, encode, is_canonical, normalise

PAGE = 256 * RECORD.itemsize  # 8 KB: an append rewrites one page, whatever the length of the history
SLACK = 1024  # records that a row may grow by before it is looked at; then by half of itself

Row = tuple[EntityKey, dict[str, Value], datetime, datetime | None]


class SequenceSqliteOnlineStoreConfig(SqliteOnlineStoreConfig):  # type: ignore[misc]
    """Feast's SQLite settings and how durable a commit is."""

    type: Literal["features.store_sqlite.SequenceSqliteOnlineStore"] = "features.store_sqlite.SequenceSqliteOnlineStore"
    synchronous: Literal["NORMAL", "FULL"] = "NORMAL"
    """FULL: a commit survives the machine's crash. NORMAL: the process's; what a machine lost is in history."""


def is_sequence(view: FeatureView) -> bool:
    """Whether a view's written values are deltas to append."""
    return bool(view.tags.get("sequence") == "append")


def cap_of(view: FeatureView) -> int:
    """How many newest records of a user the view keeps (its tag `cap`)."""
    return int(view.tags.get("cap", CAP))


class SequenceSqliteOnlineStore(SqliteOnlineStore):  # type: ignore[misc]
    """Feast online store plugin; safe for the threads of one process and for several processes."""

    _conn: sqlite3.Connection | None = None

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._made: set[str] = set()

    def _get_conn(self, config: RepoConfig) -> sqlite3.Connection:
        if self._conn is None:
            connection = sqlite3.connect(
                self._get_db_path(config),
                detect_types=sqlite3.PARSE_DECLTYPES | sqlite3.PARSE_COLNAMES,
                check_same_thread=False,  # one connection for all threads of a process, behind one lock
                timeout=30,
            )
            connection.executescript(
                f"pragma journal_mode=wal; pragma synchronous={config.online_store.synchronous};"
                "pragma mmap_size=1073741824; pragma cache_size=-65536; pragma wal_autocheckpoint=4000;"
            )
            self._conn = connection
        return self._conn

    def _tables(self, config: RepoConfig, view: FeatureView) -> tuple[sqlite3.Connection, str, str]:
        connection, name = self._get_conn(config), f"{config.project}_{view.name}"
        if name not in self._made:
            connection.execute(
                f'create table if not exists "{name}_page"(entity_key blob, page integer, records blob,'
                " primary key(entity_key, page)) without rowid"
            )
            # mark: the length at which the row was last seen canonical, so that repeats cannot grow it for ever
            connection.execute(
                f'create table if not exists "{name}_head"(entity_key blob primary key, records integer,'
                " mark integer, fence integer) without rowid"
            )
            connection.commit()
            self._made.add(name)
        return connection, f'"{name}_head"', f'"{name}_page"'

    def online_write_batch(
        self, config: RepoConfig, table: FeatureView, data: list[Row], progress: Callable[[int], Any] | None
    ) -> None:
        """Append deltas (sequence views) or overwrite rows (others); one transaction for the batch."""
        with self._lock:
            if not is_sequence(table):
                super().online_write_batch(config, table, data, progress)
                return
            connection, head, page = self._tables(config, table)
            feature, cap = table.features[0].name, cap_of(table)
            with connection:
                connection.execute("begin immediate")
                for entity_key, values, _, _ in data:
                    delta, fence = decode(values[feature].bytes_val)
                    self._append(connection, head, page, _key(config, entity_key), delta.tobytes(), fence, cap)
            if progress:
                progress(len(data))

    def _append(
        self, connection: sqlite3.Connection, head: str, page: str, key: bytes, delta: bytes, fence: int, cap: int
    ) -> None:
        row = connection.execute(f"select records, mark, fence from {head} where entity_key = ?", (key,)).fetchone()
        count, mark, old_fence = row or (0, 0, 0)
        fence = max(fence, old_fence)
        self._write_pages(connection, page, key, count, delta)
        count += len(delta) // RECORD.itemsize
        if count > mark + max(SLACK, mark // 2) or fence > old_fence:
            blob = self._pages(connection, page, key)
            records, _ = decode(encode(_EMPTY) + blob)
            kept = normalise(records, fence, cap)
            if len(kept) != len(records) or not is_canonical(records):
                connection.execute(f"delete from {page} where entity_key = ?", (key,))
                self._write_pages(connection, page, key, 0, kept.tobytes())
            count = mark = len(kept)
        connection.execute(f"insert or replace into {head} values(?, ?, ?, ?)", (key, count, mark, fence))

    def _write_pages(self, connection: sqlite3.Connection, page: str, key: bytes, count: int, delta: bytes) -> None:
        number, filled = divmod(count * RECORD.itemsize, PAGE)
        if filled and delta:
            query = f"select records from {page} where entity_key = ? and page = ?"
            delta = bytes(connection.execute(query, (key, number)).fetchone()[0]) + delta
        connection.executemany(
            f"insert or replace into {page} values(?, ?, ?)",
            ((key, number + i, delta[i * PAGE : (i + 1) * PAGE]) for i in range((len(delta) + PAGE - 1) // PAGE)),
        )

    def _pages(self, connection: sqlite3.Connection, page: str, key: bytes) -> bytes:
        query = f"select records from {page} where entity_key = ? order by page"
        return b"".join([row[0] for row in connection.execute(query, (key,))])

    def online_read(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKey],
        requested_features: list[str] | None = None,
    ) -> list[tuple[datetime | None, dict[str, Value] | None]]:
        """A blob a user (sequence views): all records, canonical, with the user's fence; (None, None) if unknown."""
        with self._lock:
            if not is_sequence(table):
                rows: list[tuple[datetime | None, dict[str, Value] | None]]
                rows = super().online_read(config, table, entity_keys, requested_features)
                return rows
            connection, head, page = self._tables(config, table)
            found = []
            connection.execute("begin")  # one snapshot: a head and its pages
            try:
                for entity_key in entity_keys:
                    key = _key(config, entity_key)
                    row = connection.execute(f"select fence from {head} where entity_key = ?", (key,)).fetchone()
                    found.append((row, self._pages(connection, page, key) if row else b""))
            finally:
                connection.rollback()
        feature, cap = table.features[0].name, cap_of(table)
        return [_value(feature, body, row[0], cap) if row else (None, None) for row, body in found]

    def update(
        self,
        config: RepoConfig,
        tables_to_delete: Sequence[FeatureView],
        tables_to_keep: Sequence[FeatureView],
        entities_to_delete: Sequence[Entity],
        entities_to_keep: Sequence[Entity],
        partial: bool,
    ) -> None:
        """Make and drop tables; called by `feast apply`."""
        with self._lock:
            super().update(config, tables_to_delete, tables_to_keep, entities_to_delete, entities_to_keep, partial)
            for view in filter(is_sequence, tables_to_keep):
                self._tables(config, view)
            for view in filter(is_sequence, tables_to_delete):
                connection, head, page = self._tables(config, view)
                connection.execute(f"drop table {head}")
                connection.execute(f"drop table {page}")
                self._made.clear()
            self._get_conn(config).commit()

    def teardown(self, config: RepoConfig, tables: Sequence[FeatureView], entities: Sequence[Entity]) -> None:
        """Remove the database with its write-ahead log."""
        with self._lock:
            super().teardown(config, tables, entities)
            self._made.clear()


_EMPTY = decode(b"")[0]


def _key(config: RepoConfig, entity_key: EntityKey) -> bytes:
    key: bytes = serialize_entity_key(entity_key, config.entity_key_serialization_version)
    return key


def _value(feature: str, body: bytes, fence: int, cap: int) -> tuple[datetime, dict[str, Value]]:
    blob = encode(_EMPTY, fence) + body
    records, _ = decode(blob)
    kept = normalise(records, fence, cap)
    if kept is not records:
        blob = encode(kept, fence)
    newest = int(kept["time"][-1]) if len(kept) else fence
    return datetime.fromtimestamp(newest / 1000, UTC), {feature: Value(bytes_val=blob)}
