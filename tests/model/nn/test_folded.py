import numpy as np
import pytest
import torch

from model.nn.attention import GAP_EDGES, TargetAttention, gap_buckets
from model.nn.folded import Folded, Past, Tables, buckets
from model.nn.inputs import History, Parts, Seen


def test_buckets_are_those_of_training() -> None:
    now = 1_600_000_000_000
    gaps = np.sort(np.concatenate([[0, 1], GAP_EDGES, np.array(GAP_EDGES) - 1, np.array(GAP_EDGES) + 1, [10**13]]))[::-1]
    time = np.ascontiguousarray(now - gaps)
    assert buckets(time, now).tolist() == gap_buckets(torch.from_numpy(gaps.copy())).tolist()
    assert buckets(time[:0], now).tolist() == []
    late = np.array([now + 5], np.int64)  # later than the request: no gap
    assert buckets(late, now).tolist() == [0]


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("late", [0, 3])
def test_folded_attention_is_attention(shared: bool, late: int) -> None:
    rng, torch_rng = np.random.default_rng(0), torch.manual_seed(0)
    attention, now = TargetAttention(16, 4), 1_600_000_000_000
    with torch.no_grad():
        attention.gap_bias.normal_(generator=torch_rng)
        attention.kind_bias.normal_(generator=torch_rng)
        for weight in (attention.w_q, attention.w_k, attention.w_v, attention.w_o):
            weight.normal_(generator=torch_rng)
    items, queries = (rng.standard_normal((n, 16), np.float32) for n in (30, 9))
    item, query = rng.integers(0, 30, 200), rng.integers(0, 9, 200)
    time = np.sort(now - rng.integers(0, 10**11, 200))
    kind = rng.integers(1, 3, 200)
    targets = rng.standard_normal((5, 16), np.float32)
    places = rng.integers(0, 200, (1 if shared else 5, 12)).astype(np.int32)
    places[:, 9:] = -1
    history = History(*(torch.from_numpy(x) for x in (item, query, time, kind)))
    parts, seen = (
        Parts(torch.from_numpy(items), torch.from_numpy(queries)),
        Seen.of_one(torch.tensor([200]), torch.tensor([now])),
    )
    expected = attention(torch.from_numpy(targets)[None], parts, history, seen, torch.from_numpy(places))
    folded = Folded(attention)
    by_head, mean = folded.fold(targets)
    past = Past(item.astype(np.int32), query.astype(np.int32), buckets(time, now), kind.astype(np.uint8))
    cut = (30 - late, 9 - late)
    tables = Tables(items[: cut[0]], items[cut[0] :], queries[: cut[1]], queries[cut[1] :])
    found = folded.attend(by_head, tables, past, places)
    for got, wanted in zip(found, (expected.vector[0], expected.mass[0], expected.weights[0].transpose(1, 2)), strict=True):
        assert got == pytest.approx(wanted.detach().numpy(), rel=2e-4, abs=2e-4)
    assert mean == pytest.approx(attention.fold(torch.from_numpy(targets)).detach().numpy(), abs=1e-5)
    gaps = torch.from_numpy(now - time)
    assert folded.bias(past) == pytest.approx(attention.bias(gaps, torch.from_numpy(kind)).detach().numpy(), abs=1e-6)
