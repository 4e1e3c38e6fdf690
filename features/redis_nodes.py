"""What is done to each primary of a Redis or a Redis Cluster, rather than to a key."""

import time
from collections.abc import Iterator, Sequence

import redis.exceptions as problems
from redis import Redis
from redis.cluster import RedisCluster

from features.errors import SeminarError

REWRITE_SECONDS = 3600
"""How long the rewrite of a server's files may take."""


def primaries(client: Redis | RedisCluster) -> list[Redis]:
    """A client of each primary; the client itself where there is one server."""
    if isinstance(client, RedisCluster):
        return [client.get_redis_connection(node) for node in client.get_primaries()]
    return [client]


def check(client: Redis | RedisCluster) -> None:
    """Refuse a server that may evict rows. A cluster's primary that does not answer is passed over: others serve."""
    for node in primaries(client):
        try:
            policy = node.info("memory").get("maxmemory_policy")
        except (problems.ConnectionError, problems.TimeoutError) as error:
            if isinstance(client, RedisCluster) and not isinstance(error, problems.AuthenticationError):
                continue
            raise
        if policy != "noeviction":
            raise SeminarError(
                "maxmemory-policy", policy, "lets Redis drop lifelong sequences", "set it to noeviction on every server"
            )


def load(client: Redis | RedisCluster, scripts: Sequence[str]) -> None:
    """Give every primary that answers the scripts."""
    for node in primaries(client):
        try:
            for script in scripts:
                node.script_load(script)
        except (problems.ConnectionError, problems.TimeoutError):
            if not isinstance(client, RedisCluster):
                raise


def scan(node: Redis, prefix: bytes) -> Iterator[bytes]:
    """Every key that begins with the prefix; Redis may name one twice."""
    pattern = b"".join(b"\\%c" % byte if byte in b"*?[]\\" else b"%c" % byte for byte in prefix) + b"*"
    yield from node.scan_iter(pattern, count=1000)


def unlink(client: Redis | RedisCluster, prefix: bytes) -> None:
    """Remove every key that begins with the prefix."""
    for node in primaries(client):
        keys: list[bytes] = []
        for key in scan(node, prefix):
            keys.append(key)
            if len(keys) >= 1000:
                _unlink(node, keys)
                keys = []
        _unlink(node, keys)


def _unlink(node: Redis, keys: list[bytes]) -> None:
    with node.pipeline(transaction=False) as pipe:  # a command a key: a cluster refuses keys of several slots in one
        for key in keys:
            pipe.unlink(key)
        pipe.execute()


def rewrite_files(node: Redis) -> None:
    """Rewrite the append-only file, if there is one, and the snapshot, if one is kept; returns when they are written."""
    if node.info("persistence")["aof_enabled"]:
        _wait(node, "aof_rewrite_in_progress", "aof_rewrite_scheduled")  # one under way may hold what is forgotten
        node.bgrewriteaof()
        _done(node, "aof_last_bgrewrite_status", "aof_rewrite_in_progress", "aof_rewrite_scheduled")
    if _keeps_snapshots(node):
        _wait(node, "rdb_bgsave_in_progress", "aof_rewrite_in_progress")
        node.bgsave()
        _done(node, "rdb_last_bgsave_status", "rdb_bgsave_in_progress")


def _keeps_snapshots(node: Redis) -> bool:
    try:
        return bool(node.config_get("save").get("save"))
    except problems.ResponseError:  # a managed server that hides its configuration keeps its own snapshots
        return False


def _done(node: Redis, status: str, *flags: str) -> None:
    _wait(node, *flags)
    found = node.info("persistence")[status]
    if found != "ok":
        raise SeminarError(status, found, "says that Redis could not rewrite its files", "see its log, then repeat")


def _wait(node: Redis, *flags: str) -> None:
    deadline = time.monotonic() + REWRITE_SECONDS
    while any(node.info("persistence")[flag] for flag in flags):
        if time.monotonic() > deadline:
            raise SeminarError("online_store", flags[0], f"has lasted for {REWRITE_SECONDS} s", "see the log of Redis")
        time.sleep(0.05)
