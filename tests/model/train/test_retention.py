"""Retention by the real contract of publishing, on versions that hold nothing but what they were made from."""

import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from features import history, labels, versions
from features.compaction import compact
from features.publish import current, point, publish
from features.publish import versions as published
from model.train import catalogue
from model.train.lineage import FACTS, lineage
from model.train.release import LOG
from model.train.retention import hold_for_run, live, prune
from streaming.events import BROWSE, IMPRESSION, Event, build
from tests.features.rows import events, records

DAY = 86_400_000
T0 = 1_700_000_000_000 - 1_700_000_000_000 % DAY


def made(home: Path, kind: str, **facts: Any) -> str:
    """Publish a version that says these facts of itself."""
    content = {"lineage": facts} if kind == "bundles" else facts
    return publish(home / kind, lambda folder: (folder / FACTS[kind]).write_text(json.dumps(content)) and None)


def checkpoint(home: Path, name: str) -> str:
    folder = home / "checkpoints" / name
    folder.mkdir(parents=True)
    (folder / "checkpoint.json").write_text("{}")
    return name


def age(home: Path, seconds: float) -> None:
    """Let everything be this much older."""
    for kind in (*FACTS, "checkpoints"):
        for folder in (home / kind).iterdir() if (home / kind).is_dir() else ():
            os.utime(folder, (time.time() - seconds,) * 2)


def chain(home: Path, name: str, version: str) -> str:
    psu = made(home, "psu", history=version)
    books = made(home, "codebooks", psu=psu, history=version)
    made(home, "catalogue", codebooks=books, psu=psu)
    return made(home, "bundles", psu=psu, codebooks=books, checkpoint=checkpoint(home, name), history=version)


def promote(home: Path, bundle: str, former: str | None, reason: str = "promoted") -> None:
    with (home / "bundles" / LOG).open("a") as log:
        log.write(json.dumps({"time": "", "bundle": bundle, "former": former, "reason": reason}) + "\n")
    point(home / "bundles", bundle)


def test_what_a_live_version_points_to_stays_and_the_rest_goes(tmp_path: Path) -> None:
    history_versions = []
    for i in range(8):
        history.write(tmp_path, "events", events("u", records([i * 1000])), f"b{i}")
        history_versions.append(compact(tmp_path, keep=9)["version"])
    bundles = [chain(tmp_path, f"c{i}", version) for i, version in enumerate(history_versions)]
    promote(tmp_path, bundles[0], None)
    promote(tmp_path, bundles[2], bundles[0])  # the others failed the gate
    assert prune(tmp_path, keep=2)["removed"] == {
        "bundles": [],
        "catalogue": [],
        "codebooks": [],
        "psu": [],
        "checkpoints": [],
    }  # all too young
    age(tmp_path, 3 * 86_400)
    before = sorted(str(x) for x in tmp_path.rglob("*"))
    dry = prune(tmp_path, keep=2, dry=True)
    assert sorted(str(x) for x in tmp_path.rglob("*")) == before
    done = prune(tmp_path, keep=2)
    assert done["removed"] == dry["removed"]
    stay = [bundles[i] for i in (0, 2, 6, 7)]
    for kind in ("bundles", "psu", "codebooks"):
        assert published(tmp_path / kind) == stay, kind
    assert sorted(x.name for x in (tmp_path / "checkpoints").iterdir()) == ["c0", "c2", "c6", "c7"]
    assert {name for name, who in versions.pins(tmp_path).items() if "live" in who} == {
        history_versions[i] for i in (0, 2, 6, 7)
    }
    compact(tmp_path, grace_s=0)
    assert {history_versions[i] for i in (0, 2, 6, 7)} <= set(versions.names(tmp_path))
    assert history_versions[3] not in versions.names(tmp_path)
    assert lineage(tmp_path)["history"]["version"] == history_versions[2]
    assert prune(tmp_path, keep=2)["removed"]["bundles"] == []  # again: nothing


def test_what_rollbacks_lead_to_stays_however_many_releases_were_withdrawn(tmp_path: Path) -> None:
    bundles = [made(tmp_path, "bundles") for _ in range(7)]
    promote(tmp_path, bundles[0], None)
    promote(tmp_path, bundles[1], bundles[0])
    for refused in bundles[2:4]:
        promote(tmp_path, refused, bundles[1])
        promote(tmp_path, bundles[1], refused, f"rollback from {refused}")
    age(tmp_path, 3 * 86_400)
    assert prune(tmp_path)["removed"]["bundles"] == bundles[2:4]
    promote(tmp_path, bundles[0], bundles[1])  # a circle
    assert live(tmp_path, keep=9)["bundles"] == {bundles[i] for i in (0, 1, 4, 5, 6)}


def test_runs_hold_what_they_read_and_let_it_go_when_they_are_long_over(tmp_path: Path) -> None:
    history.write(tmp_path, "events", events("u", records([1])), "b")
    version = compact(tmp_path)["version"]
    who = hold_for_run(tmp_path, version, "psu-manual__2026-01-01T00:00:00+00:00 [x]")
    assert versions.pins(tmp_path) == {version: [who]}
    assert prune(tmp_path)["released"] == []
    file = versions.folder(tmp_path) / f"{version}.pin-{who}"
    os.utime(file, (time.time() - 8 * 86_400,) * 2)
    assert prune(tmp_path)["released"] == [file.name]
    assert versions.pins(tmp_path) == {}


def test_a_removal_that_was_killed_is_finished(tmp_path: Path) -> None:
    made(tmp_path, "psu")
    left = tmp_path / "psu" / ".removing-v000009"
    left.mkdir()
    prune(tmp_path)
    assert not left.exists()
    assert live(tmp_path)["psu"] == {"v000001"}


def day_of(user: str) -> list[Event]:
    shown = [{"item_id": f"{user}-{i}", "position": i} for i in range(3)]
    one = {"user_id": user, "item_id": f"{user}-1", "impression_id": f"shown-{user}"}
    return [
        build(IMPRESSION, {"user_id": user, "impression_id": f"shown-{user}", "items": shown}, T0, "test"),
        build(BROWSE, one, T0 + 5000, "test"),
    ]


def test_forgetting_reaches_a_version_that_a_served_bundle_pins(home: Path) -> None:
    from features.online import Online
    from streaming import forget as forgets
    from streaming.apply import Applier
    from streaming.deadletters import FileSink

    online = Online()
    Applier(online, home, FileSink(home)).apply(
        [x.message(f"seminar.{x.type}", 0, i) for i, x in enumerate([*day_of("ann"), *day_of("bob")])]
    )
    assert labels.publish(home, T0, T0 + DAY, watermark_ms=T0 + 3 * DAY)["clicks"] == 2
    version = compact(home, grace_s=0)["version"]
    promote(home, chain(home, "c", version), None)
    prune(home)
    assert versions.pins(home) == {version: ["live"]}
    receipt = forgets.forget("ann", online, home, None)
    assert receipt["rows"] == 4  # an event, an impression, a click and a label
    for table in (history.EVENTS, history.IMPRESSIONS, history.CLICKS, history.LABELS):
        rows = history.read(home, table, version=version).to_pylist()
        assert [row["user_id"] for row in rows] == ["bob"], table
    assert lineage(home)["history"]["version"] == version
    for file in (home / "history").rglob("*.parquet"):
        if "user_id" in (rows := history.pq.read_table(file, partitioning=None)).column_names:
            assert "ann" not in rows["user_id"].to_pylist(), file


def test_a_catalogue_is_assembled_again_without_its_shards(tmp_path: Path) -> None:
    def shard(values: list[int]) -> list[dict[str, Any]]:
        aside = catalogue._aside(tmp_path, "v000001")
        aside.mkdir(parents=True)
        for name in catalogue.FIELDS:
            np.save(aside / f"00000.{name}.npy", np.array(values))
        return [{"shard": 0, "items": len(values), "error": 0.5}]

    told: dict[str, Any] = {"codebooks": "v000001", "psu": "v000001", "history": "v000001"}
    found = catalogue.assemble(tmp_path, encoded=(encoded := shard([1, 2, 3])), **told)
    assert found == {"version": "v000001", "items": 3, "shards": 1, "error": 0.5}
    (tmp_path / "catalogue" / "current").unlink()  # killed before it was pointed to
    assert catalogue.assemble(tmp_path, encoded=encoded, **told) == found
    assert current(tmp_path / "catalogue") == "v000001"
    assert catalogue.assemble(tmp_path, encoded=shard([1, 2, 3, 4]), **told)["version"] == "v000002"


def test_what_a_killed_publisher_left_goes_after_a_day(tmp_path: Path) -> None:
    for name, age in (("fresh", 0), ("left", 2 * 86_400)):
        (folder := tmp_path / "psu" / f".building-{name}").mkdir(parents=True)
        os.utime(folder, (time.time() - age,) * 2)
    prune(tmp_path, grace_s=0)
    assert [x.name for x in (tmp_path / "psu").iterdir()] == [".building-fresh"]
