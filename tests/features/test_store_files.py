"""What removing, purging, pushing and serving do, the same for every online store."""

import base64
import contextlib
import os
import sqlite3
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
import redis
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, PushSource, ValueType
from feast.types import Bytes, Int64, String

from features.online import Online
from features.record import RECORD, Records, decode, encode, union
from features.redis_nodes import rewrite_files
from features.repository import configure, open_store
from features.settings import REPOSITORY
from tests.features.conftest import Place, RedisServer, free_port, in_processes, make, until

FEAST = Path(sys.executable).parent / "feast"
NOW = pd.Timestamp("2026-01-01", tz="UTC")


def pushed_view(name: str, folder: Path, **tags: str) -> tuple[FeatureView, PushSource]:
    source = PushSource(
        name=f"{name}_push", batch_source=FileSource(path=str(folder / f"{name}.parquet"), timestamp_field="event_timestamp")
    )
    user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)
    kind = Bytes if tags else Int64
    schema = [Field(name="user_id", dtype=String), Field(name=f"{name}_value", dtype=kind)]
    return FeatureView(name=name, entities=[user], ttl=timedelta(0), schema=schema, source=source, tags=tags), source


def push(store: FeatureStore, view: str, user: str, value: Any) -> None:
    frame = pd.DataFrame({"user_id": [user], f"{view}_value": [value], "event_timestamp": [NOW]})
    store.push(f"{view}_push", frame)


@pytest.fixture
def more(place: Place) -> Place:
    """With two sequence views more, `wide` (cap 2,000) and `wide2`, and a plain one."""
    views = [
        pushed_view("wide", place.home, sequence="append", cap="2000"),
        pushed_view("wide2", place.home, sequence="append"),
        pushed_view("plain", place.home),
    ]
    open_store().apply([thing for pair in views for thing in pair])
    return place


def read(store: FeatureStore, feature: str, user: str) -> Any:
    return store.get_online_features([feature], [{"user_id": user}]).to_dict()[feature.split(":")[1]][0]


def sequence(store: FeatureStore, view: str, user: str) -> Records:
    return decode(read(store, f"{view}:{view}_value", user) or b"")[0]


def test_push_appends_and_views_do_not_disturb_each_other(more: Place) -> None:
    online, store = Online(), open_store()
    online.append({"u": make([1])})
    push(store, "wide", "u", encode(make([3, 2])))
    push(store, "wide", "u", encode(make([3, 4])))
    push(store, "wide2", "u", encode(make([9]), fence=5))
    push(store, "plain", "u", 7)
    assert sequence(store, "wide", "u")["time"].tolist() == [2, 3, 4]
    assert sequence(store, "wide2", "u")["time"].tolist() == [9]
    assert read(store, "plain:plain_value", "u") == 7
    found = online.sequence("u")
    assert found is not None
    assert (found[0]["time"].tolist(), found[1]) == ([1], 0)


def _trimmed(writer: int, rounds: int) -> None:
    store, order = open_store(), np.random.default_rng(writer).permutation(9_000)
    for part in np.array_split(order, rounds):
        push(store, "wide", "u", encode(make(list(part))))


def test_trimming_beside_appends_keeps_the_newest(more: Place) -> None:
    in_processes(more, _trimmed, 3, 12)
    assert sequence(open_store(), "wide", "u").tobytes() == make(range(7_000, 9_000)).tobytes()
    assert more.stored("u", "wide") <= 2_000 + 1_024 + 3 * 750


def test_deleting_a_view_removes_its_rows_and_nothing_else(more: Place) -> None:
    online, store = Online(), open_store()
    _others(more)
    online.append({"u": make([1])})
    for view in ("wide", "wide2"):
        push(store, view, "u", encode(make(range(3_000))))
    push(store, "plain", "u", 7)
    view = store.get_feature_view("wide")
    store.apply([], objects_to_delete=[view], partial=False)
    again = open_store()
    assert [v.name for v in again.list_feature_views() if "wide" in v.name] == ["wide2"]
    assert not _rows(more, "wide")
    assert len(sequence(again, "wide2", "u")) == 3_000
    assert read(again, "plain:plain_value", "u") == 7
    assert online.sequence("u") is not None
    again.apply([], objects_to_delete=[again.get_feature_view("plain")], partial=False)
    assert not _rows(more, "plain")
    assert len(sequence(open_store(), "wide2", "u")) == 3_000
    _others(more, there=True)


def test_teardown_removes_every_row_and_nothing_else(more: Place) -> None:
    _others(more)
    Online().append({f"u{i}": make([i]) for i in range(2_500)})
    store = open_store()
    for view in ("wide", "wide2"):
        push(store, view, "u", encode(make(range(3_000))))
    push(store, "plain", "u", 7)
    store.teardown()
    for view in ("user_sequence", "wide", "wide2", "plain"):
        assert not _rows(more, view)
    _others(more, there=True)


def test_teardown_of_the_only_project_removes_the_database(home: Path) -> None:
    Online().append({"u": make([1])})
    open_store().teardown()
    assert not list(home.glob("online.db*"))


def _others(place: Place, there: bool = False) -> None:
    """Rows that are not the project's: another project's of like names, and keys of none."""
    names = ["other", "xseminar:wide:{0}ru", "seminar:wide:2", "seminar:widest:{0}ru", "user_id-seminar"]
    if place.kind == "sqlite":
        with sqlite3.connect(place.home / "online.db") as connection:
            if not there:
                connection.execute("create table other_wide_page(a)")
                connection.execute("insert into other_wide_page values(1)")
            assert connection.execute("select a from other_wide_page").fetchall() == [(1,)]
        return
    left = set()
    for node in place.nodes:
        for name in names:
            with contextlib.suppress(redis.exceptions.MovedError):  # another node's
                if not there:
                    node.client().set(name, 1)
                if node.client().get(name):
                    left.add(name)
    assert left == set(names)


def _rows(place: Place, view: str) -> list[Any]:
    if place.kind != "sqlite":
        return place.keys(f"seminar:{view}:{{????????}}*")
    with sqlite3.connect(place.home / "online.db") as connection:
        query = "select name from sqlite_master where type = 'table' and name glob ?"
        return connection.execute(query, (f"seminar_{view}_*",)).fetchall()


def test_what_was_forgotten_is_in_no_file_after_a_purge(place: Place) -> None:
    online, rng = Online(), np.random.default_rng(5)
    users: dict[str, list[Records]] = {f"user-{i}": [] for i in range(40)}
    for _ in range(30):
        for user, sent in users.items():
            delta = np.frombuffer(rng.bytes(32 * int(rng.integers(1, 60))), RECORD).copy()
            delta["time"] = rng.integers(1, 1_000, len(delta))
            sent.append(delta)
            online.append({user: delta})
    gone = [f"user-{i}" for i in range(0, 40, 3)]
    for user in gone:
        online.forget(user, 2_000)
    online.purge()
    folders = [node.folder for node in place.nodes] or [place.home]
    content = b"".join(file.read_bytes() for folder in folders for file in folder.rglob("*") if file.is_file())
    for user, sent in users.items():
        whole = union(*sent)
        forgotten = user in gone
        assert len(online.sequence(user)[0]) == (0 if forgotten else len(whole))  # type: ignore[index]
        if forgotten:  # the 24 bytes after the time are random: no other record holds them
            assert not [record for record in whole if record.tobytes()[8:] in content]


@pytest.mark.long
def test_the_feature_server_appends_and_reads(more: Place, tmp_path: Path) -> None:
    port = free_port()
    command = [FEAST, "-f", configure(), "serve", "-h", "127.0.0.1", "-p", str(port), "--no-access-log"]
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(command, cwd=REPOSITORY, stdout=log, stderr=log, env=dict(os.environ))
    address = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        assert server.poll() is None, (tmp_path / "log").read_text()
        try:
            return httpx.get(f"{address}/health").status_code == 200
        except httpx.TransportError:
            return False

    try:
        until(answers, "the feature server", 90)
        online = Online()
        online.append({"u": make([2, 1])})
        request = {"feature_service": "ctr_v1", "entities": {"user_id": ["u", "nobody"], "item": [1, 1], "query": [2, 2]}}
        answer = httpx.post(f"{address}/get-online-features", json=request, timeout=30).json()
        column = answer["results"][answer["metadata"]["feature_names"].index("sequence")]
        assert base64.b64decode(column["values"][0]) == encode(make([1, 2]))
        assert column["statuses"] == ["PRESENT", "NOT_FOUND"]
        frame = {"user_id": ["u"], "plain_value": [7], "event_timestamp": [str(NOW)]}
        body = {"push_source_name": "plain_push", "df": frame, "to": "online"}
        assert httpx.post(f"{address}/push", json=body, timeout=30).status_code == 200
        request = {"features": ["plain:plain_value"], "entities": {"user_id": ["u"]}}
        answer = httpx.post(f"{address}/get-online-features", json=request, timeout=30).json()
        assert answer["results"][1]["values"] == [7]
        online.append({"u": make([3])})
        request = {"features": ["user_sequence:sequence"], "entities": {"user_id": ["u"]}}
        answer = httpx.post(f"{address}/get-online-features", json=request, timeout=30).json()
        assert base64.b64decode(answer["results"][1]["values"][0]) == encode(make([1, 2, 3]))
    finally:
        server.terminate()
        server.wait(30)


def test_a_purge_returns_when_redis_has_rewritten_its_files(tmp_path: Path) -> None:
    server = RedisServer(tmp_path / "redis", "--appendonly", "yes")
    try:
        client = server.start().client()

        def left() -> list[str]:
            files = [file for file in server.folder.rglob("*") if file.is_file()]
            return sorted(file.suffix for file in files if b"f0rg0tten" in file.read_bytes())

        client.set("secret", "f0rg0tten")
        client.save()
        client.delete("secret")
        assert left() == [".aof", ".rdb"]
        client.bgrewriteaof()  # one that is under way already is not enough
        rewrite_files(client)
        assert left() == [".rdb"]  # no snapshots are kept: this one was asked for by hand
        client.config_set("save", "3600 1000")
        rewrite_files(client)
        assert left() == []
    finally:
        server.stop()
