"""The contract of sequence views, the same for every online store."""

import asyncio

import numpy as np
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value

from features.online import Online
from features.record import Records, encode, union
from features.repository import open_store
from features.rows import look_at
from tests.features.conftest import Place, in_processes, make

CAP = 100_000


def times(online: Online, user: str = "u") -> list[int]:
    found = online.sequence(user)
    assert found is not None
    return list(found[0]["time"].tolist())


def test_append_is_a_union_whatever_the_order_and_the_repeats(place: Place) -> None:
    online, rng = Online(), np.random.default_rng(0)
    sent: list[Records] = []
    for _ in range(60):
        delta = make(list(rng.integers(0, 400, rng.integers(1, 30))), int(rng.integers(1, 3)))
        sent.append(delta)
        online.append({"u": delta})
        if rng.random() < 0.3:
            online.append({"u": sent[int(rng.integers(len(sent)))]})
    found = online.sequence("u")
    assert found is not None
    assert found[0].tobytes() == union(*sent).tobytes()
    assert found[1] == 0


def test_a_row_that_only_repeats_does_not_grow(place: Place) -> None:
    online, delta = Online(), make(range(100))
    for _ in range(look_at(0, CAP) // 50):
        online.append({"u": delta})
    assert 100 <= place.stored("u") <= look_at(100, CAP)
    found = online.sequence("u")
    assert found is not None
    assert found[0].tobytes() == delta.tobytes()


def test_a_long_row_that_only_repeats_does_not_grow(place: Place) -> None:
    online, delta = Online(), make(range(5_000))
    for _ in range(4):
        online.append({"u": delta})
    assert place.stored("u") <= look_at(5_000, CAP)
    assert times(online) == list(range(5_000))


def test_the_cap_of_the_view_keeps_the_newest(place: Place) -> None:
    online = Online()
    online.append({"u": make(range(60_000))})
    online.append({"u": make(range(60_000, CAP + 5_000))})
    assert times(online) == list(range(5_000, CAP + 5_000))
    for start in range(CAP + 5_000, 130_000, 2_500):
        online.append({"u": make(range(start, start + 2_500))})
    assert times(online) == list(range(30_000, 130_000))
    assert place.stored("u") <= look_at(CAP, CAP)
    online.append({"u": make([3])})
    assert times(online)[0] == 30_000


def test_a_fence_forgets_older_records_now_and_later(place: Place) -> None:
    online = Online()
    online.append({"u": make([1, 2, 3, 4]), "other": make([1])})
    online.append({"u": make([2, 5])}, {"u": 3})
    assert times(online) == [3, 4, 5]
    assert place.stored("u") == 3
    online.append({"u": make([2, 6, 1])})
    assert times(online) == [3, 4, 5, 6]
    assert place.stored("u") == 4
    online.forget("u", 2)  # lower than before: nothing comes back, nothing goes
    found = online.sequence("u")
    assert found is not None
    assert found[1] == 3
    online.forget("u", 10)
    assert place.stored("u") == 0
    found = online.sequence("u")
    assert found is not None
    assert (len(found[0]), found[1]) == (0, 10)
    online.append({"u": make([9])})
    online.append({"u": make([10])})
    assert times(online) == [10]
    assert times(online, "other") == [1]


def test_a_fence_may_come_before_the_user(place: Place) -> None:
    online = Online()
    online.append({"u": make([4, 2, 3])}, {"u": 3})
    assert times(online) == [3, 4]
    assert place.stored("u") == 2
    online.forget("v", 7)
    online.append({"v": make([6, 7])})
    assert times(online, "v") == [7]


def test_a_fence_falls_into_a_long_disordered_row(place: Place) -> None:
    online, rng = Online(), np.random.default_rng(1)
    sent = [make(list(rng.integers(0, 10_000, 500))) for _ in range(9)]
    for delta in sent:
        online.append({"u": delta})
    online.forget("u", 9_000)
    late = make(list(rng.integers(0, 10_000, 2_000)), 2)
    online.append({"u": late})
    found = online.sequence("u")
    assert found is not None
    assert found[0].tobytes() == union(*sent, late, fence=9_000).tobytes()
    assert place.stored("u") < 1_000


def test_empty_deltas_and_unknown_users(place: Place) -> None:
    online, store = Online(), open_store()
    view, provider = store.get_feature_view("user_sequence"), store._get_provider()
    now = open_store().get_feature_view("user_sequence").created_timestamp
    for user, value in (("empty", Value(bytes_val=b"")), ("null", Value())):
        provider.online_write_batch(store.config, view, [(_key(user), {"sequence": value}, now, None)], None)
        found = online.sequence(user)
        assert found is not None
        assert len(found[0]) == 0
        online.append({user: make([1])})
        assert times(online, user) == [1]
    assert online.sequences(["empty", "nobody", "null"])[1] is None
    assert provider.online_read(store.config, view, [_key("nobody")]) == [(None, None)]


def test_many_users_in_one_batch(place: Place) -> None:
    online = Online()
    online.append({f"user-{i}": make([i, i + 1]) for i in range(3_000)})
    online.append({f"user-{i}": make([i]) for i in range(0, 3_000, 2)})
    found = online.sequences([f"user-{i}" for i in range(3_000)])
    assert [x[0]["time"].tolist() if x else None for x in found] == [[i, i + 1] for i in range(3_000)]


def test_stock_reads_see_the_sequence(place: Place) -> None:
    online, store = Online(), open_store()
    online.append({"u": make([2, 1])})
    row = {"user_id": "u", "item": 1, "query": 2}
    service = store.get_feature_service("ctr_v1")
    answer = store.get_online_features(service, [row]).to_dict()
    assert answer["sequence"] == [encode(make([1, 2]))]
    assert answer["title"] == [None]
    assert asyncio.run(store.get_online_features_async(service, [row])).to_dict() == answer
    view, provider = store.get_feature_view("user_sequence"), store._get_provider()
    ((timestamp, values),) = provider.online_read(store.config, view, [_key("u")])
    assert timestamp.timestamp() == 0.002
    assert values["sequence"].bytes_val == encode(make([1, 2]))
    assert asyncio.run(provider.online_read_async(store.config, view, [_key("u")])) == [(timestamp, values)]


def test_async_writes_append(place: Place) -> None:
    store = open_store()
    view, provider = store.get_feature_view("user_sequence"), store._get_provider()

    async def write() -> None:
        rows = [(_key("u"), {"sequence": Value(bytes_val=encode(make([i])))}, view.created_timestamp, None) for i in (1, 2)]
        await asyncio.gather(*(provider.online_write_batch_async(store.config, view, [row], None) for row in rows))

    asyncio.run(write())
    assert times(Online()) == [1, 2]


def _key(user: str) -> EntityKey:
    return EntityKey(join_keys=["user_id"], entity_values=[Value(string_val=user)])


def _own(writer: int, rounds: int) -> None:
    online = Online()
    for i in range(rounds):
        online.append({"u": make([i], item=writer + 1), f"own-{writer}": make([i])})


def _shuffled(writer: int, rounds: int) -> None:
    """Every writer sends the same 20,000 records in an order of its own: rows are tidied under the others' hands."""
    online = Online()
    order = np.random.default_rng(writer).permutation(20_000)
    for part in np.array_split(order, rounds):
        online.append({"u": make(list(part), item=1)})


def test_writing_processes_lose_nothing(place: Place) -> None:
    in_processes(place, _own, 3, 100)
    online = Online()
    assert len(times(online)) == 300
    assert [len(times(online, f"own-{writer}")) for writer in range(3)] == [100] * 3


def test_rewriting_a_row_loses_no_append_that_comes_meanwhile(place: Place) -> None:
    in_processes(place, _shuffled, 3, 60)
    found = Online().sequence("u")
    assert found is not None
    assert found[0].tobytes() == make(range(20_000)).tobytes()
    assert place.stored("u") < 40_000  # of 60,000 sent: it was rewritten
