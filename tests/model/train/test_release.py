import json
import multiprocessing
import os
import shutil
import signal
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from features.checks import missed
from features.errors import SeminarError
from features.publish import POINTER, SUMS, checksums, current, path
from model.config import Config
from model.train.checkpoint import WEIGHTS
from model.train.ctr import finetune
from model.train.duel import duel
from model.train.evaluate import evaluate
from model.train.gate import Limits, gate
from model.train.lineage import LOG
from model.train.release import promote, rollback
from tests.model.conftest import Trained


@pytest.fixture
def shop(trained: Trained, tmp_path: Path) -> Path:
    """A home with two versions of the trained bundle."""
    for version in ("v000001", "v000002"):
        shutil.copytree(path(trained.home / "bundles", trained.bundle), tmp_path / "bundles" / version)
    return tmp_path


def test_promote_and_roll_back(shop: Path) -> None:
    kind = shop / "bundles"
    assert promote(shop, bundle="v000001") == {"bundle": "v000001", "former": None}
    with pytest.raises(SeminarError, match="no former"):
        rollback(shop)
    promote(shop, bundle="v000002")
    written = (kind / POINTER).stat().st_mtime_ns
    promote(shop, bundle="v000002")  # again: scorers that refused it are asked to try again
    assert (kind / POINTER).stat().st_mtime_ns > written
    assert len((kind / LOG).read_text().splitlines()) == 2
    assert current(kind) == "v000002"
    assert rollback(shop)["bundle"] == "v000001"
    assert current(kind) == "v000001"
    with pytest.raises(SeminarError, match="no former"):
        rollback(shop)  # not forth again to what was withdrawn
    with (kind / "promotions.jsonl").open("a") as log:
        log.write('{"time": "2026-')  # a full disk
    promote(shop, bundle="v000002")
    assert rollback(shop)["bundle"] == "v000001"


def test_what_was_compared_with_another_champion_is_not_promoted(shop: Path) -> None:
    promote(shop, bundle="v000001")
    with pytest.raises(SeminarError, match="is not the one that was compared"):
        promote(shop, bundle="v000002", champion="v000007")
    promote(shop, bundle="v000002", champion="v000001")
    promote(shop, bundle="v000002", champion="v000001")  # a retry


def _die(shop: Path, gap: str) -> None:
    from model.train import release

    real = release.point

    def point(kind: Path, version: str) -> None:
        if gap == "after":
            real(kind, version)
        os.kill(os.getpid(), signal.SIGKILL)

    release.point = point
    release.promote(shop, bundle="v000002")


@pytest.mark.parametrize(("gap", "served"), [("before", "v000001"), ("after", "v000002")])
def test_a_promotion_killed_anywhere_ends_right_when_tried_again(shop: Path, gap: str, served: str) -> None:
    promote(shop, bundle="v000001")
    child = multiprocessing.get_context("spawn").Process(target=_die, args=(shop, gap))
    child.start()
    child.join(120)
    assert child.exitcode == -signal.SIGKILL
    assert current(shop / "bundles") == served  # one or the other, whole
    promote(shop, bundle="v000002", champion="v000001")
    assert current(shop / "bundles") == "v000002"
    assert rollback(shop) == {"bundle": "v000001", "former": "v000002"}


def test_a_torn_bundle_is_never_pointed_to(shop: Path) -> None:
    promote(shop, bundle="v000001")
    weights = shop / "bundles" / "v000002" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(SeminarError, match=r"weights\.safetensors"):
        promote(shop, bundle="v000002")
    with pytest.raises(SeminarError, match="v000007"):
        promote(shop, bundle="v000007")
    assert current(shop / "bundles") == "v000001"


LOOSE = {"gauc": 0.1, "codes_recall": 0.0, "calibration": 99.0}


def failed(found: dict[str, Any]) -> list[str]:
    return [check["name"] for check in found["checks"] if not check["passed"]]


def test_the_gate_names_what_is_missed(shop: Path) -> None:
    assert failed(gate(shop, bundle="v000001", limits=Limits(**{**LOOSE, "gauc": 0.999}))) == ["gauc"]
    found = gate(shop, bundle="v000001", limits=Limits(**LOOSE))
    assert found["passed"]
    assert {x["name"]: x["why"] for x in found["checks"]}["champion"] == "there is no champion yet"
    assert failed(gate(shop, bundle="v000001", limits=Limits(**LOOSE, size_mb=0.1))) == ["size_mb"]
    slow = {"requests": 10, "p90_ms": 1900.0}
    assert failed(gate(shop, bundle="v000001", limits=Limits(**LOOSE), smoke=slow)) == ["latency_ms"]


def rewrite(folder: Path, table: str = "metrics", **values: Any) -> None:
    """Publish other figures, or facts of another table of the manifest, under the name of a bundle."""
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest[table] |= values
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / SUMS).write_text("".join(f"{digest}  {name}\n" for name, digest in checksums(folder).items()))


def test_what_cannot_be_measured_does_not_block_and_says_so(shop: Path) -> None:
    rewrite(shop / "bundles" / "v000001", codes_recall=float("nan"), predicted_to_observed=None)
    found = gate(shop, bundle="v000001", limits=Limits(gauc=0.1))
    assert found["passed"]
    why = {x["name"]: x["why"] for x in found["checks"] if not x["applies"]}
    assert why["codes_recall"] == "histories are too short to need a search"
    assert why["calibration"] == "nothing was shown and clicked to measure it on"
    rewrite(shop / "bundles" / "v000001", gauc=None)
    assert failed(gate(shop, bundle="v000001", limits=Limits(gauc=0.1))) == ["gauc"]  # this one must be there


def test_without_a_comparison_the_published_figures_are_compared(shop: Path) -> None:
    promote(shop, bundle="v000001")
    rewrite(shop / "bundles" / "v000001", gauc=0.99)
    found = gate(
        shop, bundle="v000002", limits=Limits(**LOOSE), duel={"champion": "v000001", "reason": "its checkpoint is gone"}
    )
    assert failed(found) == ["champion"]
    assert {x["name"]: x["why"] for x in found["checks"]}["events"] == "its checkpoint is gone"


def test_a_bundle_that_was_not_compared_with_what_is_served_by_now_is_stopped(shop: Path) -> None:
    """It lost against the former champion; against the published figures of the new one it would pass."""
    promote(shop, bundle="v000001")
    lost = {"challenger": 0.69, "champion": 0.75, "difference": -0.06, "lo": -0.08, "hi": -0.04, "users": 50}
    for former in ("v000009", None):
        found = gate(shop, bundle="v000002", limits=Limits(**LOOSE), duel={"champion": former, "gauc": lost})
        assert failed(found) == ["champion"]
        assert "run again" in missed(found["checks"])


def test_what_was_trained_on_older_windows_replaces_nothing_newer(shop: Path) -> None:
    promote(shop, bundle="v000001")
    manifest = json.loads((shop / "bundles" / "v000002" / "manifest.json").read_text())
    end = datetime.fromisoformat(manifest["windows"]["end"])
    rewrite(shop / "bundles" / "v000002", "windows", end=(end - timedelta(days=3)).isoformat())
    found = gate(shop, bundle="v000002", limits=Limits(**LOOSE))
    assert (failed(found), missed(found["checks"])) == (["newer_days"], "newer_days -3 (limit 0.0)")
    assert gate(shop, bundle="v000002", limits=Limits(**LOOSE, newer_days=-3))["passed"]


def test_the_gate_compares_with_the_champion_on_the_same_events(shop: Path) -> None:
    promote(shop, bundle="v000001")
    pair = {"challenger": 0.8, "champion": 0.82, "difference": -0.02, "lo": -0.03, "hi": -0.01, "users": 9}
    compared = {"champion": "v000001", "gauc": pair, "impressions": None}

    def judged(**limits: float) -> list[str]:
        return failed(gate(shop, bundle="v000002", limits=Limits(**LOOSE, **limits), duel=compared))

    assert judged(margin=0.04, events=9) == []
    assert judged(margin=0.02, events=9) == ["champion"]
    rewrite(shop / "bundles" / "v000001", gauc=0.99)
    assert judged(margin=0.04) == ["events"]  # the champion is far from itself: so are the events
    pair_shown = {**pair, "lo": -0.4, "hi": -0.2}
    found = gate(
        shop, bundle="v000002", limits=Limits(**LOOSE, margin=0.04, events=9), duel={**compared, "impressions": pair_shown}
    )
    assert failed(found) == ["champion_impressions"]


def test_a_rollback_withdraws_what_it_was_asked_to_and_nothing_else(shop: Path) -> None:
    for version in ("v000001", "v000002"):
        promote(shop, bundle=version)
    with pytest.raises(SeminarError, match="v000002 is served"):
        rollback(shop, "v000001")
    assert current(shop / "bundles") == "v000002"
    assert rollback(shop, "v000002")["bundle"] == "v000001"


def test_a_bundle_ties_with_itself(trained: Trained) -> None:
    found = duel(
        trained.home,
        challenger=trained.bundle,
        champion=trained.bundle,
        windows=trained.windows,
        config=trained.config,
    )
    assert found["gauc"]["users"] > 5
    for comparison in (found["gauc"], found["impressions"]):
        assert (comparison["difference"], comparison["lo"], comparison["hi"]) == (0, 0, 0)
        assert comparison["champion"] > 0.5


def test_a_champion_with_other_tables_is_compared_as_it_reads(trained: Trained, tmp_path: Path) -> None:
    home, former = tmp_path / "var", f"{trained.bundle[:-1]}9"
    shutil.copytree(trained.home, home)
    config = Config.load({**trained.config.as_dict(), "model": {**trained.config.as_dict()["model"], "token_rows": 4096}})
    other = Path(finetune(home, windows=trained.windows, config=config)["checkpoint"])
    bundle = shutil.copytree(home / "bundles" / trained.bundle, home / "bundles" / former)
    rewrite(bundle, "lineage", checkpoint=other.name)
    found = duel(home, challenger=trained.bundle, champion=former, windows=trained.windows, config=trained.config)
    (row,) = [
        row
        for row in evaluate(home, checkpoints={"other": str(other)}, windows=trained.windows, config=config)["methods"]
        if (row["name"], row["mode"]) == ("other", "recommendation")
    ]
    assert found["gauc"]["champion"] == pytest.approx(row["gauc"])


def test_a_champion_from_before_the_model_changed_is_no_match(trained: Trained, tmp_path: Path) -> None:
    home, former = tmp_path / "var", f"{trained.bundle[:-1]}9"
    shutil.copytree(trained.home, home)
    old = home / "checkpoints" / "old"
    shutil.copytree(trained.tuned["checkpoint"], old)
    weights = load_file(old / WEIGHTS)
    save_file({**weights, "wide.0.weight": weights["wide.0.weight"][:, 1:].contiguous()}, old / WEIGHTS)
    bundle = shutil.copytree(home / "bundles" / trained.bundle, home / "bundles" / former)
    rewrite(bundle, "lineage", checkpoint="old")
    found = duel(home, challenger=trained.bundle, champion=former, windows=trained.windows, config=trained.config)
    assert found["gauc"] is None
    assert "another version of the click model" in found["reason"]
