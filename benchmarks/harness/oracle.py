"""What was acknowledged against what is held, judged by code that shares nothing with the code that is judged.

Acknowledged events come from the load's file. Records are packed and unpacked here by `struct`, history is read with
pyarrow, the pages of the online store with sqlite3 or redis-py, and what is served through Feast's own API.
"""

import hashlib
import json
import sqlite3
import struct
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

LAYOUT = struct.Struct("<qQQIHBB")  # time, item, query, digest, dwell, kind, flags
Held = Counter[tuple[str, bytes]]


def _hash(text: str, size: int) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=size).digest(), "little")


def record(event: dict[str, Any]) -> bytes:
    """The 32 bytes that an event must have become."""
    item = _hash(event["item"], 8) or 1 if event["item"] is not None else 0
    query = _hash(" ".join(event["query"].lower().split()), 8) or 1 if event["query"] is not None else 0
    digest = _hash(f"{event['source']}\0{event['id']}", 4)
    return LAYOUT.pack(event["time"], item, query, digest, min(int(event["dwell"]), 65535), event["kind"], 0)


def acknowledged(*files: Path) -> Held:
    """(user, record) of each distinct event in the load's files; a last line that a kill cut off does not count."""
    events: dict[str, dict[str, Any]] = {}
    for file in files:
        for line in file.read_bytes().splitlines(keepends=True):
            if line.endswith(b"\n"):
                event = json.loads(line)
                events[event["id"]] = event
    return Counter((event["user"], record(event)) for event in events.values())


def in_history(home: Path) -> tuple[Held, dict[str, int]]:
    """All rows of the events' parquet files, and how they come: files, rows, repeats (rows beyond the first of a record
    and origin), sent_again (records under more than one origin)."""
    held: Held = Counter()
    origins: Counter[tuple[str, bytes, str, int, int]] = Counter()
    files = [f for f in sorted((home / "history" / "events").rglob("*.parquet")) if not f.name.startswith(".")]
    for file in files:
        rows = pq.ParquetFile(file).read(columns=["user_id", "sequence", "topic", "partition", "offset"]).to_pydict()
        found = zip(rows["user_id"], rows["sequence"], rows["topic"], rows["partition"], rows["offset"], strict=True)
        origins.update(found)
    for (user, raw, *_), times in origins.items():
        held[user, raw] += times
    facts = {"files": len(files), "rows": origins.total(), "repeats": origins.total() - len(origins)}
    return held, {**facts, "sent_again": len(origins) - len(held)}


def _user(key: bytes) -> str:
    # Feast's entity key, version 3: count, then (type, length, name) and (type, length, value), 32-bit little-endian.
    (count,) = struct.unpack_from("<I", key)
    place, found = 4, b""
    for _ in range(2 * count):
        _kind, length = struct.unpack_from("<II", key, place)
        found = key[place + 8 : place + 8 + length]
        place += 8 + length
    return found.decode()


def in_sqlite(path: Path, view: str = "seminar_user_sequence") -> Held:
    """The records in the pages of the SQLite store as they lie there, repeats included."""
    held: Held = Counter()
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        for key, page in connection.execute(f"select entity_key, records from {view}_page"):
            held.update(_split(_user(key), page))
    finally:
        connection.close()
    return held


def in_redis(port: int, view: str = "seminar:user_sequence") -> Held:
    """The records in the rows of the Redis store as they lie there, repeats included."""
    from redis import Redis

    held: Held = Counter()
    client = Redis(port=port)
    begin = f"{view}:".encode()
    for name in client.scan_iter(match=begin + b"{*", count=1000):
        rest = name[len(begin) + len("{00000000}") :]
        if rest[:1] == b"r":
            held.update(_split(_user(rest[1:]), client.get(name)[16:]))
    client.close()
    return held


def _split(user: str, body: bytes) -> Iterable[tuple[str, bytes]]:
    assert len(body) % LAYOUT.size == 0, f"{user}: {len(body)} bytes are no whole records"
    return ((user, bytes(body[i : i + LAYOUT.size])) for i in range(0, len(body), LAYOUT.size))


def served(home: Path, users: list[str]) -> dict[str, list[bytes]]:
    """Each user's records in the order in which Feast serves them."""
    from feast import FeatureStore

    store = FeatureStore(fs_yaml_file=home / "feature_store.yaml")
    found: dict[str, list[bytes]] = {}
    for start in range(0, len(users), 200):
        rows = [{"user_id": user} for user in users[start : start + 200]]
        answer = store.get_online_features(["user_sequence:sequence"], rows).to_dict()
        for user, blob in zip(answer["user_id"], answer["sequence"], strict=True):
            found[user] = [raw for _, raw in _split(user, blob[16:])] if blob else []
    return found


def canonical(records: Iterable[bytes]) -> list[bytes]:
    """Each record once, by time, then by the remaining bytes."""
    return sorted(set(records), key=lambda raw: (LAYOUT.unpack(raw)[0], raw[8:]))


def compare(files: Iterable[Path], home: Path, online: Held | None = None) -> dict[str, int]:
    """Acknowledged events against history, against the raw online store and against what is served.

    lost: acknowledged and not held; foreign: held and never acknowledged; doubled: served more than once; disordered:
    users whose records are not served in canonical order; repeats_*: the same record again in files or pages, which
    readers drop. lost, foreign and doubled are the sums over history, raw pages and served.
    """
    expected = acknowledged(*files)
    history, facts = in_history(home)
    raw = in_sqlite(home / "online.db") if online is None else online
    users = sorted({user for user, _ in expected} | {user for user, _ in history} | {user for user, _ in raw})
    by_user: dict[str, list[bytes]] = {}
    for user, one in expected:
        by_user.setdefault(user, []).append(one)
    lists = served(home, users)
    shown: Held = Counter((user, one) for user, many in lists.items() for one in many)
    return {
        "acknowledged": len(expected),
        "lost": sum(len(expected.keys() - held.keys()) for held in (history, raw, shown)),
        "foreign": sum(len(held.keys() - expected.keys()) for held in (history, raw, shown)),
        "doubled": shown.total() - len(shown),
        "disordered": sum(lists[user] != canonical(lists[user]) for user in users),
        "unequal": sum(lists[user] != canonical(by_user.get(user, [])) for user in users),
        "history_files": facts["files"],
        "history_rows": facts["rows"],
        "repeats_in_history": facts["repeats"],
        "sent_again": facts["sent_again"],
        "repeats_online": raw.total() - len(raw),
    }
