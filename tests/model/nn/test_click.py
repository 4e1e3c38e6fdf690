import torch

from model.nn.backbone import History, Parts
from model.nn.click import HALF_LIVES_DAYS, context, repeats, restore
from model.nn.modalities import ItemInputs
from model.nn.spec import Spec

DAY = 86_400_000
SPEC = Spec(8, 2, 4, 3, "topk", 5, 10, 10, 4, 0)


def some_items(n: int) -> ItemInputs:
    return ItemInputs(
        torch.arange(n) % 5,
        torch.ones(n, 2, dtype=torch.long),
        torch.ones(n, 4),
        torch.ones(n, dtype=torch.bool),
        torch.zeros(n, 0),
        torch.zeros(n, dtype=torch.bool),
    )


def test_repeats_by_hand() -> None:
    history = History(torch.tensor([1, 2, 1]), torch.zeros(3).long(), torch.tensor([0, DAY, 30 * DAY]), torch.ones(3).long())
    found = repeats(history, torch.tensor([2, 3]), torch.tensor([30 * DAY, 30 * DAY]), torch.tensor([[1, 0], [1, 2]]), 3)
    thirty = HALF_LIVES_DAYS.index(30.0)
    once, twice = torch.tensor(10 * 0.5).log1p(), torch.tensor(10 * 1.5).log1p()
    assert torch.allclose(found[0, 0, thirty], once)
    assert torch.allclose(found[1, 0, thirty], twice)
    assert torch.allclose(found[1, 0, -1], torch.tensor(20.0).log1p())
    assert (found[0, 1] == 0).all()  # row 0 is no item


def test_scores_do_not_depend_on_what_lies_after_the_prefix() -> None:
    torch.manual_seed(0)
    for search in ("topk", "all", "recent"):
        spec = Spec(**{**SPEC.__dict__, "search": search})
        model = spec.click().eval()
        torch.nn.init.normal_(model.head[-1].weight)
        parts = model.backbone.parts(some_items(5), torch.ones(3, 4, dtype=torch.long))
        kinds, queries = torch.ones(9, dtype=torch.long), torch.zeros(9, dtype=torch.long)
        history = History(torch.arange(9) % 6, queries, torch.arange(9) * DAY, kinds)
        later = History(history.item.clone(), queries, history.time.clone(), kinds)
        later.item[4:] = 5
        later.time[4:] += 5 * DAY
        items, rows = torch.tensor([[1, 2, 3], [4, 5, 1]]), torch.tensor([[1, 2, 3], [4, 0, 1]])
        prefix, now = torch.tensor([4, 3]), torch.tensor([4 * DAY, 3 * DAY])
        scores = [model(items, torch.zeros_like(items), rows, h, parts, prefix, now) for h in (history, later)]
        assert torch.equal(*scores)
        assert torch.isfinite(scores[0]).all()


def test_an_empty_history_is_scored() -> None:
    model = SPEC.click().eval()
    parts = model.backbone.parts(some_items(2), torch.ones(1, 4, dtype=torch.long))
    empty = History(*(torch.zeros(0, dtype=torch.long) for _ in range(4)))
    items = torch.tensor([[1, 2]])
    scores = model(items, torch.zeros_like(items), items, empty, parts, torch.tensor([0]), torch.tensor([DAY]))
    assert scores.shape == (1, 2)
    assert torch.isfinite(scores).all()


def test_context_is_bounded() -> None:
    found = context(torch.tensor([0, 10**13]), torch.tensor([0, 0]), torch.tensor([0, 100_000]))
    assert found.shape == (2, 6)
    assert found.abs().max() < 10


def test_every_attention_head_is_trained() -> None:
    model = SPEC.click()
    torch.nn.init.normal_(model.head[-1].weight)
    parts = model.backbone.parts(some_items(4), torch.ones(1, 4, dtype=torch.long))
    history = History(torch.tensor([1, 2, 3, 4, 1, 2]), torch.ones(6).long(), torch.arange(6) * DAY, torch.ones(6).long())
    items = torch.tensor([[1, 2]])
    model(items, items * 0, items, history, parts, torch.tensor([6]), torch.tensor([7 * DAY])).sum().backward()
    for name in ("w_q", "w_k", "w_v", "w_o", "gap_bias", "kind_bias"):
        grad = getattr(model.backbone.attention, name).grad
        assert grad is not None, name
        assert grad.abs().sum() > 0, name


def test_restore_takes_the_pretrained_backbone_by_name() -> None:
    psu, model = SPEC.psu(), SPEC.click()
    with torch.no_grad():
        for parameter in psu.parameters():
            parameter.fill_(0.25)
    report = restore(model, psu.state_dict())
    assert report["new"]
    assert all(name.startswith("backbone.") for name in report["restored"])
    assert "backbone.attention.w_k" in report["restored"]
    for name, value in model.state_dict().items():
        if name in report["restored"]:
            assert (value == 0.25).all(), name
    assert sorted(name for name in model.state_dict() if name.startswith("backbone.")) == report["restored"]


def test_parts_have_a_row_for_none() -> None:
    model = SPEC.click()
    parts: Parts = model.backbone.parts(some_items(3), torch.zeros(0, 4, dtype=torch.long))
    assert parts.item.shape == (4, 8)
    assert parts.query.shape == (1, 8)
