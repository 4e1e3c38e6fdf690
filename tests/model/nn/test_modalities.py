import torch

from model.nn.modalities import ItemEncoder, ItemInputs, QueryEncoder


def inputs(n: int, *, image_width: int = 3) -> ItemInputs:
    generator = torch.Generator().manual_seed(0)
    return ItemInputs(
        torch.arange(n) % 3,
        torch.randint(0, 5, (n, 2), generator=generator),
        torch.randn(n, 4, generator=generator),
        torch.arange(n) % 2 == 0,
        torch.randn(n, image_width, generator=generator),
        torch.zeros(n, dtype=torch.bool),
    )


def encoder() -> ItemEncoder:
    torch.manual_seed(0)
    found = ItemEncoder(8, 3, 5, 4, 3)
    torch.nn.init.normal_(found.gate.weight)
    return found


def test_gates_sum_to_one_over_what_is_present() -> None:
    items = inputs(6)._replace(attributes=torch.tensor([[1, 2], [0, 0], [0, 0], [1, 0], [2, 3], [0, 0]]))
    found = encoder()
    vectors, present = found.modality_vectors(items)
    gates = found.gates(vectors, present)
    assert torch.allclose(gates.sum(1), present.any(1).float())
    assert (gates[~present] == 0).all()


def test_what_is_missing_has_no_influence() -> None:
    items, found = inputs(6), encoder()
    before = found(items)
    changed = items._replace(
        image=items.image + 100, text=torch.where(items.text_ok.unsqueeze(1), items.text, torch.tensor(9.0))
    )
    assert torch.equal(before, found(changed))


def test_slots_without_an_attribute_say_nothing() -> None:
    found = encoder()
    items = inputs(3)._replace(attributes=torch.tensor([[1, 2, 0, 0, 0, 0, 0, 0], [3, 4, 0, 0, 0, 0, 0, 0], [1] + [0] * 7]))
    vectors = found.modality_vectors(items)[0][:, 1]
    table = found.attribute_table.weight
    expected = torch.stack([(table[1] + table[2]) / 2**0.5, (table[3] + table[4]) / 2**0.5, table[1]])
    assert torch.allclose(vectors, expected, atol=1e-6)
    vectors.sum().backward()
    assert 0 not in table.grad.coalesce().indices()  # it stays what it is


def test_pictures_of_another_width_than_the_models_are_missing_ones() -> None:
    items, found = inputs(6), encoder()
    bare = found(items)
    for width in (0, 1, 7):
        other = inputs(6, image_width=width)._replace(image_ok=torch.ones(6, dtype=torch.bool))
        assert torch.equal(found(items._replace(image=other.image, image_ok=other.image_ok)), bare)
    assert not torch.equal(found(items._replace(image_ok=torch.ones(6, dtype=torch.bool))), bare)


def test_an_item_of_which_nothing_is_known_gets_the_learned_vector() -> None:
    found = encoder()
    torch.nn.init.ones_(found.nothing)
    nothing = ItemInputs(*(torch.zeros_like(column) for column in inputs(2)))
    assert torch.equal(found(nothing), torch.ones(2, 8))


def test_items_do_not_see_each_other() -> None:
    items, found = inputs(6), encoder()
    alone = found(ItemInputs(*(column[2:3] for column in items)))
    assert torch.allclose(found(items)[2:3], alone, atol=1e-6)


def test_queries_ignore_padding_and_the_order_of_words() -> None:
    torch.manual_seed(0)
    found = QueryEncoder(8, 20)
    torch.nn.init.normal_(found.out.weight)
    torch.nn.init.normal_(found.none)
    one = found(torch.tensor([[3, 7, 0, 0]]))
    assert torch.allclose(one, found(torch.tensor([[7, 3, 0]])), atol=1e-6)
    assert not torch.allclose(one, found(torch.tensor([[3, 8, 0, 0]])), atol=1e-3)
    assert torch.equal(found(torch.zeros(1, 4, dtype=torch.long)), found.none.unsqueeze(0))
