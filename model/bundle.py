"""BUNDLE: an immutable folder with everything that a scorer needs: weights, tables, codebooks, manifest, model card.

    manifest.json          shapes, feature service, windows, metrics, lineage, calibration
    weights.safetensors    the click model
    items.{ids,starts,parts,cells,codes,bias,popularity,types,alike}.npy   the catalogue, encoded; mapped, shared
    queries.{...}.npy      the known queries
    types.npz              what items are, and how popular each type is
    codebooks.npz          coarse cells and product quantisers of the parts
    vocabulary.npy         the id table's row of each item row; only explanations read it
    golden.npz             requests with the rates that training gives them (model.golden)
    MODEL_CARD.md          for people

Row 0 of the tables stands for "none"; the ids (sorted) belong to rows 1 and on.
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from features.errors import SeminarError
from features.record import entity_id
from model.golden import Golden
from model.nn.click import ClickModel
from model.nn.spec import Spec
from model.nn.tiers import unit
from model.search.codebooks import Codebooks
from model.search.kernel import prefixes, rows
from model.search.keys import Cells, Coded, Codes, Floats, Rows

FORMAT = 8
READ = (FORMAT, 7, 6)
"""Formats that this version reads: 7 had tiers of item parts alone, 6 had none."""
MANIFEST, WEIGHTS, CARD = "manifest.json", "weights.safetensors", "MODEL_CARD.md"
VOCABULARY, TYPES = "vocabulary.npy", "types.npz"
FEATURE_SERVICE = "ctr_v1"


@dataclass(frozen=True)
class Table:
    """Encoded entities: ids [n] sorted, and where those of each prefix start; parts [n + 1, d], cells [n + 1],
    codes [n + 1, s] and bias [n + 1] with row 0 for "none"; popularity [n + 1, 5] as of the export (model.nn.features);
    types [n + 1]: what each is, as a number (`Types`; 0: not known); alike [s, n + 1, d]: unit vectors that tiers compare
    (of queries s = 0)."""

    ids: NDArray[np.uint64]
    starts: NDArray[np.int32]
    parts: Floats
    cells: Cells
    codes: Codes
    bias: Floats
    popularity: Floats
    types: Rows
    alike: Floats

    @classmethod
    def of(
        cls,
        ids: NDArray[np.uint64],
        coded: Coded,
        bias: Floats,
        popularity: Floats,
        types: Rows,
        alike: Floats | None = None,
    ) -> "Table":
        """The table of encoded entities."""
        alike = coded.parts[None][:0] if alike is None else alike
        return cls(ids, prefixes(ids), coded.parts, coded.cells, coded.codes, bias, popularity, types, alike)

    @property
    def coded(self) -> Coded:
        """What a search reads; plain views, since indexing a `memmap` costs more."""
        return Coded(np.asarray(self.parts), np.asarray(self.cells), np.asarray(self.codes))

    def rows(self, ids: NDArray[np.uint64]) -> Rows:
        """Rows of ids [l], in constant time each: 0 for id 0 ("none"), -1 for one that the table does not know."""
        return rows(self.ids, self.starts, ids)


@dataclass(frozen=True)
class Types:
    """What items are: hashes [y] of the names, sorted, type j + 1 having hashes[j]; popularity [y + 1] of each type."""

    hashes: NDArray[np.uint64]
    popularity: Floats

    def number(self, name: str | None) -> int:
        """The type of this name; 0 for one that is not known."""
        wanted = np.uint64(entity_id(name)) if name else np.uint64(0)
        at = int(np.searchsorted(self.hashes, wanted))
        return at + 1 if name and at < len(self.hashes) and self.hashes[at] == wanted else 0


@dataclass(frozen=True)
class Bundle:
    """A loaded bundle; the tables are mapped, not read."""

    version: str
    manifest: dict[str, Any]
    spec: Spec
    model: ClickModel
    items: Table
    queries: Table
    codebooks: Codebooks
    types: Types
    vocabulary: NDArray[np.int64]
    golden: Golden


def write(
    folder: Path,
    spec: Spec,
    model: ClickModel,
    items: Table,
    queries: Table,
    codebooks: Codebooks,
    types: Types,
    manifest: dict[str, Any],
    vocabulary: NDArray[np.int64],
    golden: Golden,
) -> None:
    """Write a bundle into a folder (to be published: features.publish). vocabulary [n + 1]: id-table rows of item rows."""
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, folder / WEIGHTS)
    for name, table in (("items", items), ("queries", queries)):
        for field in dataclasses.fields(Table):
            np.save(folder / f"{name}.{field.name}.npy", getattr(table, field.name))
    codebooks.save(folder)
    np.savez(folder / TYPES, allow_pickle=False, **vars(types))
    np.save(folder / VOCABULARY, vocabulary)
    golden.save(folder)
    whole = {"format": FORMAT, "feature_service": FEATURE_SERVICE, "spec": dataclasses.asdict(spec), **manifest}
    (folder / MANIFEST).write_text(json.dumps(whole, indent=1, default=str))
    (folder / CARD).write_text(card(whole))


def load(folder: Path) -> Bundle:
    """Load a bundle; SeminarError when it is for another reader or its parts do not fit each other."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError) as error:
        raise SeminarError("bundle", folder, f"has no readable manifest ({error})", "publish it again") from error
    for name, read in (("format", READ), ("feature_service", (FEATURE_SERVICE,))):
        if manifest.get(name) not in read:
            raise SeminarError(f"bundle.{name}", manifest.get(name), f"is not {read[0]!r}", "export it with this version")
    spec = Spec.read(manifest["spec"])
    model = spec.click()
    model.load_state_dict(load_file(folder / WEIGHTS), assign=True)  # the file's own pages: processes share them
    items, queries = _table(folder, "items", spec), _table(folder, "queries", spec)
    for name, table in (("items", items), ("queries", queries)):
        lengths = {len(table.parts), len(table.cells), len(table.codes), len(table.bias)}
        sides = len(spec.compared()) * (table is items)
        fit = table.alike.shape == (sides, *table.parts.shape)
        if table.parts.shape != (len(table.ids) + 1, spec.dim) or len(lengths) > 1 or not fit:
            raise SeminarError(f"bundle.{name}", table.parts.shape, "does not fit its ids", "publish it again")
    vocabulary = np.load(folder / VOCABULARY, mmap_mode="r")
    with np.load(folder / TYPES) as stored:
        types = Types(stored["hashes"], stored["popularity"])
    books, golden = Codebooks.load(folder), Golden.load(folder)
    return Bundle(folder.name, manifest, spec, model.eval(), items, queries, books, types, vocabulary, golden)


def _table(folder: Path, name: str, spec: Spec) -> Table:
    found: dict[str, Any] = {}
    for field in dataclasses.fields(Table):
        file = folder / f"{name}.{field.name}.npy"
        if field.name == "alike" and not file.exists():  # former formats: item parts are all that tiers compare
            parts = unit(np.asarray(found["parts"]))[None]
            found["alike"] = parts[: len(spec.compared()) * (name == "items")]
        else:
            found[field.name] = np.load(file, mmap_mode="r")
    return Table(**found)


def card(manifest: dict[str, Any]) -> str:
    """The model card in Markdown."""
    metrics, labels, windows = (manifest.get(name) or {} for name in ("metrics", "labels", "windows"))
    rows = "\n".join(
        f"| {m['name']} | {m['mode']} | {m['gauc']:.4f} ({m['gauc_lo']:.4f} to {m['gauc_hi']:.4f}) | {m['ndcg10']:.4f} |"
        for m in manifest.get("methods", [])
    )
    return f"""# Model card

SEMINAR click model (arXiv 2407.10714); reads the feature service `{manifest["feature_service"]}`.

- **Data.** PSU before {windows.get("t1")}; fine-tuning until {windows.get("t2")}; validation until {windows.get("t3")};
  test until {windows.get("end")}.
- **Labels.** {json.dumps(labels)}. Impressions are the labels where there are any; other targets have sampled negatives.
- **Text encoder.** {manifest.get("encoder")}.
- **Codebooks.** recall@{manifest["spec"]["retrieved"]} on held-out users {metrics.get("codes_recall")};
  {json.dumps(manifest.get("codes"))}.
- **Calibration.** predicted / observed {metrics.get("predicted_to_observed")}, slope {metrics.get("slope")} later.
- **Lineage.** {json.dumps(manifest.get("lineage", {}))}.

Later events, 1 positive and 99 sampled negatives:

| method | mode | GAUC (95 %) | NDCG@10 |
|---|---|---|---|
{rows}
"""
