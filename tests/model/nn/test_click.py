import torch

from model.nn.click import ClickModel, restore
from model.nn.features import POPULARITY
from model.nn.inputs import History, Parts, Seen
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


def score(
    model: ClickModel, items: torch.Tensor, rows: torch.Tensor, history: History, parts: Parts, seen: Seen
) -> torch.Tensor:
    popularity, types = torch.zeros(*items.shape, POPULARITY), torch.arange(len(parts.item)) % 3
    source = torch.zeros(len(items), dtype=torch.long)
    found = model.evidence(items, torch.zeros_like(items), popularity, history, parts, seen, types, source)
    return model.combine(found, model.item_bias(rows).squeeze(-1))


def test_users_side_by_side_are_scored_as_each_alone() -> None:
    torch.manual_seed(0)
    for search in ("topk", "all", "recent"):
        model = Spec(**{**SPEC.__dict__, "search": search}).click().eval()
        torch.nn.init.normal_(model.head[-1].weight)
        parts = model.backbone.parts(some_items(5), torch.ones(3, 4, dtype=torch.long))
        queries = torch.zeros(9, dtype=torch.long)
        both = History(torch.arange(9) % 6, queries, torch.cat([torch.arange(5), torch.arange(4)]) * DAY, queries)
        items = torch.tensor([[1, 2, 3], [4, 5, 1]])
        seen = Seen(torch.tensor([0, 5]), torch.tensor([5, 9]), torch.tensor([6 * DAY, 5 * DAY]))
        together = score(model, items, items % 5, both, parts, seen)
        for i, here in enumerate((slice(0, 5), slice(5, 9))):
            mine = History(*(column[here] for column in both))
            alone = Seen.of_one(seen.end[i : i + 1] - seen.begin[i], seen.now[i : i + 1])
            assert torch.allclose(
                score(model, items[i : i + 1], items[i : i + 1] % 5, mine, parts, alone)[0], together[i], atol=1e-6
            )


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
        seen = Seen.of_one(torch.tensor([4, 3]), torch.tensor([4 * DAY, 3 * DAY]))
        scores = [score(model, items, rows, h, parts, seen) for h in (history, later)]
        assert torch.equal(*scores)
        assert torch.isfinite(scores[0]).all()


def test_an_empty_history_is_scored() -> None:
    model = SPEC.click().eval()
    parts = model.backbone.parts(some_items(2), torch.ones(1, 4, dtype=torch.long))
    empty = History(*(torch.zeros(0, dtype=torch.long) for _ in range(4)))
    items = torch.tensor([[1, 2]])
    scores = score(model, items, items, empty, parts, Seen.of_one(torch.tensor([0]), torch.tensor([DAY])))
    assert scores.shape == (1, 2)
    assert torch.isfinite(scores).all()


def test_every_attention_head_is_trained() -> None:
    model = SPEC.click()
    torch.nn.init.normal_(model.head[-1].weight)
    parts = model.backbone.parts(some_items(4), torch.ones(1, 4, dtype=torch.long))
    history = History(torch.tensor([1, 2, 3, 4, 1, 2]), torch.ones(6).long(), torch.arange(6) * DAY, torch.ones(6).long())
    items = torch.tensor([[1, 2]])
    score(model, items, items, history, parts, Seen.of_one(torch.tensor([6]), torch.tensor([7 * DAY]))).sum().backward()
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
