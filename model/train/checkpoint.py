"""Checkpoints: weights by name with the shapes, the vocabulary by stable id, and what they were trained on."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from features.errors import SeminarError
from model.config import Windows
from model.nn.spec import Spec
from model.train.dataset import Dataset

WEIGHTS, FACTS = "weights.safetensors", "checkpoint.json"
_IDS = "vocabulary.ids"


@dataclass(frozen=True)
class Checkpoint:
    """Weights, their shapes, and the ids [r] of the id table's rows 1 to r."""

    spec: Spec
    weights: dict[str, Tensor]
    ids: NDArray[np.uint64]
    facts: dict[str, Any]

    def vocabulary(self, dataset: Dataset) -> NDArray[np.int64]:
        """Id-table rows [n + 1] for a data set's item rows; 0: unknown."""
        place = {int(item): row for row, item in enumerate(self.ids.tolist(), 1)}
        return np.array([0, *(place.get(int(item), 0) for item in dataset.item_ids.tolist())], np.int64)


def write(folder: Path, spec: Spec, module: torch.nn.Module, ids: NDArray[np.uint64], facts: dict[str, Any]) -> None:
    """Write a checkpoint into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: value.contiguous() for name, value in module.state_dict().items()}
    save_file({**weights, _IDS: torch.from_numpy(ids.view(np.int64).copy())}, folder / WEIGHTS)
    (folder / FACTS).write_text(json.dumps({"spec": dataclasses.asdict(spec), **facts}, indent=1, default=str))


def check(folder: Path) -> None:
    """SeminarError where a folder holds no checkpoint."""
    if not all((folder / name).exists() for name in (WEIGHTS, FACTS)):
        remedy = "name the folder that `seminar train ctr` printed"
        raise SeminarError("checkpoint", folder, f"holds no {WEIGHTS} and {FACTS}", remedy)


def read(folder: Path) -> Checkpoint:
    """Read a checkpoint; SeminarError where there is none."""
    check(folder)
    weights = load_file(folder / WEIGHTS)
    facts = json.loads((folder / FACTS).read_text())
    ids = weights.pop(_IDS).numpy().view(np.uint64)
    return Checkpoint(Spec.read(facts["spec"]), weights, ids, facts)


def digest(folder: Path) -> str:
    """A hash of a checkpoint's weights."""
    check(folder)
    with (folder / WEIGHTS).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fits(checkpoint: Checkpoint, name: str, dataset: Dataset) -> None:
    """SeminarError where a data set's texts, words or attributes stand for something else than the checkpoint's."""
    spec, remedy = checkpoint.spec, "give the [model] settings that it was trained with"
    told = {"encoder": checkpoint.facts.get("encoder", dataset.encoder), "text_width": spec.text_width}
    for setting, own in {**told, "token_rows": spec.token_rows, "attribute_rows": spec.attribute_rows}.items():
        if own != (given := getattr(dataset, setting)):
            raise SeminarError("checkpoint", name, f"has {setting} {own}, the data set {given}", remedy)


def spec_of(folder: Path) -> Spec:
    """The shapes of a checkpoint, without its weights; SeminarError where there is none."""
    return Spec.read(facts_of(folder)["spec"])


def facts_of(folder: Path) -> dict[str, Any]:
    """What a checkpoint was trained on, without its weights; SeminarError where there is none."""
    check(folder)
    found: dict[str, Any] = json.loads((folder / FACTS).read_text())
    return found


def learned_before(facts: dict[str, Any], cut: str, moment_ms: int, name: str, wanted: str) -> None:
    """SeminarError where a checkpoint learned from what happened after a moment, which `wanted` names.

    cut: up to which of its windows' times it learned; t1 of a PSU, t2 of a click model.
    """
    own = Windows.from_dates(facts["windows"])
    if getattr(own, cut) > moment_ms:
        given = datetime.fromtimestamp(moment_ms / 1000, UTC).isoformat()
        problem = f"is before {own.as_dates()[cut]}, up to which {name} learned: it has seen what it would be asked for"
        raise SeminarError(f"windows.{wanted}", given, problem, "give later windows, or train it again on earlier ones")


def ids_of(dataset: Dataset, vocabulary: NDArray[np.int64]) -> NDArray[np.uint64]:
    """The ids [r] of id-table rows 1 to r."""
    known = np.flatnonzero(vocabulary)
    return dataset.item_ids[known[np.argsort(vocabulary[known])] - 1]


def map_tables(checkpoint: Checkpoint, dataset: Dataset, vocabulary: NDArray[np.int64]) -> dict[str, Tensor]:
    """The weights with their id table laid out for another vocabulary, by stable id, never by row.

    An item new to the table starts from content: the mean vector of the known items of its type, or zeros.
    """
    name = "backbone.items.id_table.weight"
    old = checkpoint.weights[name]
    rows = checkpoint.vocabulary(dataset)
    table = torch.zeros(int(vocabulary.max()) + 1, old.shape[1])
    known = (rows > 0) & (vocabulary > 0)
    table[vocabulary[known]] = old[rows[known]]
    kinds = torch.from_numpy(dataset.types + 1)
    sums = torch.zeros(int(kinds.max()) + 1, old.shape[1]).index_add_(0, kinds[known], old[rows[known]])
    counts = torch.bincount(kinds[known], minlength=len(sums)).clamp(min=1).unsqueeze(1)
    new = (rows == 0) & (vocabulary > 0)
    table[vocabulary[new]] = (sums / counts)[kinds[new]]
    slots = "backbone.items.attribute_table.weight"
    attributes = checkpoint.weights[slots].clone()
    attributes[0] = 0  # of slots without an attribute: checkpoints of before had a random vector there
    return {**checkpoint.weights, name: table, slots: attributes}


def warm(module: torch.nn.Module, former: Checkpoint, dataset: Dataset, vocabulary: NDArray[np.int64]) -> None:
    """Start a module from a former one of its kind; SeminarError where a shape or an encoder is another one."""
    weights = map_tables(former, dataset, vocabulary)
    other = [name for name, value in module.state_dict().items() if weights.get(name, value[:0]).shape != value.shape]
    if other:
        raise SeminarError("warm start", other[0], "has another shape in the former version", "start from scratch")
    fits(former, "to start from", dataset)
    module.load_state_dict(weights)
