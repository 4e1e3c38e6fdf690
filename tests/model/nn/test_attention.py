import math

import numpy as np
import pytest
import torch
from torch import Tensor

from model.nn.attention import BUCKETS, TargetAttention, gap_buckets
from model.nn.backbone import last
from model.nn.inputs import History, Parts, Seen

DAY = 86_400_000


def some_history(length: int, items: int, queries: int, seed: int = 0) -> History:
    rng = np.random.default_rng(seed)
    columns = (
        rng.integers(0, items, length),
        rng.integers(0, queries, length),
        np.sort(rng.integers(0, 900 * DAY, length)),
        rng.integers(0, 3, length),
    )
    return History(*(torch.from_numpy(x) for x in columns))


def plain(
    attention: TargetAttention, targets: Tensor, parts: Parts, history: History, seen: Seen, places: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The definition, target by target and head by head, in float64: what the compiled loops must agree with."""
    t, c, d = targets.shape
    h, e = len(attention.w_q), d // len(attention.w_q)
    out, mass = torch.zeros(t, c, d, dtype=torch.float64), torch.zeros(t, c, h, dtype=torch.float64)
    weights = torch.zeros(t, c, h, places.shape[1], dtype=torch.float64)
    w_q, w_k, w_v = (w.double() for w in (attention.w_q, attention.w_k, attention.w_v))
    for i in range(t):
        for j in range(c):
            row = places[i * c + j if len(places) == t * c else i]
            at = row[row >= 0].long()
            keys = parts.item[history.item[at]].double() + parts.query[history.query[at]].double()
            bucket = gap_buckets((seen.now[i] - history.time[at]).clamp(min=0))
            for head in range(h):
                q = targets[i, j].double() @ w_q[head] / math.sqrt(e)
                logits = (
                    (keys @ w_k[head]) @ q + attention.gap_bias[head, bucket] + attention.kind_bias[head, history.kind[at]]
                )
                all_logits = torch.cat([logits, torch.zeros(1, dtype=torch.float64)])
                share = torch.softmax(all_logits, 0)[:-1]
                weights[i, j, head, : len(at)] = share
                mass[i, j, head] = torch.logsumexp(all_logits, 0)
                out[i, j, head * e : (head + 1) * e] = share @ (keys @ w_v[head])
    return out @ attention.w_o.double(), mass, weights


def an_attention(dim: int = 16, heads: int = 4) -> TargetAttention:
    torch.manual_seed(0)
    attention = TargetAttention(dim, heads)
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter, std=1.6 / math.sqrt(dim))
    return attention


def test_gap_buckets_are_log_spaced_and_cover_all_gaps() -> None:
    gaps = torch.tensor([0, 59_000, 61_000, DAY, 10 * 365 * DAY])
    found = gap_buckets(gaps).tolist()
    assert found[0] == found[1] == 0
    assert found == sorted(found)
    assert found[-1] == BUCKETS - 1


def test_attention_by_hand() -> None:
    attention = TargetAttention(2, 1)
    with torch.no_grad():
        for weight in (attention.w_q, attention.w_k, attention.w_v):
            weight.copy_(torch.eye(2).unsqueeze(0))
        attention.w_o.copy_(torch.eye(2))
        attention.kind_bias[0, 1] = 0.5
    parts = Parts(torch.tensor([[0.0, 0.0], [2.0, 1.0], [0.0, 5.0]]), torch.zeros(1, 2))
    history = History(torch.tensor([1, 2]), torch.tensor([0, 0]), torch.tensor([0, 1]), torch.tensor([1, 2]))
    seen = Seen.of_one(torch.tensor([2]), torch.tensor([2]))
    found = attention(torch.tensor([[[1.0, 0.0]]]), parts, history, seen, torch.tensor([[0, 1]], dtype=torch.int32))
    # logits: 2 / sqrt(2) + .5 and 0; a null behaviour with logit 0 takes part
    first = math.exp(2 / math.sqrt(2) + 0.5)
    total = first + 1 + 1
    assert found.weights.flatten().tolist() == pytest.approx([first / total, 1 / total], rel=1e-5)
    assert found.vector.flatten().tolist() == pytest.approx([2 * first / total, (first + 5) / total], rel=1e-5)
    assert found.mass.item() == pytest.approx(math.log(total), rel=1e-5)


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize(("dim", "heads"), [(16, 4), (64, 4), (8, 1), (24, 2), (64, 8), (256, 4), (12, 3), (20, 4)])
@pytest.mark.parametrize("shared", [True, False])
def test_compiled_attention_and_its_gradient_are_those_of_the_definition(shared: bool, dim: int, heads: int) -> None:
    attention = an_attention(dim, heads)
    history = some_history(40, 9, 5)
    size = 4 / math.sqrt(dim)  # so that logits are of some units, and shares neither equal nor of one place alone
    parts = Parts((size * torch.randn(9, dim)).requires_grad_(), (size * torch.randn(5, dim)).requires_grad_())
    targets = (size * torch.randn(3, 4, dim)).requires_grad_()
    seen = Seen(torch.tensor([0, 0, 20]), torch.tensor([15, 20, 40]), torch.tensor([700, 900, 901]) * DAY)
    places = last(seen, 12) if shared else attention.select(targets, parts, history, seen, 7)
    leaves = [targets, parts.item, parts.query, *attention.parameters()]
    gradients = []
    for run in (attention, lambda *given: plain(attention, *given)):
        vector, mass, weights = run(targets, parts, history, seen, places)
        slopes = torch.linspace(-1, 2, vector.numel()).view_as(vector), torch.linspace(1, -1, mass.numel()).view_as(mass)
        ((vector * slopes[0]).sum() + (mass * slopes[1]).sum()).backward()  # type: ignore[no-untyped-call]
        gradients.append([*(x.detach().double() for x in (vector, mass, weights)), *(x.grad.double() for x in leaves)])  # type: ignore[union-attr]
        for leaf in leaves:
            leaf.grad = None
    for one, other in zip(*gradients, strict=True):
        assert torch.allclose(one, other, atol=2e-5, rtol=2e-4)


@pytest.mark.usefixtures("path")
def test_threads_share_nothing() -> None:
    attention = an_attention()
    history = some_history(300, 50, 5)
    parts = Parts(torch.randn(50, 16, requires_grad=True), torch.randn(5, 16))
    targets, seen = torch.randn(40, 10, 16), Seen.of_one(torch.full((40,), 300), torch.full((40,), 900 * DAY))
    places = attention.select(targets, parts, history, seen, 20)
    found, before = [], torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        vector = attention(targets, parts, history, seen, places).vector
        vector.sum().backward()  # type: ignore[no-untyped-call]
        assert parts.item.grad is not None
        found.append((vector.detach(), parts.item.grad.clone()))
        parts.item.grad = None
    torch.set_num_threads(before)
    assert torch.allclose(found[0][0], found[1][0], atol=1e-5)  # torch's own products round by how many threads share them
    assert torch.allclose(found[0][1], found[1][1], atol=1e-4)


def test_the_folded_query_is_the_mean_of_the_heads_logits() -> None:
    attention = an_attention(8, 4)
    target, keys = torch.randn(1, 3, 8), torch.randn(5, 8)
    q = torch.einsum("tcd,hde->tche", target, attention.w_q) / math.sqrt(2)
    k = torch.einsum("ld,hde->lhe", keys, attention.w_k)
    logits = torch.einsum("tche,lhe->tchl", q, k)
    assert torch.allclose(attention.fold(target) @ keys.T, logits.mean(2), atol=1e-5)


@pytest.mark.parametrize("k", [1, 7, 50, 200])
def test_selected_are_the_best_by_the_mean_logit_plus_bias(k: int) -> None:
    attention = an_attention()
    history = some_history(130, 20, 6)
    parts = Parts(torch.randn(20, 16), torch.randn(6, 16))
    targets = torch.randn(3, 5, 16)
    seen = Seen(torch.tensor([0, 0, 60]), torch.tensor([30, 60, 130]), torch.tensor([500, 600, 900]) * DAY)
    places = attention.select(targets, parts, history, seen, k).view(3, 5, -1)
    for t in range(3):
        here = torch.arange(int(seen.begin[t]), int(seen.end[t]))
        keys = parts.item[history.item[here]] + parts.query[history.query[here]]
        bias = attention.bias((seen.now[t] - history.time[here]).clamp(min=0), history.kind[here])
        scores = attention.fold(targets[t]) @ keys.T + bias
        for c in range(5):
            found = places[t, c][places[t, c] >= 0].long()
            assert len(set(found.tolist())) == len(found) == min(k, len(here))
            assert found.tolist() == sorted(found.tolist())
            least = scores[c].sort(descending=True).values[len(found) - 1]
            assert (scores[c][found - here[0]] >= least - 1e-4).all()


def test_equal_scores_are_no_trouble() -> None:
    attention = an_attention()
    history = History(*(torch.zeros(30, dtype=torch.long) for _ in range(4)))
    parts, seen = Parts(torch.zeros(1, 16), torch.zeros(1, 16)), Seen.of_one(torch.tensor([30]), torch.tensor([5]))
    assert attention.select(torch.randn(1, 1, 16), parts, history, seen, 4).tolist() == [[0, 1, 2, 3]]


@pytest.mark.usefixtures("path")
def test_an_empty_history_is_no_special_case() -> None:
    attention = an_attention()
    empty = History(*(torch.zeros(0, dtype=torch.long) for _ in range(4)))
    parts, seen = Parts(torch.randn(1, 16), torch.randn(1, 16)), Seen.of_one(torch.tensor([0]), torch.tensor([5]))
    targets = torch.randn(1, 3, 16)
    for places in (attention.select(targets, parts, empty, seen, 4), last(seen, 10)):
        found = attention(targets, parts, empty, seen, places)
        assert found.vector.abs().sum() == found.mass.abs().sum() == 0


def test_what_is_no_number_chooses_nothing_and_harms_nothing() -> None:
    attention, history = an_attention(), some_history(60, 9, 5)
    parts, seen = (
        Parts(torch.full((9, 16), torch.nan), torch.zeros(5, 16)),
        Seen.of_one(torch.tensor([60]), torch.tensor([DAY])),
    )
    places = attention.select(torch.randn(1, 3, 16), parts, history, seen, 4)
    assert ((places >= -1) & (places < 60)).all()
