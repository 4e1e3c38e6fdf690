"""What the page shows of the system's state: versions, promotions with their figures, training, codebooks, the stream.

Letters: n entities, s bytes of a code.
"""

import json
import platform
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from features import alerts, history, journal, quality, reports
from features.json_lines import read
from features.publish import current, versions
from model.bundle import MANIFEST, Bundle, Table
from model.search.codebooks import Quantiser

Facts = dict[str, Any]
PROMOTIONS = "promotions.jsonl"
REPORTS = ("dataset", "psu", "codebooks", "ctr", "evaluation", "release", "health")
"""Figures that the stages leave in `<home>/reports`."""
SAMPLE = 20_000
"""Entities whose codes are decoded to measure the error."""


def look(home: Path, more: dict[str, Callable[[], Any]]) -> Facts:
    """Every section by itself: its facts, null where there is nothing yet, or {"away": why, in a sentence}.

    more: sections that others tell: the service, codes, the stream, DAG runs.
    """
    sections: dict[str, Callable[[], Any]] = {
        "software": _software,
        "versions": lambda: _versions(home),
        "promotions": lambda: _promotions(home),
        "dags": lambda: _dags(home),
        "alerts": lambda: alerts.recent(home, 20),
        "waiting": lambda: quality.refused(home),
        **more,
    }
    found = {name: _guarded(section) for name, section in sections.items()}
    return found | {"reports": {name: _guarded(partial(reports.load, home, name)) for name in REPORTS}}


def _guarded(section: Callable[[], Any]) -> Any:
    try:
        return reports.plain(section())
    except Exception as error:  # one part that is away must not take the others from the page
        return {"away": str(error) or type(error).__name__}


def _software() -> Facts:
    names = ("seminar", "torch", "feast", "apache-airflow", "kafka-python", "faiss-cpu")
    return {"python": platform.python_version()} | {name: version(name) for name in names}


def _versions(home: Path) -> Facts:
    """{kind: {"all": the newest 20, "current"}}, and history's newest version."""
    kinds = ("psu", "codebooks", "bundles")
    found: Facts = {kind: {"all": versions(home / kind)[-20:], "current": current(home / kind)} for kind in kinds}
    return found | {"history": history.version(home)}


def _promotions(home: Path) -> list[Facts]:
    """The log of promotions, the newest first, each with the figures of its bundle's manifest where it is still there."""
    entries = read(home / "bundles" / PROMOTIONS)[-50:]
    return [entry | _manifest(home / "bundles" / entry["bundle"]) for entry in reversed(entries)]


def _dags(home: Path) -> list[Facts]:
    """The last runs, the newest first; of each what failed and why."""
    runs = journal.runs(home, 40)
    for run in runs:
        tasks = run.pop("tasks")
        run["count"] = len(tasks)
        run["failed"] = [f"{x['task']}: {x.get('error') or 'no reason kept'}" for x in tasks if x["state"] == "failed"]
    return runs


def _manifest(folder: Path) -> Facts:
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError):
        return {}
    names = ("name", "mode", "gauc", "gauc_lo", "gauc_hi", "ndcg10", "ndcg10_lo", "ndcg10_hi", "logloss")
    methods = [{name: row.get(name) for name in names} for row in manifest.get("methods", ())]
    kept = ("created", "metrics", "lineage", "windows", "labels", "encoder")
    return {name: manifest.get(name) for name in kept} | {"methods": methods}


class Codes:
    """How well the codes of a bundle stand for what they code, and how evenly; measured once for each version."""

    def __init__(self) -> None:
        self._version, self._found = "", Facts()

    def look(self, bundle: Bundle | None) -> Facts | None:
        """{"items", "queries"}, of each n, bytes, error, used, evenness, by_use; None without a bundle.

        error: squared, of what decoding gives, as a share of the variance. used: share of the centroids in use at all.
        evenness: mean over the sub-quantisers of 2^entropy / centroids, 1 where all are used alike.
        """
        if bundle is None:
            return None
        if bundle.version != self._version:
            sides = {"items": (bundle.items, bundle.codebooks.item), "queries": (bundle.queries, bundle.codebooks.query)}
            self._found = {name: _usage(table, quantiser) for name, (table, quantiser) in sides.items() if len(table.ids)}
            self._version = bundle.version
        return self._found


def _usage(table: Table, quantiser: Quantiser) -> Facts:
    n, step = len(table.ids), max(1, len(table.ids) // SAMPLE)
    parts, codes = np.asarray(table.parts[1::step]), np.asarray(table.codes[1::step])
    spread = float(((parts - parts.mean(0)) ** 2).sum())
    error = float(((quantiser.decode(codes) - parts) ** 2).sum())
    whole = np.asarray(table.codes[1:])
    single = np.stack([whole & 15, whole >> 4], 2).reshape(n, -1) if quantiser.bits == 4 else whole
    counts = np.stack([np.bincount(column, minlength=1 << quantiser.bits) for column in single.T])
    shares = counts / n
    entropy = -(shares * np.log2(np.where(shares > 0, shares, 1))).sum(1)
    return {
        "n": n,
        "bytes": int(whole.shape[1]),
        "error": error / spread if spread else 0.0,
        "used": float((counts > 0).mean()),
        "evenness": float((2**entropy / (1 << quantiser.bits)).mean()),
        "by_use": np.sort(counts.sum(0))[::-1].tolist(),
    }
