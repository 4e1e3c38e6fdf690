"""The SQLite online store with a native append for sequence views.

A Feast row is overwritten as a whole, so an append would be a read, a change and a write, and two writers lose events.
Here a written value of a view tagged `sequence: append` is a delta (features.record): its records are added to the
user's pages inside one write transaction, blindly, and read back as one blob. A row of any other view is replaced by a
newer one only (features.rows). Feast demands that the class of a SQLite store is named `...SqliteOnlineStore`.

Tables of a sequence view: `<view>_head` (records, mark, fence of a user) and `<view>_page` (256 records a page).
Table of another view: `<view>_row`. What is deleted is overwritten with zeros.
"""

import asyncio
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
from feast import Entity, FeatureView
from feast.infra.online_stores.sqlite import SqliteOnlineStore, SqliteOnlineStoreConfig
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.repo_config import RepoConfig
from pydantic import model_validator

from features.errors import SeminarError
from features.memory import keep_freed_megabytes
from features.record import RECORD, Records, decode, encode, is_canonical, normalise
from features.rows import SLACK, Found, Row, cap_of, entity, is_sequence, look_at, pack, plain_found, sequence_found

PAGE = 256 * RECORD.itemsize  # 8 KB: an append rewrites one page, whatever the length of the history


class SequenceSqliteOnlineStoreConfig(SqliteOnlineStoreConfig):
    """Feast's SQLite settings and how durable a commit is."""

    type: Literal["features.store_sqlite.SequenceSqliteOnlineStore"] = "features.store_sqlite.SequenceSqliteOnlineStore"
    synchronous: Literal["NORMAL", "FULL"] = "NORMAL"
    """FULL: a commit survives the machine's crash. NORMAL: the process's; what a machine lost is in history."""

    @model_validator(mode="after")
    def _refuse(self) -> "SequenceSqliteOnlineStoreConfig":
        for setting in ("vector_enabled", "text_search_enabled"):
            if getattr(self, setting):
                raise SeminarError(f"online_store.{setting}", True, "is not possible in this store", "remove it")
        return self


class SequenceSqliteOnlineStore(SqliteOnlineStore):
    """Feast online store plugin; safe for the threads of one process and for several processes."""

    _conn: sqlite3.Connection | None = None
    _file: tuple[int, int] | None = None

    def __init__(self) -> None:
        keep_freed_megabytes()
        self._lock = threading.RLock()
        self._made: set[str] = set()

    def _get_conn(self, config: RepoConfig) -> sqlite3.Connection:
        path = self._get_db_path(config)
        if self._conn is not None and not self._conn.in_transaction and _file(path) != self._file:
            # The file was removed or replaced: going on would fill one that nobody else sees.
            self._conn.close()
            self._conn = None
            self._made.clear()
        if self._conn is None:
            connection = sqlite3.connect(
                path,
                check_same_thread=False,  # one connection for all threads of a process, behind one lock
                timeout=30,
            )
            connection.executescript(
                f"pragma journal_mode=wal; pragma synchronous={config.online_store.synchronous}; pragma secure_delete=on;"
                "pragma mmap_size=1073741824; pragma cache_size=-65536; pragma wal_autocheckpoint=4000;"
            )
            self._conn, self._file = connection, _file(path)
        return self._conn

    def _tables(self, config: RepoConfig, view: FeatureView) -> tuple[sqlite3.Connection, str, str]:
        """The connection, and the tables: head and page of a sequence view, the row's table (twice) of another."""
        connection, name = self._get_conn(config), f"{config.project}_{view.name}"
        if name not in self._made:
            if is_sequence(view):
                # mark: the length at which the row was last seen canonical, so that repeats cannot grow it for ever
                connection.execute(
                    f'create table if not exists "{name}_head"(entity_key blob primary key, records integer,'
                    " mark integer, fence integer) without rowid"
                )
                connection.execute(
                    f'create table if not exists "{name}_page"(entity_key blob, page integer, records blob,'
                    " primary key(entity_key, page)) without rowid"
                )
            else:
                connection.execute(f'create table if not exists "{name}_row"(entity_key blob primary key, content blob)')
            connection.commit()
            self._made.add(name)
        return connection, *((f'"{name}_head"', f'"{name}_page"') if is_sequence(view) else (f'"{name}_row"',) * 2)

    @contextmanager
    def _writing(self, config: RepoConfig, table: FeatureView) -> Iterator[tuple[sqlite3.Connection, str, str]]:
        with self._lock:
            connection, first, second = self._tables(config, table)
            with connection:
                connection.execute("begin immediate")
                yield connection, first, second

    def online_write_batch(
        self, config: RepoConfig, table: FeatureView, data: list[Row], progress: Callable[[int], Any] | None
    ) -> None:
        """Append deltas (sequence views) or write rows where they are newer (others); one transaction for the batch."""
        with self._writing(config, table) as (connection, head, page):
            if is_sequence(table):
                feature = table.features[0].name
                deltas: dict[bytes, list[tuple[Records, int]]] = {}
                for entity_key, values, _, _ in data:
                    deltas.setdefault(entity(config, entity_key), []).append(decode(values[feature].bytes_val))
                self._append(connection, head, page, deltas, cap_of(table))
            else:
                connection.executemany(
                    f"insert into {head} values(?, ?) on conflict(entity_key)"
                    " do update set content = excluded.content where excluded.content > content",
                    [(entity(config, entity_key), pack(timestamp, values)) for entity_key, values, timestamp, _ in data],
                )
        if progress:
            progress(len(data))

    def _append(
        self,
        connection: sqlite3.Connection,
        head: str,
        page: str,
        deltas: dict[bytes, list[tuple[Records, int]]],
        cap: int,
    ) -> None:
        # One look at each row, then all rows at once in the order of the tables.
        look = (
            f"select head.records, mark, fence, page.records from {head} head left join {page} page"
            f" on page.entity_key = head.entity_key and page = head.records / {PAGE // RECORD.itemsize}"
            " where head.entity_key = ?"
        )
        heads, pages = [], []
        for key in sorted(deltas):
            parts = deltas[key]
            row = connection.execute(look, (key,)).fetchone()
            count, mark, old_fence, last = row or (0, 0, 0, None)
            fence = max(old_fence, *(fence for _, fence in parts))
            delta = parts[0][0] if len(parts) == 1 else np.concatenate([part for part, _ in parts])
            if fence:
                delta = delta[delta["time"] >= fence]
            if not row and SLACK < len(delta) <= cap and is_canonical(delta):
                mark = len(delta)
            added = _pages(key, count, last, delta.tobytes())
            count += len(delta)
            if count > look_at(mark, cap) or fence > old_fence:
                connection.executemany(f"insert or replace into {page} values(?, ?, ?)", added)
                records, _ = decode(b"".join([encode(_EMPTY), *self._pages(connection, page, key)]))
                kept = normalise(records, fence, cap)
                added = []
                if kept is not records:
                    connection.execute(f"delete from {page} where entity_key = ?", (key,))
                    added = _pages(key, 0, None, kept.tobytes())
                count = mark = len(kept)
            pages += added
            heads.append((key, count, mark, fence))
        connection.executemany(f"insert or replace into {page} values(?, ?, ?)", pages)
        connection.executemany(f"insert or replace into {head} values(?, ?, ?, ?)", heads)

    def _pages(self, connection: sqlite3.Connection, page: str, key: bytes) -> list[bytes]:
        query = f"select records from {page} where entity_key = ? order by page"
        return [row[0] for row in connection.execute(query, (key,))]

    def online_read(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKey],
        requested_features: list[str] | None = None,
    ) -> list[Found]:
        """A canonical blob a user (sequence views), a row an entity (others); (None, None) for an unknown one."""
        with self._lock:
            connection, head, page = self._tables(config, table)
            keys = [entity(config, entity_key) for entity_key in entity_keys]
            connection.execute("begin")  # one snapshot: a head and its pages
            try:
                column = "fence" if is_sequence(table) else "content"
                query = f"select {column} from {head} where entity_key = ?"
                found = [connection.execute(query, (key,)).fetchone() for key in keys]
                if not is_sequence(table):
                    return [plain_found(table, row and row[0]) for row in found]
                bodies = [self._pages(connection, page, key) if row else [] for key, row in zip(keys, found, strict=True)]
            finally:
                connection.rollback()
        feature, cap = table.features[0].name, cap_of(table)
        return [
            sequence_found(feature, b"".join([encode(_EMPTY, row[0]), *body]), cap) if row else (None, None)
            for row, body in zip(found, bodies, strict=True)
        ]

    def keys(self, config: RepoConfig, table: FeatureView) -> list[bytes]:
        """The key of every row of a view (`features.rows.entity`), in no order."""
        with self._lock:
            connection, head, _ = self._tables(config, table)
            return [row[0] for row in connection.execute(f"select entity_key from {head}")]

    def delete_rows(self, config: RepoConfig, table: FeatureView, entity_keys: Sequence[EntityKey]) -> None:
        """Delete rows of a plain view. Nothing remembers them: a write of any version makes such a row again."""
        if is_sequence(table):
            raise SeminarError("view", table.name, "is a sequence", "append an empty delta with a fence: it is remembered")
        with self._writing(config, table) as (connection, row, _):
            connection.executemany(
                f"delete from {row} where entity_key = ?", [(entity(config, entity_key),) for entity_key in entity_keys]
            )

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
            for view in tables_to_keep:
                self._tables(config, view)
            self._drop(config, tables_to_delete)

    def _drop(self, config: RepoConfig, views: Sequence[FeatureView]) -> None:
        for view in views:
            connection, first, second = self._tables(config, view)
            with connection:
                connection.execute("begin immediate")
                for name in {first, second}:
                    connection.execute(f"drop table if exists {name}")
        self._made.clear()

    def teardown(self, config: RepoConfig, tables: Sequence[FeatureView], entities: Sequence[Entity]) -> None:
        """Drop the tables of these views; remove the database with its write-ahead log when it holds no other table."""
        with self._lock:
            if not Path(self._get_db_path(config)).exists():
                return
            self._drop(config, tables)
            connection = self._get_conn(config)
            left = connection.execute("select count(*) from sqlite_master where type = 'table'").fetchone()[0]
            connection.close()
            self._conn = None
            if not left:
                for suffix in ("", "-wal", "-shm"):
                    Path(self._get_db_path(config) + suffix).unlink(missing_ok=True)

    def purge(self, config: RepoConfig) -> None:
        """After forgetting: move the write-ahead log into the database and empty it, so that no file holds old bytes.

        Waits for readers and writers; SeminarError when one of them lasts for longer than 30 s.
        """
        with self._lock:
            busy = self._get_conn(config).execute("pragma wal_checkpoint(truncate)").fetchone()[0]
        if busy:
            path = self._get_db_path(config)
            raise SeminarError("online store", path, "is in use for long", "repeat when no process reads or writes it")

    async def online_read_async(self, *arguments: Any, **named: Any) -> list[Found]:
        """`online_read` in a thread."""
        return await asyncio.to_thread(self.online_read, *arguments, **named)

    async def online_write_batch_async(self, *arguments: Any, **named: Any) -> None:
        """`online_write_batch` in a thread."""
        await asyncio.to_thread(self.online_write_batch, *arguments, **named)


_EMPTY = decode(b"")[0]


def _pages(key: bytes, count: int, last: bytes | None, delta: bytes) -> list[tuple[bytes, int, bytes]]:
    """Rows of the page table that a delta changes after `count` records; `last`: the page that it begins in."""
    number = count * RECORD.itemsize // PAGE
    if last and delta:
        delta = last + delta
    return [(key, number + i, delta[i * PAGE : (i + 1) * PAGE]) for i in range((len(delta) + PAGE - 1) // PAGE)]


def _file(path: str) -> tuple[int, int] | None:
    """Which file a path names now."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
