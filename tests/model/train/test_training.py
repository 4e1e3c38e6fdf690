import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from features.errors import SeminarError
from features.publish import current, path, point
from model.config import Config, Windows
from model.nn.click import IMPRESSED
from model.nn.psu import next_pair_loss
from model.train import checkpoint, psu
from model.train.ctr import finetune
from model.train.dataset import load, vocabulary
from model.train.evaluate import evaluate
from model.train.psu import pretrain
from model.train.scoring import of_checkpoint
from tests.model.conftest import Trained


def test_all_objectives_are_trained_and_finite(trained: Trained) -> None:
    losses = trained.psu["losses"]
    assert set(losses) == {"next_pair", "alignment", "relevance"}
    assert all(math.isfinite(value) for values in losses.values() for value in values)
    assert current(trained.home / "psu") is not None
    assert trained.tuned["losses"][-1] < trained.tuned["losses"][0]


def test_the_backbone_is_restored_and_reported(trained: Trained) -> None:
    facts = checkpoint.read(Path(trained.tuned["checkpoint"])).facts
    assert "backbone.attention.w_q" in facts["restored"]["restored"]
    assert not [name for name in facts["restored"]["unused"] if name.startswith("backbone.")]
    assert "item_bias.weight" in facts["restored"]["new"]
    assert facts["labels"]["impressions"] > 0


def test_a_warm_start_maps_embeddings_by_id_never_by_row(trained: Trained) -> None:
    saved = checkpoint.read(path(trained.home / "psu", trained.psu["version"]))
    dataset = load(trained.home, trained.windows.t2, trained.config.model)
    rows = vocabulary(dataset, trained.windows.t2, trained.config.train)
    known = np.flatnonzero(rows)
    shuffled = rows.copy()
    shuffled[known] = np.random.default_rng(0).permutation(rows[known])
    mapped = checkpoint.map_tables(saved, dataset, shuffled)["backbone.items.id_table.weight"]
    before, after = saved.vocabulary(dataset), shuffled
    both = np.flatnonzero((before > 0) & (after > 0))
    assert len(both) > 10
    assert torch.equal(mapped[after[both]], saved.weights["backbone.items.id_table.weight"][before[both]])
    fewer = checkpoint.Checkpoint(saved.spec, saved.weights, saved.ids[:-1], saved.facts)
    place = int(np.flatnonzero(dataset.item_ids == saved.ids[-1])[0]) + 1
    table = checkpoint.map_tables(fewer, dataset, rows)["backbone.items.id_table.weight"]
    kin = [row for row in before.nonzero()[0] if dataset.types[row] == dataset.types[place] and row != place]
    assert torch.allclose(
        table[rows[place]], saved.weights["backbone.items.id_table.weight"][before[kin]].mean(0), atol=1e-5
    )


def test_a_warm_start_drops_what_slots_without_an_attribute_said_before(trained: Trained) -> None:
    saved = checkpoint.read(path(trained.home / "psu", trained.psu["version"]))
    saved.weights["backbone.items.attribute_table.weight"][0] = 1.0
    dataset = load(trained.home, trained.windows.t2, trained.config.model)
    module = saved.spec.psu()
    checkpoint.warm(module, saved, dataset, saved.vocabulary(dataset))
    assert not module.backbone.items.attribute_table.weight[0].any()
    assert module.backbone.items.attribute_table.weight[1:].all(1).any()


def test_a_warm_start_of_other_shapes_is_refused_or_begins_from_scratch(trained: Trained) -> None:
    """The first pictures come, or another encoder is installed: nobody is to be asked in a run that chose by itself."""
    version = trained.psu["version"]
    wider = Config.load({"model": {**trained.config.as_dict()["model"], "token_rows": 64}, "train": {"psu_epochs": 1}})
    with pytest.raises(SeminarError, match="has another shape"):
        pretrain(trained.home, windows=trained.windows, config=wider, warm=version)
    before = current(trained.home / "psu")
    found = pretrain(trained.home, windows=trained.windows, config=wider, warm=version, strict=False)
    point(trained.home / "psu", before or version)
    assert found["warm"] is None
    facts = checkpoint.read(path(trained.home / "psu", found["version"])).facts
    assert (facts["warm"], facts["warm_starts"]) == (None, 0)


def test_a_model_reads_contents_as_they_were_written_for_it(trained: Trained) -> None:
    """With more rows of hashed words than it knows it would read other words, or none."""
    folder = Path(trained.tuned["checkpoint"])
    spec = checkpoint.read(folder).spec
    for rows in (2 * spec.token_rows, spec.token_rows // 2):
        other = replace(trained.config.model, token_rows=rows)
        dataset = load(trained.home, trained.windows.end, other)
        with pytest.raises(SeminarError, match=f"has token_rows {spec.token_rows}, the data set {rows}"):
            of_checkpoint(folder, dataset, trained.windows.t3)
        as_trained = load(trained.home, trained.windows.end, other, spec=spec)
        assert np.array_equal(as_trained.tokens, load(trained.home, trained.windows.end, trained.config.model).tokens)
        of_checkpoint(folder, as_trained, trained.windows.t3)


def test_a_killed_run_goes_on_from_the_same_weights_only(trained: Trained, tmp_path: Path) -> None:
    """Two homes that share a cache may both have a v000001."""
    home = tmp_path / "var"
    shutil.copytree(trained.home, home)
    weights = path(home / "psu", trained.psu["version"]) / checkpoint.WEIGHTS
    tensors = load_file(weights)
    save_file({**tensors, "head.0.bias": tensors["head.0.bias"] + 1}, weights)
    seen = []

    def watched(home: Path, dataset: object, facts: dict[str, object]) -> Path:
        seen.append(facts)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("model.train.ctr.resume_file", watched)
        for where in (trained.home, home):
            with pytest.raises(KeyboardInterrupt):
                finetune(where, windows=trained.windows, psu=trained.psu["version"], config=trained.config)
    assert seen[0] != seen[1]


def test_training_is_the_same_for_a_seed(trained: Trained) -> None:
    runs = [
        finetune(trained.home, windows=trained.windows, psu=trained.psu["version"], config=trained.config, seed=seed)
        for seed in (0, 1)
    ]
    assert runs[0]["losses"] == trained.tuned["losses"]
    assert runs[0]["losses"] != runs[1]["losses"]


def test_an_objective_can_be_switched_off(trained: Trained) -> None:
    train = {**trained.config.as_dict()["train"], "alignment": 0.0, "relevance": 0.0}
    config = Config.load({"model": trained.config.as_dict()["model"], "train": train})
    found = pretrain(trained.home, windows=trained.windows, config=config)
    assert found["losses"]["next_pair"] != trained.psu["losses"]["next_pair"]


def test_hard_negatives_are_not_corrected_by_popularity(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    """They were drawn within a type, each as likely: the true pair's own correction takes nothing from either."""
    seen = []

    def watched(scores: torch.Tensor, log_q: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        seen.append(log_q)
        return next_pair_loss(scores, log_q, mask)

    monkeypatch.setattr(psu, "next_pair_loss", watched)
    pretrain(trained.home, windows=trained.windows, config=trained.config)
    log_q = torch.cat(seen)
    assert torch.equal(log_q[:, 1:5], log_q[:, :1].expand(-1, 4))
    assert (log_q[:, 5:] != log_q[:, :1]).float().mean() > 0.9


def test_where_nothing_can_be_learned_it_is_said_why(trained: Trained) -> None:
    begin = trained.windows.t1 - 60 * 86_400_000
    early = Windows(begin, begin + 1, begin + 2, trained.windows.end)
    with pytest.raises(SeminarError, match=r"windows.t1.*nobody to pretrain on"):
        pretrain(trained.home, windows=early, config=trained.config)
    with pytest.raises(SeminarError, match=r"windows.*nothing to learn from between them"):
        finetune(trained.home, windows=early, config=trained.config)
    with pytest.raises(SeminarError, match=r"negatives.*too few"):
        Config.load({"train": {"negatives": 4}})


def test_what_has_seen_the_answers_is_refused(trained: Trained) -> None:
    day = 86_400_000
    earlier = Windows(*(getattr(trained.windows, name) - 12 * day for name in ("t1", "t2", "t3", "end")))
    with pytest.raises(SeminarError, match=r"windows\.t3.*2025-02-03.*before 2025-02-10.*up to which mine learned"):
        evaluate(trained.home, checkpoints={"mine": trained.tuned["checkpoint"]}, windows=earlier, config=trained.config)
    with pytest.raises(SeminarError, match=r"windows\.t1.*2025-01-17.*before 2025-01-29.*psu v000001 learned"):
        finetune(trained.home, windows=earlier, psu=trained.psu["version"], config=trained.config)


def test_rates_have_the_prior_correction_where_nothing_was_shown_before(trained: Trained) -> None:
    """A window of validation of less than the day that clicks are waited for has no impressions to calibrate on."""
    folder = Path(trained.tuned["checkpoint"])
    day = 86_400_000
    narrow = replace(trained.windows, t2=trained.windows.t3 - day // 2)
    found = evaluate(trained.home, checkpoints={"seminar": str(folder)}, windows=narrow, config=trained.config)
    weights = checkpoint.read(folder)
    assert weights.facts["labels"]["impressions"] > 0
    assert found["logistic"]["seminar"] == [1.0, pytest.approx(float(weights.weights["source"][IMPRESSED]))]
    assert found["calibration"]["seminar"] is not None
    assert found["logistic"]["popularity"] == [1.0, 0.0]


def test_codebooks_report_recall_by_size(trained: Trained) -> None:
    rows = trained.codebooks["recall"]
    assert [row["bits"] for row in rows] == sorted(row["bits"] for row in rows)
    assert all(0 <= row["recall_scan"] <= row["recall"] <= 1 for row in rows)
    assert all(row["item_bytes"] + row["query_bytes"] <= 64 for row in rows)


def test_evaluation_covers_methods_and_modes(trained: Trained) -> None:
    found = {(m["name"], m["mode"]): m for m in trained.metrics["methods"]}
    assert {name for name, _ in found} == {"seminar", "popularity", "own_frequency"}
    assert {mode for _, mode in found} == {"recommendation", "search"}
    for row in found.values():
        assert row["gauc_lo"] <= row["gauc"] <= row["gauc_hi"]
        assert 0 <= row["ndcg10"] <= row["hit10"] <= 1
        assert row["queries"] == {"recommendation": "no query", "search": "recorded queries"}[row["mode"]]
        assert row["slices"]["repeat"]["n_targets"] + row["slices"]["explore"]["n_targets"] == row["n_targets"]
        assert {f"{name}{k}" for name in ("hit", "ndcg") for k in (1, 5, 10, 50)} < row.keys()
    assert found["seminar", "recommendation"]["gauc"] > 0.6  # users keep to two of six categories


def test_targets_can_be_ranked_among_the_whole_catalogue(trained: Trained) -> None:
    checkpoints = {"seminar": trained.tuned["checkpoint"]}
    found = evaluate(trained.home, checkpoints=checkpoints, windows=trained.windows, config=trained.config, catalogue=30)
    for row in found["methods"]:
        assert ("catalogue_ndcg10" in row) == (row["mode"] == "recommendation")
    whole = next(row for row in found["methods"] if (row["name"], row["mode"]) == ("seminar", "recommendation"))
    assert whole["catalogue_n_targets"] == 30
    assert 0 < whole["catalogue_ndcg10"] < 1
    saved = {file.stem for file in (trained.home / "lists").iterdir()}
    assert {f"{mode}-{found['candidates'][mode]}" for mode in ("recommendation", "search")} <= saved


@pytest.mark.parametrize("bad", [{"t1": "yesterday"}, {"t1": "2025-02-19"}, {"t2": None}])
def test_windows_are_checked(trained: Trained, bad: dict[str, str]) -> None:
    with pytest.raises(SeminarError, match="windows"):
        Windows.from_dates({**trained.windows.as_dates(), **bad})


def test_an_unknown_setting_is_named() -> None:
    with pytest.raises(SeminarError, match="wings"):
        Config.load({"model": {"wings": 2}})
