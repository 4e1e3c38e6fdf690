"""Validation: what is right comes through unchanged, and every kind of wrong is named by field, value and reason."""

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.record import VECTOR_MOST, query_text
from streaming import decoders
from streaming.events import BROWSE, IMPRESSION, ITEM, SEARCH, SKEW_MS, TYPES, Event, Invalid, Message, build, check, parse

T0 = 1_500_000_000_000
DATA: dict[str, dict[str, Any]] = {
    SEARCH: {"user_id": "u", "query": "red shoes"},
    BROWSE: {"user_id": "u", "item_id": "i", "dwell_s": 1.5, "query": "red", "search_id": "s", "impression_id": "x"},
    IMPRESSION: {"user_id": "u", "impression_id": "x", "items": [{"item_id": "i", "position": 0}], "place": "top"},
    ITEM: {"item_id": "i", "title": "A thing", "attributes": {"size": "big"}, "text_vector": [0.5, -1]},
}


def broken(kind: str = SEARCH, key: bytes | None = b"u", body: bytes | None = None, **headers: Any) -> Message:
    given = {**dict(build(kind, DATA[kind], T0, "test", "1").headers()), **headers}
    return Message("t", 0, 0, key, json.dumps(DATA[kind]).encode() if body is None else body, given)


@pytest.mark.parametrize("kind", DATA)
def test_an_event_survives_its_message(kind: str) -> None:
    event = build(kind, DATA[kind], T0 + 123, "test")
    assert parse(event.message("t", 1, 2)) == event


def test_fields_that_no_schema_names_are_allowed() -> None:
    assert parse(broken(body=b'{"user_id":"u","query":"a","new":{"x":1}}')).data["new"] == {"x": 1}


def test_an_id_that_is_not_given_comes_from_the_content() -> None:
    first = build(SEARCH, {"user_id": "u", "query": "a"}, T0, "test")
    assert build(SEARCH, {"query": "a", "user_id": "u"}, T0, "test").id == first.id
    others = [
        build(SEARCH, {"user_id": "u", "query": "b"}, T0, "test"),
        build(SEARCH, {"user_id": "u", "query": "a"}, T0 + 1, "test"),
        build(SEARCH, {"user_id": "u", "query": "a"}, T0, "other"),
    ]
    assert len({first.id, *(event.id for event in others)}) == 4


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (broken(ce_type=b"seminar.search.v2"), "ce_type"),
        (broken(ce_type=None), "ce_type"),
        (broken(ce_id=b""), "ce_id"),
        (broken(ce_id=b"\xff"), "ce_id"),
        (broken(ce_source=None), "ce_source"),
        (broken(ce_time=b"yesterday"), "ce_time"),
        (broken(ce_time=b"2017-05-01T00:00:00"), "ce_time"),
        (broken(ce_time=b"2017-W05-1T00:00:00Z"), "ce_time"),
        (broken(ce_time=b"1969-12-31T23:59:59Z"), "ce_time"),
        (broken(ce_time=b"0001-01-01T00:00:00+14:00"), "ce_time"),
        (broken(key=b"v"), "key"),
        (broken(key=None), "key"),
        (broken(ITEM, key=b"u"), "key"),
        (broken(body=b""), "data"),
        (broken(body=b"[]"), "data"),
        (broken(body=b"[" * 200_000), "data"),
        (broken(body=b'{"user_id":"u","query":"\xff"}'), "data"),
        (broken(body=b'{"user_id":"u","query":"\xed\xa0\x80"}'), "data"),
        (broken(body=b'{"user_id":"u","query":"\\ud800"}'), "data"),
        (broken(body=b'{"user_id":"u","query":"a","new":"\\uDFFF"}'), "data"),
        (broken(body=b'{"user_id":"u"}'), "data"),
        (broken(body=b'{"user_id":"u","query":" \\t"}'), "query"),
        (broken(body=b'{"user_id":5,"query":"a"}'), "user_id"),
        (broken(body=b'{"user_id":"","query":"a"}'), "user_id"),
        (broken(BROWSE, body=b'{"user_id":"u","item_id":"i","dwell_s":-1}'), "dwell_s"),
        (broken(BROWSE, body=b'{"user_id":"u","item_id":"i","dwell_s":NaN}'), "data"),
        (broken(BROWSE, body=b'{"user_id":"u","item_id":"i","dwell_s":1e999}'), "dwell_s"),
        (broken(BROWSE, body=b'{"user_id":"u","item_id":"i","dwell_s":true}'), "dwell_s"),
        (broken(IMPRESSION, body=b'{"user_id":"u","impression_id":"x","items":[]}'), "items"),
        (broken(ITEM, b"i", b'{"item_id":"i","title":"t","text_vector":[1e999]}'), "text_vector"),
        (broken(ITEM, b"i", b'{"item_id":"i","title":"t","text_vector":[1e300]}'), "text_vector"),
        (broken(ITEM, b"i", b'{"item_id":"i","title":"t","text_vector":[0.5,-1000001]}'), "text_vector"),
        (broken(ITEM, b"i", b'{"item_id":"i","title":"t","image_vector":[1' + b"0" * 400 + b"]}"), "image_vector"),
        (broken(ITEM, b"i", b'{"item_id":"i","title":"t","image_vector":[%s0]}' % (b"0," * 4096)), "image_vector"),
        (broken(ITEM, b"i", b'{"item_id":"i","title":"t","attributes":{"a":1}}'), "attributes.a"),
    ],
)
def test_what_is_wrong_is_named(message: Message, field: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse(message)
    assert caught.value.field == field
    assert caught.value.reason
    assert len(caught.value.value) <= 1000


def test_the_future_is_refused_beyond_the_skew() -> None:
    now = int(time.time() * 1000)
    message = build(SEARCH, DATA[SEARCH], now, "test").message()
    assert parse(message, now - SKEW_MS + 1000).time_ms == now
    with pytest.raises(Invalid, match="future"):
        parse(message, now - SKEW_MS - 1)


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        (BROWSE, {"dwell_s": float("nan")}),
        (SEARCH, {"query": "\ud800"}),
        (ITEM, {"text_vector": [float("inf")]}),
        (ITEM, {"image_vector": [0.5, 3e38]}),
        (ITEM, {"title": None}),
    ],
)
def test_nothing_invalid_can_be_built(kind: str, change: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        build(kind, DATA[kind] | change, T0, "test")
    for time_ms in (-1, 10**15):
        with pytest.raises(Invalid):
            build(kind, DATA[kind], time_ms, "test")


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text("a\ud800 \0é", max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "item_id", "position"]), inner),
    max_leaves=5,
)
_fields = st.sampled_from(["user_id", "item_id", "query", "dwell_s", "items", "title", "attributes", "text_vector"])


@given(st.sampled_from(sorted(DATA)), st.dictionaries(_fields, _json), st.binary(max_size=8) | st.none(), st.booleans())
def test_any_message_is_an_event_or_invalid_and_nothing_else(
    kind: str, changes: dict[str, Any], raw: bytes | None, is_raw: bool
) -> None:
    """A message that raised anything else would block its partition for ever."""
    body = raw if is_raw else json.dumps(DATA[kind] | changes).encode()
    headers = dict(build(kind, DATA[kind], T0, "test", "1").headers())
    try:
        event = parse(Message("t", 0, 0, b"i" if kind == ITEM else b"u", body, headers))
    except Invalid:
        return
    assert isinstance(event, Event)
    event.value()
    assert kind == ITEM or query_text(event.data.get("query", "x"))


@pytest.mark.parametrize("kind", TYPES)
def test_every_schema_has_a_decoder_that_takes_plain_events(kind: str) -> None:
    """Without this, a rule that no decoder can express would cost each event of the type the complete validator."""
    data = DATA.get(kind, {"user_id": "u"})
    assert decoders.decode(kind, json.dumps(data).encode()) == data


_texts = st.sampled_from(["", " ", "\u2003", "u", "é", "a\0", "x" * 256, "é" * 257, "x" * 1000, "x" * 1001])
_numbers = st.sampled_from([-1, -0.0, 0, 1.0, 2.5, 10_000, 10_001, 86_400, 86_400.5, 1e300, 10**400, True, None, "1"])
_items = st.lists(st.fixed_dictionaries({"item_id": _texts, "position": _numbers}), max_size=2)
_near = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(["user_id", "item_id", "query", "search_id", "impression_id", "place", "title", "brand"], _texts),
        "dwell_s": _numbers,
        "items": _items,
        "attributes": st.dictionaries(_texts, _texts | _numbers, max_size=3),
        "text_vector": st.lists(_numbers, max_size=3),
        "new": _json,
    },
)


@given(st.sampled_from(TYPES), _near, st.booleans())
def test_a_decoder_takes_nothing_that_the_validator_refuses(kind: str, changes: dict[str, Any], escaped: bool) -> None:
    body = json.dumps(DATA.get(kind, {"user_id": "u"}) | changes, ensure_ascii=escaped).encode(errors="surrogatepass")
    found = decoders.decode(kind, body)
    if found is not None:
        assert found == json.loads(body)
        if not any(abs(x) > VECTOR_MOST for x in found.get("text_vector", ())):
            check(kind, found)


@pytest.mark.parametrize(
    "body",
    [
        b'{"user_id":"u","query":"\xed\xa0\x80"}',
        b'{"user_id":"u","query":"\\ud800"}',
        b'{"user_id":"u","query":"a","query":""}',
        b'{"user_id":"u","query":"a","new":"\xff"}',
        b'{"user_id":"u","query":"a\nb"}',
        b'{"user_id":"u","query":"a"} x',
        b'\xef\xbb\xbf{"user_id":"u","query":"a"}',
        b"[" * 200_000,
        b"",
    ],
)
def test_a_decoder_takes_no_broken_text(body: bytes) -> None:
    assert decoders.decode(SEARCH, body) is None
