import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from features.errors import SeminarError
from features.repository import configure, open_store
from features.settings import REPOSITORY

FEAST = Path(sys.executable).parent / "feast"


def test_opening_before_applying_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEMINAR_HOME", str(tmp_path))
    with pytest.raises(SeminarError, match="seminar apply"):
        open_store()


def test_a_copied_or_moved_home_is_opened_after_applying_only(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its feature_store.yaml leads to the original's online store, whose identity the copy shares."""
    from features.repository import apply

    link = tmp_path / "link"
    link.symlink_to(home)
    monkeypatch.setenv("SEMINAR_HOME", str(link))
    open_store()
    for copy in (shutil.copytree(home, tmp_path / "copy"), home.rename(tmp_path / "moved")):
        monkeypatch.setenv("SEMINAR_HOME", str(copy))
        with pytest.raises(SeminarError, match=r"belongs to another home.*run `seminar apply`"):
            open_store()
        apply()
        assert open_store().config.online_store.path == str(Path(copy) / "online.db")


@pytest.mark.long
def test_stock_feast_apply_registers_what_the_definitions_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEMINAR_HOME", str(tmp_path / "var"))
    (tmp_path / "var").mkdir()
    config = configure()
    run = subprocess.run(
        [FEAST, "-f", config, "apply"],
        cwd=REPOSITORY,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    store = open_store()
    assert sorted(entity.name for entity in store.list_entities()) == ["item", "query", "stream", "user"]
    assert sorted(view.name for view in store.list_feature_views()) == [
        "item_content",
        "query_text",
        "stream_state",
        "user_sequence",
    ]
    assert [service.name for service in store.list_feature_services()] == ["ctr_v1"]
    sources = {view.name: view.batch_source.path for view in store.list_feature_views()}
    assert sources["user_sequence"] == str(tmp_path / "var" / "history" / "events")


def test_feasts_scan_sees_the_feature_package_only() -> None:
    from feast.repo_operations import get_repo_files

    seen = {path.relative_to(REPOSITORY).parts[0] for path in get_repo_files(REPOSITORY)}
    assert seen == {"features"}
