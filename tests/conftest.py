"""Fixtures that tests of all packages share."""

from pathlib import Path

import pytest


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A SEMINAR_HOME of its own with the feature repository applied."""
    from features.repository import apply

    monkeypatch.setenv("SEMINAR_HOME", str(tmp_path / "var"))
    (tmp_path / "var").mkdir()
    apply()
    return tmp_path / "var"
