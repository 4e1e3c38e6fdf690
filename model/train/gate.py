"""The gate between an exported bundle and the scorers: every check with its figure, its limit, and whether it applies.

A check that data cannot support (no impressions, short histories, no champion yet) says so and does not stop a release; a
figure that should be there and is not does. Limits: the table `release` of `<home>/settings.toml`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import Any

import model.bundle as bundles
from features.checks import Check, check, failure
from features.publish import current, path, verify
from features.settings import configured
from model.config import Windows

DAY_MS = 86_400_000


@dataclass(frozen=True)
class Limits:
    """What a bundle must reach."""

    gauc: float = 0.55
    margin: float = 0.02  # of GAUC by which it may be worse than the champion, at the lower end of the paired interval
    newer_days: float = 0.0  # by which its windows must end after the champion's
    events: float = 0.15  # of the champion's own GAUC below its published one: then the events are to be doubted, not it
    codes_recall: float = 0.9
    calibration: float = 0.25  # |mean predicted / observed rate - 1| on later impressions
    latency_ms: float = 1000.0  # the 90th percentile of a few requests, alone on the machine that trains
    growth: float = 2.0  # size against the champion's
    size_mb: float = 16_384.0

    @classmethod
    def of(cls, home: Path) -> "Limits":
        """The limits of a home."""
        return configured(home, "release", cls)


def gate(
    home: Path,
    *,
    bundle: str,
    limits: Limits | None = None,
    duel: Mapping[str, Any] | None = None,
    smoke: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Load a bundle as the scorer would and hold its figures against the limits.

    duel: what `model.train.duel` found; smoke: what `model.serve.smoke` did. Returns {"bundle", "champion", "passed",
    "checks": [features.checks.Check]}.
    """
    limits = limits or Limits.of(home)
    kind = home / "bundles"
    folder = path(kind, bundle)
    verify(folder)
    manifest = bundles.load(folder).manifest
    found, champion = manifest["metrics"], current(kind)
    champion = None if champion == bundle else champion
    ratio, recall = found.get("predicted_to_observed"), found.get("codes_recall")
    checks = [
        check("gauc", found.get("gauc"), limits.gauc),
        *_against(home, champion, found, duel or {}, limits),
        _newer(manifest, _manifest(home, champion) if champion else None, limits),
        check(
            "codes_recall", recall, limits.codes_recall, "histories are too short to need a search" if _none(recall) else ""
        ),
        check(
            "calibration",
            None if ratio is None else abs(ratio - 1),
            limits.calibration,
            "nothing was shown and clicked to measure it on" if ratio is None else "",
            most=True,
        ),
        check(
            "latency_ms",
            (smoke or {}).get("p90_ms"),
            limits.latency_ms,
            "" if smoke and smoke.get("requests") else "no request was answered by a scorer",
            most=True,
        ),
        _size(kind, bundle, champion, limits),
    ]
    passed = all(x["passed"] for x in checks)
    return {"bundle": bundle, "champion": champion, "passed": passed, "checks": checks}


def _against(
    home: Path, champion: str | None, found: Mapping[str, Any], duel: Mapping[str, Any], limits: Limits
) -> list[Check]:
    names = ("champion", "champion_impressions", "events")
    if champion is None:
        return [check(name, None, -limits.margin, "there is no champion yet") for name in names]
    if "champion" in duel and duel["champion"] != champion:  # the pointer was moved since
        return [failure("champion", -limits.margin, f"was not compared with {champion}, which is served by now: run again")]
    manifest = _manifest(home, champion)
    published = manifest["metrics"].get("gauc")
    ranked, shown = duel.get("gauc"), duel.get("impressions")
    if ranked is None:
        # On other events than its own, only the published figures can be compared.
        difference = None if published is None or found.get("gauc") is None else found["gauc"] - published
        why = str(duel.get("reason", "it was not compared on the same events"))
        rest = [check(name, None, -limits.margin, why) for name in names[1:]]
        return [check("champion", difference, -limits.margin, why if difference is None else ""), *rest]
    none = "no user was shown anything in the test window"
    drop = None if published is None else ranked["champion"] - published
    if shown and (before := _impression_gauc(manifest)) is not None:
        drop = min(shown["champion"] - before, drop if drop is not None else 0.0)
    return [
        check("champion", ranked["lo"], -limits.margin),
        # Few are shown anything, so the interval is wide: it stops what is surely worse.
        check("champion_impressions", shown and shown["hi"], -limits.margin, "" if shown else none),
        check("events", drop, -limits.events, "the champion published no figure" if drop is None else ""),
    ]


def _manifest(home: Path, bundle: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((path(home / "bundles", bundle) / bundles.MANIFEST).read_text())
    return found


def _newer(manifest: Mapping[str, Any], champion: Mapping[str, Any] | None, limits: Limits) -> Check:
    """A run of long ago that is cleared now must not replace what was trained since."""
    mine, theirs = (x and x.get("windows") for x in (manifest, champion))
    if not champion or not mine or not theirs:
        why = "a manifest names no windows" if champion else "there is no champion yet"
        return check("newer_days", None, limits.newer_days, why)
    mine, theirs = (Windows.from_dates(x).end for x in (mine, theirs))
    return check("newer_days", (mine - theirs) / DAY_MS, limits.newer_days)


def _impression_gauc(manifest: Mapping[str, Any]) -> float | None:
    rows = [row for row in manifest.get("methods", ()) if row["name"] == "seminar"]
    value: float | None = rows[0].get("impression_gauc") if rows else None
    return value


def _size(kind: Path, bundle: str, champion: str | None, limits: Limits) -> Check:
    mine, theirs = (_megabytes(path(kind, name)) if name else None for name in (bundle, champion))
    # What is small grows fast: below this nobody's memory is in danger.
    limit = limits.size_mb if theirs is None else min(limits.size_mb, max(limits.growth * theirs, 64.0))
    return check("size_mb", mine, round(limit, 1), most=True)


def _megabytes(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6


def _none(value: float | None) -> bool:
    return value is None or isnan(value)
