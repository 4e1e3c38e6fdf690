import copy
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from model.config import Config, TrainConfig
from model.nn.click import IMPRESSED, SAMPLED, ClickModel
from model.train import checkpoint, ctr, wide
from model.train.batch import encode, gather
from model.train.dataset import Dataset, load, vocabulary
from model.train.examples import ClickExamples
from model.train.popularity import Popularity
from model.train.psu import spec_of
from tests.model.conftest import CONFIG, Trained


class Setting(NamedTuple):
    dataset: Dataset
    examples: ClickExamples
    popularity: Popularity
    model: ClickModel


@pytest.fixture
def setting(trained: Trained) -> Setting:
    dataset = load(trained.home, trained.windows.t2, CONFIG.model)
    examples = ClickExamples(trained.home, dataset, trained.windows.t1, trained.windows.t2, CONFIG.train.negatives)
    popularity = Popularity(dataset, trained.windows.t2)
    torch.manual_seed(0)
    rows = vocabulary(dataset, trained.windows.t1, CONFIG.train)
    model = spec_of(CONFIG, dataset, int(rows.max())).click().eval()
    ctr.standardise(model, ctr.Task(dataset, rows, examples, popularity, CONFIG.train), 0)
    return Setting(dataset, examples, popularity, model)


def test_it_learns_from_a_sample_and_changes_nothing_else(setting: Setting) -> None:
    model, before = setting.model, copy.deepcopy(setting.model.state_dict())
    rng = np.random.default_rng(0)
    found = wide.sample(setting.dataset, setting.examples, setting.popularity, rng, 2)
    assert found.sizes.sum() == len(found.plain) == len(found.labels) == len(found.position)
    losses = wide.train(model, found, TrainConfig(wide_epochs=4, listwise=0.5), rng)
    assert losses[-1] < losses[0] - 0.1
    changed = {name.split(".")[0] for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed <= {"wide", "source", "position"}
    assert "wide" in changed


@pytest.mark.parametrize("moments", [1, 19 * wide.BATCH, 20 * wide.BATCH])
def test_any_number_of_moments_has_a_schedule(setting: Setting, moments: int) -> None:
    found = wide.sample(setting.dataset, setting.examples, setting.popularity, np.random.default_rng(0), 2)
    sizes = np.resize(found.sizes[:1], moments)
    source = found.source[:1].expand(moments)
    columns = [column[: sizes[0]].repeat(moments, *[1] * (column.dim() - 1)) for column in found[:3]]
    few = wide.Sample(*columns, sizes, source)
    assert np.isfinite(wide.train(setting.model, few, TrainConfig(wide_epochs=1), np.random.default_rng(0))).all()


def test_what_it_learned_is_what_the_whole_model_says_at_first(setting: Setting, trained: Trained) -> None:
    dataset, examples, popularity, model = setting
    wide.learn(model, dataset, examples, popularity, CONFIG.train, 0)
    users = examples.users[:3]
    step = gather(dataset, examples.draw(np.random.default_rng(1), users, 4))
    rows = vocabulary(dataset, trained.windows.t1, CONFIG.train)
    with torch.no_grad():
        whole = ctr.score(model, step, encode(model.backbone, dataset, rows, step), rows, popularity)
        alone = model.known(wide.described(step, popularity))
    assert torch.allclose(whole[step.real], alone[step.real], atol=1e-6)


def test_what_was_shown_and_what_was_drawn_are_different_questions(setting: Setting) -> None:
    """Of lists that were shown the least popular candidate is clicked, of others the most popular one is browsed."""
    rng, moments, candidates, shown = np.random.default_rng(0), 1200, 4, setting.model.wide[0].in_features - 1
    source = torch.from_numpy(rng.integers(0, 2, moments))
    x = setting.model.mean[-shown - 1 :].repeat(moments, candidates, 1)
    value = torch.from_numpy(rng.standard_normal((moments, candidates)).astype(np.float32))
    x[..., 18] += value * setting.model.spread[-shown - 1 :][18]
    x[..., shown] = source.unsqueeze(1)
    best = torch.where(source == IMPRESSED, value.argmin(1), value.argmax(1))
    labels = torch.nn.functional.one_hot(best, candidates).float()
    sizes, positions = np.full(moments, candidates), torch.full((moments * candidates,), -1)
    sample = wide.Sample(x.flatten(0, 1), labels.flatten(), positions, sizes, source)
    wide.train(setting.model, sample, TrainConfig(wide_epochs=4), rng)
    with torch.no_grad():
        found = setting.model.known(x).argmax(1)
    for kind in (SAMPLED, IMPRESSED):
        assert (found == best)[source == kind].float().mean() > 0.9


def test_it_can_be_left_out(setting: Setting) -> None:
    before = copy.deepcopy(setting.model.state_dict())
    off = Config.load({"train": {"wide_epochs": 0}}).train
    wide.learn(setting.model, setting.dataset, setting.examples, setting.popularity, off, 0)
    assert all(torch.equal(value, before[name]) for name, value in setting.model.state_dict().items())


def test_an_item_has_an_id_by_what_was_known_before_fine_tuning_alone(trained: Trained) -> None:
    """To have an id must not tell that an item was browsed in the very window that is learned from."""
    config = Config.load({"model": asdict(CONFIG.model), "train": {"min_count": 12, "wide_epochs": 0}})
    tuned = ctr.finetune(trained.home, windows=trained.windows, config=config)
    dataset = load(trained.home, trained.windows.t2, config.model)
    before, after = (dataset.counts(until)[1:] >= 12 for until in (trained.windows.t1, trained.windows.t2))
    assert (after & ~before).any()
    assert np.array_equal(np.sort(checkpoint.read(Path(tuned["checkpoint"])).ids), np.sort(dataset.item_ids[before]))


def learned(model: ClickModel) -> dict[str, torch.Tensor]:
    return {name: x for name, x in model.state_dict().items() if name.startswith(("wide.", "source", "position"))}


def test_it_depends_on_no_other_part_of_the_model_and_is_learned_once(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, heads = copy.deepcopy(setting.model), wide.Heads()
    for weight in other.parameters():
        torch.nn.init.normal_(weight, std=0.02)
    with torch.no_grad():
        other.source.copy_(setting.model.source)
        other.position.copy_(setting.model.position)
    wide.learn(setting.model, *setting[:3], CONFIG.train, 0, heads)
    wide.learn(other, *setting[:3], CONFIG.train, 0)
    for name, value in learned(setting.model).items():
        assert torch.equal(value, learned(other)[name]), name

    monkeypatch.setattr(wide, "sample", None)  # would be called
    third = copy.deepcopy(setting.model)
    torch.nn.init.zeros_(third.wide[0].weight)
    wide.learn(third, *setting[:3], CONFIG.train, 0, heads)
    assert all(torch.equal(value, learned(third)[name]) for name, value in learned(other).items())
    with pytest.raises(TypeError, match="NoneType"):  # another seed is another head
        wide.learn(third, *setting[:3], CONFIG.train, 1, heads)
