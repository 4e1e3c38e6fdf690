import math

import pytest
import torch

from model.nn.psu import TEMPERATURE, alignment_loss, next_pair_loss, relevance_loss


def test_next_pair_loss_by_hand() -> None:
    scores = torch.tensor([[2.0, 1.0, 5.0]])
    log_q = torch.tensor([[-1.0, -3.0, 0.0]])
    mask = torch.tensor([[True, True, False]])
    # logits 3 and 4; the third candidate does not count
    assert next_pair_loss(scores, log_q, mask).item() == pytest.approx(math.log(1 + math.e))


def test_alignment_is_lower_for_matched_modalities_and_falls_when_trained() -> None:
    torch.manual_seed(0)
    matched = torch.randn(16, 1, 8).expand(-1, 2, -1)
    present, same = torch.ones(16, 2, dtype=torch.bool), torch.eye(16, dtype=torch.bool)
    shuffled = torch.stack([matched[:, 0], matched[torch.randperm(16), 1]], 1)
    assert alignment_loss(matched, present, same) < alignment_loss(shuffled, present, same)


def test_items_with_equal_text_are_not_each_others_negatives() -> None:
    vectors = torch.eye(3)[[0, 0, 1]].unsqueeze(1).repeat(1, 2, 1)
    present = torch.ones(3, 2, dtype=torch.bool)
    apart = torch.eye(3, dtype=torch.bool)
    same = apart | torch.tensor([[0, 1, 0], [1, 0, 0], [0, 0, 0]], dtype=torch.bool)
    first = math.log(1 + math.exp(-1 / TEMPERATURE))  # two items with one negative, cosine 0
    third = math.log(1 + 2 * math.exp(-1 / TEMPERATURE))
    assert alignment_loss(vectors, present, same).item() == pytest.approx((2 * first + third) / 3, abs=1e-6)
    assert alignment_loss(vectors, present, apart) > 0.4  # equal items as negatives: log 2 for two of three


def test_alignment_leaves_missing_modalities_out() -> None:
    vectors = torch.randn(4, 3, 8, requires_grad=True)
    present = torch.tensor([[True, True, False]] * 4)
    alignment_loss(vectors, present, torch.eye(4, dtype=torch.bool)).backward()
    assert vectors.grad is not None
    assert (vectors.grad[:, 2] == 0).all()
    assert (vectors.grad[:, :2] != 0).any()
    nothing = torch.zeros(4, 3, dtype=torch.bool)
    assert alignment_loss(vectors, nothing, torch.eye(4, dtype=torch.bool)).item() == 0


def test_relevance_pulls_a_query_and_its_item_together() -> None:
    query = torch.eye(4, requires_grad=True)
    item = torch.roll(torch.eye(4), 1, 0)
    ids = torch.arange(4)
    mismatched = relevance_loss(query, item, ids, ids)
    assert relevance_loss(query, torch.eye(4), ids, ids) < mismatched
    mismatched.backward()
    assert query.grad is not None
    stepped = query.detach() - query.grad
    cosine = torch.nn.functional.cosine_similarity
    assert (cosine(stepped, item) > cosine(query.detach(), item)).all()


def test_right_answers_of_the_same_query_are_no_negatives() -> None:
    query, item = torch.eye(2)[[0, 0]], torch.eye(2)
    assert relevance_loss(query, item, torch.tensor([5, 5]), torch.tensor([1, 2])).item() == pytest.approx(0, abs=1e-6)
    assert relevance_loss(query, item, torch.tensor([5, 6]), torch.tensor([1, 2])).item() > 1
