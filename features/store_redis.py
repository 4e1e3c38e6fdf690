"""The Redis online store with a native append for sequence views; works on one Redis and on a Redis Cluster.

    <project>:<view>:{tag}r<entity key>   a row: a sequence's blob (features.record) or a plain row (features.rows)
    <project>:<view>:{tag}m<entity key>   of a sequence that was ever rewritten or is long: `version`, `limit`

A row is one string. A read is one GET, and what it gets is the answer. An append is one script on one user's keys, which
share a hash tag: no script spans users. A row that has grown past its `limit` (records) is read, normalised and set by
its writer: the script that sets it compares the row's version, which every rewrite counts up, and keeps what was
appended meanwhile. What Redis acknowledges survives as `appendfsync` says: `always` for every append.

Writes may be repeated after an error: sequences are sets, and of plain rows the greater wins.
"""

import asyncio
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import redis.exceptions as problems
from feast import Entity, FeatureView
from feast.infra.online_stores.online_store import OnlineStore
from feast.infra.online_stores.redis import RedisOnlineStore, RedisOnlineStoreConfig
from feast.infra.supported_async_methods import SupportedAsyncMethods
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.repo_config import RepoConfig
from pydantic import ConfigDict, Field, StrictStr, model_validator
from redis import Redis
from redis.cluster import RedisCluster

from features import redis_nodes, redis_scripts
from features.errors import SeminarError
from features.memory import keep_freed_megabytes
from features.record import HEADER, decode, encode, is_canonical, normalise
from features.rows import SLACK, Found, Row, cap_of, entity, is_sequence, look_at, pack, plain_found, sequence_found

FLUSH_COMMANDS, FLUSH_BYTES = 1000, 4 << 20
"""A batch goes to Redis in pipelines of at most about this size."""


class SequenceRedisOnlineStoreConfig(RedisOnlineStoreConfig):
    """Feast's Redis settings, without those under which rows would vanish or grow old. Never shows its secrets."""

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid", hide_input_in_errors=True)

    type: Literal["features.store_redis.SequenceRedisOnlineStore"] = "features.store_redis.SequenceRedisOnlineStore"
    connection_string: StrictStr = Field("localhost:6379", repr=False)

    @model_validator(mode="after")
    def _refuse(self) -> "SequenceRedisOnlineStoreConfig":
        # A SeminarError is no ValueError: pydantic lets it pass as it is, without the values around it.
        if self.key_ttl_seconds is not None:
            raise SeminarError(
                "online_store.key_ttl_seconds", self.key_ttl_seconds, "would let lifelong sequences vanish", "remove it"
            )
        if self.skip_dedup:
            raise SeminarError(
                "online_store.skip_dedup",
                True,
                "would let older rows replace newer ones",
                "remove it: one round trip anyway",
            )
        return self


class SequenceRedisOnlineStore(RedisOnlineStore):
    """Feast online store plugin; safe for the threads of one process and for several processes and machines."""

    _client: Redis | RedisCluster | None = None

    def __init__(self) -> None:
        keep_freed_megabytes()
        self._lock = threading.Lock()

    @property
    def async_supported(self) -> SupportedAsyncMethods:
        """None of its own: the feature server runs the methods below in its threads."""
        return SupportedAsyncMethods(read=False, write=False)

    @staticmethod
    def _parse_connection_string(connection_string: str) -> tuple[list[dict[str, str]], dict[str, Any]]:
        nodes, parameters = RedisOnlineStore._parse_connection_string(connection_string)
        for part in connection_string.split(","):
            name, _, value = part.partition("=")
            if name in ("password", "username"):  # Feast reads values as JSON: 0123 and 1e5 are passwords too
                parameters[name] = value
        return nodes, parameters

    def _get_client(self, online_store_config: SequenceRedisOnlineStoreConfig) -> Redis | RedisCluster:
        with self._lock:
            if self._client is None:
                try:
                    with _named(online_store_config):
                        redis_nodes.check(super()._get_client(online_store_config))
                except BaseException as error:
                    self._client = None
                    if isinstance(error, TypeError | KeyError | IndexError | ValueError):
                        raise SeminarError(
                            "online_store.connection_string",
                            _servers(online_store_config),
                            f"cannot be used ({error})",
                            "write host:port,name=value,... with settings that redis-py knows",
                        ) from None
                    raise
            return self._client

    def online_write_batch(
        self, config: RepoConfig, table: FeatureView, data: list[Row], progress: Callable[[int], Any] | None
    ) -> None:
        """Append deltas (sequence views) or write rows where they are newer (others); atomic row by row."""
        sequence, prefix = is_sequence(table), _prefix(config, table)
        feature, cap = table.features[0].name, cap_of(table)
        commands: list[tuple[Any, ...]] = []
        size = 0
        for number, (entity_key, values, timestamp, _) in enumerate(data, 1):
            key = entity(config, entity_key)
            if sequence:
                commands.append(_append(prefix, key, values[feature].bytes_val, cap))
            else:
                commands.append((redis_scripts.NEWEST, [_row(prefix, key)], pack(timestamp, values)))
            size += len(commands[-1][-1])
            if len(commands) >= FLUSH_COMMANDS or size >= FLUSH_BYTES or number == len(data):
                for (_, keys, *_), version in zip(commands, self._run(config, commands), strict=True):
                    if sequence and version is not None:
                        self._tidy(config, keys, version, cap)
                if progress:
                    progress(len(commands))
                commands, size = [], 0

    def _tidy(self, config: RepoConfig, keys: list[bytes], version: int, cap: int) -> None:
        with _named(config.online_store):
            blob = self._get_client(config.online_store).get(keys[0])
        records, fence = decode(blob or b"")
        kept = normalise(records, fence, cap)
        rewritten = b"" if kept is records else encode(kept, fence)
        command = (redis_scripts.REWRITE, keys, version, len(blob or b""), look_at(len(kept), cap), rewritten)
        self._run(config, [command])

    def _run(self, config: RepoConfig, commands: list[tuple[Any, ...]]) -> list[Any]:
        """Run (script, keys, arguments...) in one pipeline. A server that has restarted is given the scripts again."""
        with _named(config.online_store):
            client = self._get_client(config.online_store)
            replies = redis_scripts.run(client, commands)
            missing = [i for i, reply in enumerate(replies) if isinstance(reply, problems.NoScriptError)]
            if missing:
                redis_nodes.load(client, redis_scripts.ALL)
                again = redis_scripts.run(client, [commands[i] for i in missing])
                for i, reply in zip(missing, again, strict=True):
                    replies[i] = reply
            for reply in replies:
                if isinstance(reply, Exception):
                    raise reply
            return replies

    def online_read(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKey],
        requested_features: list[str] | None = None,
    ) -> list[Found]:
        """A canonical blob a user (sequence views), a row an entity (others); (None, None) for an unknown one."""
        prefix = _prefix(config, table)
        keys = [_row(prefix, entity(config, entity_key)) for entity_key in entity_keys]
        with _named(config.online_store):
            client = self._get_client(config.online_store)
            if len(keys) == 1:
                rows = [client.get(keys[0])]
            else:
                with client.pipeline(transaction=False) as pipe:
                    for key in keys:
                        pipe.get(key)
                    rows = pipe.execute()
        if not is_sequence(table):
            return [plain_found(table, row) for row in rows]
        feature, cap = table.features[0].name, cap_of(table)
        return [(None, None) if row is None else sequence_found(feature, row, cap) for row in rows]

    def keys(self, config: RepoConfig, table: FeatureView) -> Iterator[bytes]:
        """The key of every row of a view (`features.rows.entity`), in no order, some perhaps twice."""
        prefix = _prefix(config, table) + b"{"
        kind = len(_row(_prefix(config, table), b"")) - 1
        with _named(config.online_store):
            for node in redis_nodes.primaries(self._get_client(config.online_store)):
                for key in redis_nodes.scan(node, prefix):
                    if key[kind : kind + 1] == b"r":
                        yield key[kind + 1 :]

    def delete_rows(self, config: RepoConfig, table: FeatureView, entity_keys: Sequence[EntityKey]) -> None:
        """Delete rows of a plain view. Nothing remembers them: a write of any version makes such a row again."""
        if is_sequence(table):
            raise SeminarError("view", table.name, "is a sequence", "append an empty delta with a fence: it is remembered")
        prefix = _prefix(config, table)
        with _named(config.online_store), self._get_client(config.online_store).pipeline(transaction=False) as pipe:
            for entity_key in entity_keys:
                pipe.unlink(_row(prefix, entity(config, entity_key)))
            pipe.execute()

    def delete_table(self, config: RepoConfig, table: FeatureView) -> None:
        """Delete every row of a view, and no other key."""
        with _named(config.online_store):
            redis_nodes.unlink(self._get_client(config.online_store), _prefix(config, table) + b"{")

    def teardown(self, config: RepoConfig, tables: Sequence[FeatureView], entities: Sequence[Entity]) -> None:
        """Delete every row of these views, and no other key."""
        for table in tables:
            self.delete_table(config, table)

    def purge(self, config: RepoConfig) -> None:
        """After forgetting: rewrite the files of every primary, so that none holds what rows held before.

        Waits for the end. Replicas rewrite their own files; copies of files made before are not Redis's to rewrite.
        """
        with _named(config.online_store):
            for node in redis_nodes.primaries(self._get_client(config.online_store)):
                redis_nodes.rewrite_files(node)

    # Feast's own read path and async methods know its layout of keys only.
    _read_features_per_fv = OnlineStore._read_features_per_fv
    _read_features_per_fv_async = OnlineStore._read_features_per_fv_async

    async def online_read_async(self, *arguments: Any, **named: Any) -> list[Found]:
        """`online_read` in a thread."""
        return await asyncio.to_thread(self.online_read, *arguments, **named)

    async def online_write_batch_async(self, *arguments: Any, **named: Any) -> None:
        """`online_write_batch` in a thread."""
        await asyncio.to_thread(self.online_write_batch, *arguments, **named)


def _prefix(config: RepoConfig, table: FeatureView) -> bytes:
    return f"{config.project}:{table.name}:".encode()


def _row(prefix: bytes, key: bytes, kind: bytes = b"r") -> bytes:
    # The tag is a checksum, not the key: a key may hold braces, and users of one tag would share a node.
    return b"%b{%08x}%b%b" % (prefix, zlib.crc32(key), kind, key)


def _append(prefix: bytes, key: bytes, delta: bytes, cap: int) -> tuple[Any, ...]:
    records, fence = decode(delta)
    # A long delta that begins a row and is canonical needs not be looked at.
    limit = look_at(len(records), cap) if SLACK < len(records) <= cap and is_canonical(records) else 0
    header, body = delta[:HEADER] or encode(records), delta[HEADER:]
    keys = [_row(prefix, key), _row(prefix, key, b"m")]
    return redis_scripts.APPEND, keys, header, fence, look_at(0, cap), limit, body


@contextmanager
def _named(online_store: SequenceRedisOnlineStoreConfig) -> Iterator[None]:
    """Errors of the connection as SeminarError that names the servers and nothing else of the connection string."""
    where = _servers(online_store)
    try:
        yield
    except problems.AuthenticationError:
        raise SeminarError("online_store", where, "refuses user or password", "check connection_string") from None
    except (problems.ConnectionError, problems.TimeoutError, problems.ClusterDownError) as error:
        raise SeminarError("online_store", where, f"does not answer ({error})", "start it, then repeat") from None
    except problems.RedisClusterException as error:
        raise SeminarError(
            "online_store", where, f"is no Redis Cluster that answers ({error})", "check redis_type"
        ) from None
    except problems.NoPermissionError as error:
        raise SeminarError("online_store", where, f"does not permit it ({error})", "grant the user that command") from None
    except problems.OutOfMemoryError:
        raise SeminarError("online_store", where, "has no memory left", "raise maxmemory, then repeat") from None


def _servers(online_store: SequenceRedisOnlineStoreConfig) -> str:
    return ",".join(part for part in online_store.connection_string.split(",") if "=" not in part)
