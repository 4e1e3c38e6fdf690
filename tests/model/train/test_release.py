import json
import shutil
from pathlib import Path

import pytest

from features.errors import SeminarError
from features.publish import current, path
from model.train.release import Limits, gate, promote, rollback
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
    promote(shop, bundle="v000002")  # again changes nothing
    assert current(kind) == "v000002"
    assert rollback(shop)["bundle"] == "v000001"
    assert current(kind) == "v000001"


def test_a_torn_bundle_is_never_pointed_to(shop: Path) -> None:
    promote(shop, bundle="v000001")
    weights = shop / "bundles" / "v000002" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(SeminarError, match=r"weights\.safetensors"):
        promote(shop, bundle="v000002")
    with pytest.raises(SeminarError, match="v000007"):
        promote(shop, bundle="v000007")
    assert current(shop / "bundles") == "v000001"


def test_the_gate_names_what_is_missed(shop: Path) -> None:
    found = gate(shop, bundle="v000001", limits=Limits(gauc=0.999, codes_recall=0.0, calibration=99.0))
    assert not found["passed"]
    assert [check["name"] for check in found["checks"] if not check["passed"]] == ["gauc"]
    assert gate(shop, bundle="v000001", limits=Limits(gauc=0.1, codes_recall=0.0, calibration=99.0))["passed"]


def test_the_gate_compares_with_the_champion(shop: Path) -> None:
    from features.publish import SUMS, checksums

    promote(shop, bundle="v000001")
    folder = shop / "bundles" / "v000001"
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["metrics"]["gauc"] = 0.99
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / SUMS).write_text("".join(f"{digest}  {name}\n" for name, digest in checksums(folder).items()))
    found = gate(shop, bundle="v000002", limits=Limits(gauc=0.1, codes_recall=0.0, calibration=99.0))
    assert [check["name"] for check in found["checks"] if not check["passed"]] == ["gauc"]
    assert found["checks"][0]["limit"] == pytest.approx(0.98)
