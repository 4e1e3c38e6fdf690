import math

import pytest
import torch

from model.nn.attention import BUCKETS, TargetAttention, gap_buckets, select


def test_gap_buckets_are_log_spaced_and_cover_all_gaps() -> None:
    gaps = torch.tensor([0, 59_000, 61_000, 86_400_000, 10 * 365 * 86_400_000])
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
    target, keys = torch.tensor([[[1.0, 0.0]]]), torch.tensor([[2.0, 1.0], [0.0, 5.0]])
    bias = torch.tensor([[[[0.5, 0.0]]]])
    out, mass, weights = attention(target, keys, bias, torch.ones(1, 1, 2, dtype=torch.bool))
    # logits: 2 / sqrt(2) + .5 and 0; a null behaviour with logit 0 takes part
    first = math.exp(2 / math.sqrt(2) + 0.5)
    total = first + 1 + 1
    assert weights.flatten().tolist() == pytest.approx([first / total, 1 / total])
    assert out.flatten().tolist() == pytest.approx([2 * first / total, (first + 5) / total])
    assert mass.item() == pytest.approx(math.log(total))


def test_the_folded_query_is_the_mean_of_the_heads_logits() -> None:
    torch.manual_seed(0)
    attention = TargetAttention(8, 4)
    torch.nn.init.normal_(attention.w_q)
    torch.nn.init.normal_(attention.w_k)
    target, keys = torch.randn(1, 3, 8), torch.randn(5, 8)
    q = torch.einsum("tcd,hde->tche", target, attention.w_q) / math.sqrt(2)
    k = torch.einsum("ld,hde->lhe", keys, attention.w_k)
    logits = torch.einsum("tche,lhe->tchl", q, k)
    assert torch.allclose(attention.fold(target) @ keys.T, logits.mean(2), atol=1e-5)


def test_dense_and_gathered_attention_agree() -> None:
    torch.manual_seed(0)
    attention = TargetAttention(8, 2)
    targets, keys = torch.randn(3, 4, 8), torch.randn(20, 8)
    bias = torch.randn(3, 1, 2, 20)
    mask = select(attention.fold(targets) @ keys.T + bias.mean(2), torch.ones(3, 1, 20, dtype=torch.bool), 5)
    assert mask.sum(-1).eq(5).all()
    place = mask.float().topk(5, -1).indices  # [t, c, k]
    gathered_bias = bias.expand(-1, 4, -1, -1).gather(3, place.unsqueeze(2).expand(-1, -1, 2, -1))
    dense = attention(targets, keys, bias, mask)
    gathered = attention(targets, keys[place], gathered_bias, torch.ones_like(place, dtype=torch.bool))
    assert torch.allclose(dense[0], gathered[0], atol=1e-5)
    assert torch.allclose(dense[1], gathered[1], atol=1e-5)


def test_what_is_masked_has_no_influence() -> None:
    torch.manual_seed(0)
    attention = TargetAttention(8, 2)
    targets, keys, bias = torch.randn(2, 3, 8), torch.randn(6, 8), torch.zeros(2, 1, 2, 6)
    mask = torch.arange(6).lt(torch.tensor([[2], [4]])).unsqueeze(1)
    before = attention(targets, keys, bias, mask)[0]
    keys[4:] = 1e4
    keys[2:4] += torch.tensor(0.0)
    assert torch.equal(before, attention(targets, keys, bias, mask)[0])
    scores = torch.full((2, 3, 6), 0.0)
    scores[..., 5] = 100  # the best score of all lies beyond the prefix
    assert not select(scores, mask, 2)[..., 4:].any()


def test_an_empty_history_is_no_special_case() -> None:
    attention = TargetAttention(8, 2)
    out, mass, weights = attention(
        torch.randn(1, 3, 8), torch.zeros(0, 8), torch.zeros(1, 1, 2, 0), torch.zeros(1, 1, 0).bool()
    )
    assert out.abs().sum() == mass.abs().sum() == 0
    assert weights.shape[-1] == 0
    nothing = attention(torch.randn(1, 3, 8), torch.randn(4, 8), torch.zeros(1, 1, 2, 4), torch.zeros(1, 1, 4).bool())
    assert nothing[0].abs().sum() == nothing[1].abs().sum() == 0
