"""Fixtures that tests of all packages share."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

LONGEST = ("test_clean_clone.py", "test_scheduler.py", "test_your_own_data.py")
"""What takes longest begins first: begun last, one worker would wait for it."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """In order of files, the longest ones first."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture(autouse=True)
def _ordinary_floats() -> Iterator[None]:
    """Training takes denormal numbers for zero (model.compute); the next test must not inherit that."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A SEMINAR_HOME of its own with the feature repository applied."""
    from features.repository import apply

    monkeypatch.setenv("SEMINAR_HOME", str(tmp_path / "var"))
    (tmp_path / "var").mkdir()
    apply()
    return tmp_path / "var"
