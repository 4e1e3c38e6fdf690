import itertools
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.errors import SeminarError
from features.record import (
    RECORD,
    Records,
    canonical_order,
    decode,
    encode,
    entity_id,
    is_canonical,
    normalise,
    query_text,
    signed,
    union,
    unsigned,
)

small = st.tuples(
    st.integers(0, 6), st.integers(0, 2), st.sampled_from([0, 1, 2**64 - 1]), st.integers(0, 2), st.integers(0, 1)
)


def make(rows: list[tuple[int, int, int, int, int]]) -> Records:
    records = np.zeros(len(rows), RECORD)
    for name, column in zip(("time", "item", "query", "digest", "kind"), zip(*rows, strict=True), strict=False):
        records[name] = column
    return records


sequences = st.lists(small, max_size=30).map(make)


@given(sequences)
def test_normalise_is_sorting_distinct_bytes(records: Records) -> None:
    # the definition, in plain Python: distinct byte strings by (time, the other 24 bytes)
    plain = sorted({r.tobytes() for r in records}, key=lambda b: (int.from_bytes(b[:8], "little", signed=True), b[8:]))
    result = normalise(records)
    assert [r.tobytes() for r in result] == plain
    assert is_canonical(result)


@given(sequences)
def test_is_canonical_agrees_with_normalise(records: Records) -> None:
    assert is_canonical(records) == (records.tobytes() == normalise(records).tobytes())


@given(sequences, sequences, sequences, st.integers(1, 8), st.integers(0, 4))
def test_union_is_idempotent_commutative_associative_and_capped(
    a: Records, b: Records, c: Records, cap: int, fence: int
) -> None:
    def join(*parts: Records) -> bytes:
        return bytes(union(*parts, fence=fence, cap=cap).tobytes())

    ab = union(a, b, fence=fence, cap=cap)
    assert join(a, a) == join(a)
    assert join(a, b) == join(b, a)
    assert join(ab, c) == join(a, union(b, c, fence=fence, cap=cap)) == join(a, b, c)
    assert len(ab) <= cap
    assert not len(ab) or ab["time"].min() >= fence


@settings(max_examples=50)
@given(st.lists(sequences, max_size=5), st.randoms(use_true_random=False))
def test_any_interleaving_with_repeats_and_write_backs_reads_the_same(parts: list[Records], rng: random.Random) -> None:
    expected = union(*parts, cap=10).tobytes()
    arriving = parts + rng.sample(parts, len(parts) // 2)
    rng.shuffle(arriving)
    row = np.empty(0, RECORD)
    for delta in arriving:
        row = np.concatenate([row, delta])
        if rng.random() < 0.5:
            row = normalise(row, cap=10)  # a write-back between appends
    assert normalise(row, cap=10).tobytes() == expected


@given(sequences, st.integers(0, 2**62))
def test_decode_inverts_encode(records: Records, fence: int) -> None:
    back, found = decode(encode(records, fence))
    assert back.tobytes() == records.tobytes()
    assert found == fence


@pytest.mark.parametrize(
    "blob", [b"\x01" * 15, encode(np.zeros(1, RECORD)) + b"x", b"\x02" + encode(np.zeros(1, RECORD))[1:]]
)
def test_decode_refuses_what_is_no_sequence(blob: bytes) -> None:
    with pytest.raises(SeminarError, match="sequence"):
        decode(blob)


def test_canonical_order_puts_leading_keys_first() -> None:
    records = make([(2, 0, 0, 0, 0), (1, 0, 0, 0, 0), (0, 0, 0, 0, 0)])
    assert canonical_order(records, np.array([0, 1, 1])).tolist() == [0, 2, 1]


def test_ids_are_stable_nonzero_and_signed_without_loss() -> None:
    assert entity_id("item-1") == entity_id("item-1") != entity_id("item-2")
    ids = [entity_id(str(i)) for i in range(2000)]
    assert 0 not in ids
    assert [unsigned(signed(i)) for i in ids] == ids
    assert any(signed(i) < 0 for i in ids)
    assert len(set(itertools.chain(ids))) == 2000


def test_a_query_has_one_form() -> None:
    assert query_text("  Ice   Cream\t") == query_text("ice cream") == "ice cream"
