import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from features.errors import SeminarError
from features.online import Online
from features.publish import path, verify
from features.record import entity_id
from model import bundle
from model.nn.features import PLAIN
from model.nn.tiers import TIERS
from model.serve.scorer import Scorer
from tests.model.conftest import Trained


def test_a_bundle_loads_as_it_was_exported(trained: Trained) -> None:
    folder = path(trained.home / "bundles", trained.bundle)
    verify(folder)
    found = bundle.load(folder)
    assert found.version == trained.bundle
    assert isinstance(found.items.parts, np.memmap)
    known = entity_id("milk-0")
    rows = found.items.rows(np.array([0, known, 12345], np.uint64))
    assert rows[0] == 0
    assert found.items.ids[rows[1] - 1] == known
    assert rows[2] == -1
    assert found.codebooks.item.encode(found.items.parts).tolist() == found.items.codes.tolist()
    assert found.codebooks.coarse.assign(found.items.parts).tolist() == found.items.cells.tolist()
    assert all(isinstance(column, np.memmap) for column in (found.items.starts, found.items.cells, found.items.codes))
    assert found.manifest["lineage"]["psu"] == trained.psu["version"]
    assert "GAUC" in (folder / bundle.CARD).read_text()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [("format", 99, "format"), ("format", 3, "format"), ("feature_service", "ctr_v9", "feature_service")],
)
def test_a_bundle_for_another_reader_is_refused(
    trained: Trained, tmp_path: Path, name: str, value: object, said: str
) -> None:
    copy = tmp_path / "v000009"
    shutil.copytree(path(trained.home / "bundles", trained.bundle), copy)
    manifest = json.loads((copy / bundle.MANIFEST).read_text())
    (copy / bundle.MANIFEST).write_text(json.dumps({**manifest, name: value}))
    with pytest.raises(SeminarError, match=said):
        bundle.load(copy)


@pytest.mark.parametrize(("format", "sides"), [(6, 0), (7, 1)])
def test_a_bundle_of_former_tiers_still_scores(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: int, sides: int
) -> None:
    copy = tmp_path / "v000009"
    shutil.copytree(path(trained.home / "bundles", trained.bundle), copy)
    manifest, weights = json.loads((copy / bundle.MANIFEST).read_text()), load_file(copy / bundle.WEIGHTS)
    compared = manifest["spec"]["tiers"].split(",")
    assert compared[0] == "item"
    assert len(compared) > 1
    for name in ("head.0.weight", "mean", "spread"):  # what they have last are tiers, then plain features
        columns = torch.arange(weights[name].shape[-1])
        first = len(columns) - PLAIN - TIERS * len(compared)
        kept = (columns < first + TIERS * sides) | (columns >= len(columns) - PLAIN)
        weights[name] = weights[name][..., kept].contiguous()
    save_file(weights, copy / bundle.WEIGHTS)
    for file in copy.glob("*.alike.npy"):
        file.unlink()
    spec = {name: value for name, value in manifest["spec"].items() if name != "tiers"} | ({"tiers": True} if sides else {})
    (copy / bundle.MANIFEST).write_text(json.dumps({**manifest, "format": format, "spec": spec}))
    monkeypatch.setenv("SEMINAR_HOME", str(trained.home))
    answer = Scorer.of(bundle.load(copy), Online()).score("user-2", ["milk-0", "rice-1"], time_ms=trained.windows.end)
    assert len(answer.rates) == 2
    assert answer.degraded == []


def test_tables_that_do_not_fit_are_refused(trained: Trained, tmp_path: Path) -> None:
    copy = tmp_path / "v000009"
    shutil.copytree(path(trained.home / "bundles", trained.bundle), copy)
    np.save(copy / "items.ids.npy", np.array([1, 2], np.uint64))
    with pytest.raises(SeminarError, match=r"bundle\.items"):
        bundle.load(copy)
