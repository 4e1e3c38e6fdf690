"""Search units of peers, each against its definition computed the slow way."""

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.peer_models.qin import FIRST, qin
from benchmarks.peer_models.sdim import collisions, sdim
from model.nn.attention import TargetAttention
from model.nn.inputs import Frozen, History, Parts, Seen, Targets
from model.nn.units import TIERS, UNITS, best, directions, equal_bits, named

D, K = 16, 4
ITEMS, QUERIES, LENGTHS = 20, 6, (30, 12)


@pytest.fixture
def step() -> tuple[TargetAttention, Targets, History, Parts, Seen]:
    """Two users of 30 and 12 behaviours, three and two moments, five candidates."""
    torch.manual_seed(0)
    total = sum(LENGTHS)
    item = torch.randint(0, ITEMS, (total,))
    query = torch.where(item == 0, torch.randint(1, QUERIES, (total,)), torch.randint(0, QUERIES, (total,)))
    time = torch.cat([torch.arange(n) * 86_400_000 for n in LENGTHS])
    history = History(item, query, time, (item == 0).long())
    text, asked = torch.randn(ITEMS, 8), torch.randn(QUERIES, 8)
    text[[0, 3]], asked[0] = 0, 0  # item 3 has no text
    norm = torch.nn.functional.normalize
    kinds = torch.cat([torch.tensor([-1]), torch.arange(ITEMS - 1) % 4])
    contents = Frozen(kinds, norm(text, dim=1), norm(asked, dim=1))
    parts = Parts(torch.randn(ITEMS, D, requires_grad=True), torch.randn(QUERIES, D, requires_grad=True), contents)
    begin, end = torch.tensor([0, 0, 0, 30, 30]), torch.tensor([10, 20, 30, 38, 42])
    seen = Seen(begin, end, torch.tensor([10, 20, 30, 8, 12]) * 86_400_000)
    items, queries = torch.randint(1, ITEMS, (5, 5)), torch.randint(0, QUERIES, (5, 1)).expand(5, 5)
    targets = Targets(parts.item[items] + parts.query[queries], items, queries)
    attention = TargetAttention(D, 2)
    torch.nn.init.normal_(attention.gap_bias)
    torch.nn.init.normal_(attention.kind_bias)
    return attention, targets, history, parts, seen


def retrieved(unit, step, monkeypatch: pytest.MonkeyPatch) -> list[set[int]]:  # type: ignore[no-untyped-def]
    """The places that a unit gives the ESU, of each target."""
    attention, targets, history, parts, seen = step
    given: list[Tensor] = []
    whole = TargetAttention.forward

    def watch(self, vector, parts, history, seen, places):  # type: ignore[no-untyped-def]
        given.append(places)
        return whole(self, vector, parts, history, seen, places)

    monkeypatch.setattr(TargetAttention, "forward", watch)
    found = unit(attention, K, targets, history, parts, seen)
    assert found.vector.shape == targets.vector.shape
    assert torch.isfinite(found.vector).all()
    (places,) = given
    for row in places.tolist():
        kept = [p for p in row if p >= 0]
        assert row[: len(kept)] == kept  # what is missing stands at the end
        assert len(set(kept)) == len(kept)
    return [{p for p in row if p >= 0} for row in places.tolist()]


def expected(step, score) -> list[set[int]]:  # type: ignore[no-untyped-def]
    """The K best places by a score(target index (t, c), place); None: never."""
    _, targets, _, _, seen = step
    out = []
    for t in range(len(seen.end)):
        for c in range(targets.item.shape[1]):
            rows = [(score(t, c, p), p) for p in range(int(seen.begin[t]), int(seen.end[t]))]
            ranked = sorted(((s, p) for s, p in rows if s is not None), reverse=True)
            out.append({p for _, p in ranked[:K]})
    return out


def test_sim_hard_takes_the_newest_of_the_type(step, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    _, targets, history, parts, _ = step

    def score(t: int, c: int, p: int) -> float | None:
        item, query = int(history.item[p]), int(history.query[p])
        if item == 0:
            return float(p) if query == int(targets.query[t, c]) else None
        return float(p) if parts.frozen.type[item] == parts.frozen.type[targets.item[t, c]] else None

    assert retrieved(UNITS["sim_hard"], step, monkeypatch) == expected(step, score)


def test_sim_soft_takes_the_greatest_inner_products(step, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    _, targets, history, parts, _ = step

    def score(t: int, c: int, p: int) -> float:
        key = parts.item[history.item[p]] + parts.query[history.query[p]]
        return float((targets.vector[t, c] @ key).detach())

    assert retrieved(UNITS["sim_soft"], step, monkeypatch) == expected(step, score)


@pytest.mark.parametrize("name", ["eta", "lsh"])
def test_hashing_takes_the_most_equal_bits(step, monkeypatch, name: str) -> None:  # type: ignore[no-untyped-def]
    attention, targets, history, parts, _ = step
    turn = directions(D, 64)

    def score(t: int, c: int, p: int) -> float:
        key = parts.item[history.item[p]] + parts.query[history.query[p]]
        target = attention.fold(targets.vector[t, c]) if name == "lsh" else targets.vector[t, c]
        return int((((target @ turn) >= 0) == ((key @ turn) >= 0)).sum()) + p / 1000

    assert retrieved(UNITS[name], step, monkeypatch) == expected(step, score)


def test_twin_takes_browses_by_the_esus_own_metric(step, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    attention, targets, history, parts, seen = step

    def score(t: int, c: int, p: int) -> float | None:
        item = int(history.item[p])
        if item == 0:
            return None
        mean = 0.0
        for h in range(2):
            q, k = parts.item[targets.item[t, c]] @ attention.w_q[h], parts.item[item] @ attention.w_k[h]
            mean += float((q @ k).detach()) / np.sqrt(D / 2) / 2
        gap = (seen.now[t] - history.time[p]).clamp(min=0).view(1)
        return mean + float(attention.bias(gap, history.kind[p].view(1)).detach())

    assert retrieved(UNITS["twin"], step, monkeypatch) == expected(step, score)


def test_muse_takes_the_greatest_cosines_of_content(step, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    _, targets, history, parts, _ = step

    def score(t: int, c: int, p: int) -> float | None:
        item, wanted = int(history.item[p]), int(targets.item[t, c])
        if 0 in (item,) or 3 in (item, wanted):
            return None
        return float(parts.frozen.text[wanted] @ parts.frozen.text[item]) + p * 1e-7

    assert retrieved(UNITS["muse"], step, monkeypatch) == expected(step, score)


def test_simtier_counts_cosines_over_the_whole_history(step) -> None:  # type: ignore[no-untyped-def]
    attention, targets, history, parts, seen = step
    plain, tiered = (UNITS[name](attention, K, targets, history, parts, seen) for name in ("muse", "muse_tier"))
    assert torch.equal(tiered.vector, plain.vector)
    assert torch.equal(tiered.mass[..., :2], plain.mass)
    counts = (tiered.mass[..., 2:] * 5).expm1()
    assert counts.shape[-1] == TIERS
    for t in range(5):
        for c in range(5):
            wanted = int(targets.item[t, c])
            items = [int(x) for x in history.item[int(seen.begin[t]) : int(seen.end[t])] if int(x) not in (0, 3)]
            items = [] if wanted == 3 else items
            cosines = [float(parts.frozen.text[wanted] @ parts.frozen.text[item]) for item in items]
            assert counts[t, c].sum().item() == pytest.approx(len(items), abs=1e-3)
            assert counts[t, c, -1].item() == pytest.approx(sum(x >= 0.9 for x in cosines), abs=1e-3)


def test_qin_asks_the_query_first_then_the_item(step, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    _, targets, history, parts, seen = step
    contents = parts.frozen

    def past(p: int) -> Tensor:
        item = int(history.item[p])
        return contents.text[item] if item else contents.query_text[history.query[p]]

    def score(t: int, c: int, p: int) -> float | None:
        query = int(targets.query[t, c])
        if query:
            places = range(int(seen.begin[t]), int(seen.end[t]))
            ranked = sorted(((float(contents.query_text[query] @ past(x)) + x * 1e-7, x) for x in places), reverse=True)
            if p not in [x for _, x in ranked[: FIRST * K]]:
                return None
        return float(contents.text[targets.item[t, c]] @ past(p)) + p * 1e-7

    assert retrieved(qin, step, monkeypatch) == expected(step, score)


def test_sdims_weight_is_the_papers_in_expectation() -> None:
    """(1 - angle / pi)^3, over many targets at each of some angles: 16 groups are few for one."""
    torch.manual_seed(1)
    for angle in (0.3, 1.0, 2.0):
        found = []
        for _ in range(300):
            a, b = torch.linalg.qr(torch.randn(32, 2)).Q.T
            found.append(collisions(a.view(1, 1, -1), (a * np.cos(angle) + b * np.sin(angle)).view(1, -1)).item())
        assert np.mean(found) == pytest.approx((1 - angle / np.pi) ** 3, abs=0.03)


def test_sdim_pools_what_collides_and_nothing_of_later(step) -> None:  # type: ignore[no-untyped-def]
    attention, targets, history, parts, seen = step
    found = sdim(attention, K, targets, history, parts, seen)
    w_v = torch.cat(list(attention.w_v), 1)
    for t in range(5):
        here = slice(int(seen.begin[t]), int(seen.end[t]))
        rows = parts.item[history.item[here]] + parts.query[history.query[here]]
        weights = collisions(targets.vector[t : t + 1], rows)[0]
        pooled = weights @ (rows @ w_v) / weights.sum(-1, keepdim=True).clamp(min=1e-6)
        assert torch.allclose(found.vector[t], pooled @ attention.w_o, atol=1e-5)
        assert torch.allclose(found.mass[t, :, 0], weights.sum(-1).log1p(), atol=1e-5)
    found.vector.sum().backward()
    assert parts.item.grad is not None
    assert attention.w_v.grad is not None


@pytest.mark.parametrize("name", [*UNITS, "benchmarks.peer_models.sdim:sdim", "benchmarks.peer_models.qin:qin"])
def test_a_unit_sees_nothing_at_or_after_the_end(step, name: str) -> None:  # type: ignore[no-untyped-def]
    attention, targets, history, parts, seen = step
    before = named(name)(attention, K, targets, history, parts, seen)
    shuffled = history._replace(item=history.item.clone(), query=history.query.clone())
    shuffled.item[20:30], shuffled.query[20:30] = 7, 2
    after = named(name)(attention, K, targets, shuffled, parts, seen)
    assert torch.equal(before.vector[[0, 1, 3, 4]], after.vector[[0, 1, 3, 4]])
    assert not torch.equal(before.vector[2], after.vector[2])


@pytest.mark.parametrize("name", [*UNITS, "benchmarks.peer_models.sdim:sdim", "benchmarks.peer_models.qin:qin"])
def test_an_empty_history_is_a_case_like_any_other(step, name: str) -> None:  # type: ignore[no-untyped-def]
    attention, targets, history, parts, _ = step
    nothing = Seen(torch.tensor([0, 0, 0, 30, 42]), torch.tensor([0, 0, 5, 30, 42]), torch.full((5,), 10**10))
    found = named(name)(attention, K, targets, history, parts, nothing)
    assert torch.isfinite(found.vector).all()
    assert (found.vector[[0, 1, 3, 4]] == 0).all()
    assert (found.mass[[0, 1, 3, 4]] == 0).all()


def test_equal_bits_by_hand() -> None:
    turn = torch.eye(3)
    targets, rows = torch.tensor([[[1.0, -1.0, 1.0]]]), torch.tensor([[1.0, -2.0, 3.0], [-1.0, 1.0, -1.0], [1.0, 1.0, 1.0]])
    assert equal_bits(targets, rows, turn).tolist() == [[[3.0, 0.0, 2.0]]]


def test_best_pads_with_minus_one() -> None:
    seen = Seen.of_one(torch.tensor([2]), torch.tensor([5]))
    targets = Targets(torch.zeros(1, 1, D), torch.ones(1, 1, dtype=torch.long), torch.zeros(1, 1, dtype=torch.long))
    places = best(lambda moments, behaviours: torch.tensor([[[1.0, 2.0]]]), targets, seen, 5)
    assert places.tolist() == [[1, 0, -1, -1, -1]]
