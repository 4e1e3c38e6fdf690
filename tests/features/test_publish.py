import multiprocessing
from pathlib import Path

import pytest

from features.errors import SeminarError
from features.publish import current, path, point, publish, verify, versions


def build(folder: Path) -> None:
    (folder / "weights").write_text("w")


def test_publish_then_point(tmp_path: Path) -> None:
    kind = tmp_path / "psu"
    assert current(kind) is None
    assert [publish(kind, build), publish(kind, build)] == ["v000001", "v000002"]
    assert current(kind) is None
    point(kind, "v000001")
    assert current(kind) == "v000001"
    assert versions(kind) == ["v000001", "v000002"]
    verify(path(kind, "v000002"))


def test_a_failed_check_leaves_no_trace(tmp_path: Path) -> None:
    kind = tmp_path / "psu"
    publish(kind, build)

    def refuse(folder: Path) -> None:
        raise ValueError("does not load")

    with pytest.raises(ValueError, match="does not load"):
        publish(kind, build, refuse)
    assert [p.name for p in kind.iterdir()] == ["v000001"]


def test_unfinished_and_missing_versions_are_refused(tmp_path: Path) -> None:
    kind = tmp_path / "psu"
    (kind / "v000001").mkdir(parents=True)
    for version in ("v000001", "v000009"):
        with pytest.raises(SeminarError, match=version):
            point(kind, version)
    assert current(kind) is None
    assert publish(kind, build) == "v000002"  # a torn folder's number is not used again


@pytest.mark.parametrize("damage", ["change", "remove", "add"])
def test_verify_names_the_torn_file(tmp_path: Path, damage: str) -> None:
    kind = tmp_path / "psu"
    folder = path(kind, publish(kind, build))
    if damage == "change":
        (folder / "weights").write_text("x")
    elif damage == "remove":
        (folder / "weights").unlink()
    else:
        (folder / "more").write_text("")
    with pytest.raises(SeminarError, match=r"weights|more"):
        verify(folder)


def _publish(kind: str, times: int) -> None:
    for _ in range(times):
        publish(Path(kind), build)


def test_concurrent_publishers_get_numbers_of_their_own(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_publish, args=(str(tmp_path / "psu"), 20)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert versions(tmp_path / "psu") == [f"v{i:06d}" for i in range(1, 61)]
