"""HEALTH of what runs: the stream, online against history, drift, predicted against observed click rates, codebooks.

    <home>/reports/health.json           the newest report: {"looked", "passed", "sections": {name: {"checks", ...}}}
    <home>/reports/health/<time>.json    earlier ones, the newest `KEPT`

Limits: the table `health` of `<home>/settings.toml`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from features import drift as drifts
from features import history as tables
from features import quality, reports, snapshot, versions
from features.checks import Check, check
from features.publish import current, path
from features.settings import configured
from model.config import Config, Windows
from model.search.choose import recall
from model.search.codebooks import Codebooks
from model.search.keys import Keys, Parts
from model.search.pq import OVER
from model.train import catalogue, checkpoint
from model.train.codebooks import HELD_OUT, encode_all
from model.train.dataset import Dataset, load
from model.train.lineage import facts
from model.train.lists import shown
from model.train.rank import scored
from model.train.retention import checkpoint_of
from model.train.scoring import of_checkpoint

KEPT = 500
Section = dict[str, Any]


@dataclass(frozen=True)
class Limits:
    """When an operator is called."""

    freshness_s: float = 900.0  # of the oldest watermark
    lag: float = 100_000.0  # messages
    compaction_s: float = 7_200.0
    faults: float = 0.0  # records and rows that online and history do not share
    sample: int = 200  # users and entities that are compared
    psi: float = 0.25
    events: int = 300  # of a date, fewer say nothing
    click_rate: float = 0.3  # |predicted / observed - 1|
    shown: int = 500  # items, fewer say nothing
    error: float = 2.0  # of codes of items that came after the codebooks, against those that were there
    recall: float = 0.8  # of them
    new_items: int = 20  # fewer say nothing

    @classmethod
    def of(cls, home: Path) -> "Limits":
        """The limits of a home."""
        return configured(home, "health", cls)


def stream(home: Path, found: Mapping[str, Any] | None, limits: Limits) -> Section:
    """Freshness, lag, compaction, erasures and refused dates; found: what `streaming.status.look` says, if there is one."""
    none = "nothing was ever streamed"
    fresh, lag = (found or {}).get("freshness_s"), (found or {}).get("lag")
    manifest = versions.newest(home)
    age = manifest.age() if manifest else None
    waiting = quality.refused(home)
    return {
        "dates": waiting,
        "checks": [
            check("freshness_s", fresh, limits.freshness_s, none if fresh is None else "", most=True),
            check("lag", lag, limits.lag, none if fresh is None else "", most=True),
            check("compaction_s", age, limits.compaction_s, "never compacted" if age is None else "", most=True),
            check("pending_erasures", (found or {}).get("pending_erasures", 0), 0, most=True),
            check("refused_dates", len(waiting), 0, most=True),
        ],
    }


def parity(found: Mapping[str, Any] | None, limits: Limits) -> Section:
    """Online against history; found: what `features.parity.compare` says, if there is an online store."""
    faults = None if found is None else found["faults"]
    return {
        **(found or {}),
        "checks": [check("faults", faults, limits.faults, "" if found else "no online store", most=True)],
    }


def drift(home: Path, limits: Limits) -> Section:
    """The newest whole date of history against those before."""
    dates = sorted({file.parent.name.removeprefix("date=") for file in snapshot.files(home, tables.EVENTS)})
    today = quality.date_of(int(datetime.now(UTC).timestamp() * 1000))
    over = [date for date in dates if date < today]
    if not over:
        return {"checks": [check("psi", None, limits.psi, "no date is over yet", most=True)]}
    found = drifts.drift(home, over[-1])
    why = "" if found["before"] else "there is no date before"
    if found["events"] < limits.events:
        why = f"only {found['events']} events came"
    checks = [check(f"psi_{name}", value, limits.psi, why, most=True) for name, value in found["psi"].items()]
    return {**found, "checks": checks}


def served(home: Path) -> tuple[str, dict[str, Any], Path] | None:
    """The served bundle, its manifest and its checkpoint; None where nothing is served or the checkpoint is gone."""
    name = current(home / "bundles")
    folder = checkpoint_of(home, name) if name else None
    return (name, facts(home / "bundles", name), folder) if name and folder else None


def whole(home: Path, config: Config) -> tuple[Dataset, int]:
    """All of history, and the time of its end (ms)."""
    end = int(tables.read_sequences(home).records["time"].max(initial=0)) + 1
    return load(home, end, config.model), end


def click_rate(home: Path, limits: Limits, days: int = 7) -> Section:
    """What the served bundle predicts of the impressions of the newest days, against what was clicked."""
    champion = served(home)
    if champion is None:
        return {"checks": [check("click_rate", None, limits.click_rate, "no bundle is served", most=True)]}
    name, manifest, folder = champion
    config = Config.load(checkpoint.read(folder).facts["config"])
    dataset, end = whole(home, config)
    lists = shown(home, dataset, end - days * quality.DAY_MS, end, 10 * config.train.eval_targets)
    until = Windows.from_dates(manifest["windows"]).end
    found = scored(of_checkpoint(folder, dataset, until), lists)
    n, clicks = len(found.label), float(found.label.sum())
    scale, shift = manifest["logistic"]
    predicted = float((1 / (1 + np.exp(-(scale * found.score + shift)))).mean()) if n else None
    observed = clicks / n if n else None
    ratio = predicted / observed if predicted is not None and observed else None
    why = f"only {n} items were shown" if n < limits.shown else "nothing was clicked" if not clicks else ""
    value = None if ratio is None else abs(ratio - 1)
    return {
        "bundle": name,
        "shown": n,
        "predicted": predicted,
        "observed": observed,
        "ratio": ratio,
        "checks": [check("click_rate", value, limits.click_rate, why, most=True)],
    }


def codebooks(home: Path, limits: Limits) -> Section:
    """Error and recall on items that came after the codebooks were made."""

    def nothing(why: str) -> Section:
        named = (("error", limits.error, True), ("recall", limits.recall, False))
        return {"checks": [check(f"new_items_{name}", None, limit, why, most=most) for name, limit, most in named]}

    version = current(home / "catalogue")
    if version is None:
        return nothing("no catalogue was encoded")
    said = facts(home / "catalogue", version)
    known = catalogue.read(path(home / "catalogue", version))
    config = Config.load(facts(home / "psu", said["psu"])["config"])
    dataset, _ = whole(home, config)
    new = np.flatnonzero(~np.isin(dataset.item_ids, known["ids"])) + 1
    if len(new) < limits.new_items:
        return nothing(f"only {len(new)} items are new") | {"new_items": len(new), "error": said["error"]}
    books = Codebooks.load(path(home / "codebooks", said["codebooks"]))
    backbone, vocabulary = catalogue.encoder(home, said["psu"], dataset)
    error = float(catalogue.error(books, catalogue.parts(backbone, dataset, vocabulary, new)).mean())
    found = _recall(dataset, *encode_all(backbone, dataset, vocabulary), books, backbone, new)
    short = "histories are too short to need a search" if found is None else ""
    return {
        "codebooks": said["codebooks"],
        "new_items": len(new),
        "error": said["error"],
        "new_error": error,
        "checks": [
            check("new_items_error", error / max(said["error"], 1e-6), limits.error, most=True),
            check("new_items_recall", found, limits.recall, short),
        ],
    }


def _recall(
    dataset: Dataset, item_parts: Any, query_parts: Any, books: Codebooks, backbone: Any, new: Any, most: int = 64
) -> float | None:
    """Mean recall of the exact top k in held-out users' histories, when new items are the targets; None: all too short."""
    import torch

    items, queries = books.code_items(item_parts), books.code_queries(query_parts)
    k, found = backbone.retrieved, list[float]()
    with torch.no_grad():
        folded = backbone.attention.fold(torch.from_numpy(item_parts[new[:most]])).numpy()
    for user in range(0, len(dataset.histories.user_ids), HELD_OUT):
        history = dataset.history(user)
        if len(history.time) <= OVER * k:
            continue
        with torch.no_grad():
            bias = backbone.attention.bias(history.time[-1] - history.time, history.kind).numpy()
        rows = (side.numpy().astype(np.int32) for side in (history.item, history.query))
        item_rows, query_rows = rows
        keys = Keys(Parts(items), item_rows, Parts(queries), query_rows, bias)
        found.append(recall(folded, keys, k, books, "pq", OVER))
    return float(np.mean(found)) if found else None


def report(home: Path, sections: Mapping[str, Section]) -> dict[str, Any]:
    """Keep a report of all sections, as the newest one and among the earlier ones."""
    now = datetime.now(UTC)
    checks: list[Check] = [x for section in sections.values() for x in section["checks"]]
    found = {"looked": now.isoformat(timespec="seconds"), "passed": all(x["passed"] for x in checks)}
    reports.save(home, f"health/{now:%Y%m%dT%H%M%SZ}", {**found, "sections": sections})
    for old in sorted((home / "reports" / "health").glob("*.json"))[:-KEPT]:
        old.unlink(missing_ok=True)
    return reports.save(home, "health", {**found, "sections": sections})


def before(home: Path, most: int = 100) -> list[dict[str, Any]]:
    """Earlier reports, oldest first."""
    names = sorted(file.stem for file in (home / "reports" / "health").glob("*.json"))[-most:]
    return [x for name in names if (x := reports.load(home, f"health/{name}")) is not None]
