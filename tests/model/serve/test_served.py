"""The bench that ranks later events as they are served: through each search, for users as they are and for longer pasts."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmarks import served
from features.publish import point
from features.settings import settings
from model.train.dataset import load
from model.train.lists import later
from tests.model.conftest import Trained


@pytest.fixture
def home(home: Path, trained: Trained) -> Path:
    """With the history, too."""
    shutil.copytree(trained.home / "history", home / "history")
    return home


@pytest.mark.usefixtures("home")
def test_each_search_is_compared_with_exact_search() -> None:
    point(settings().bundles, "v000001")
    found = served.run(targets=20, length=400)
    rows = {(row["users"], row["mode"], row["method"]): row for row in found["cases"]}
    assert len(rows) == len(found["cases"]) == 2 * 2 * len(served.METHODS)
    for (users, mode, method), row in rows.items():
        assert 0 < row["gauc"] <= 1, (users, mode, method)
        assert row["diff_gauc_lo"] <= row["diff_gauc"] <= row["diff_gauc_hi"]
        if method in ("exact", "auto"):  # so few behaviours are searched exactly
            assert row["max_score_difference"] < 1e-6
            assert row["same10"] == 1
        assert abs(row["diff_gauc"]) < 0.05, (users, mode, method)
        assert row["events"] >= (400 if users == "put together" else 1)


def test_a_past_that_was_put_together_is_in_order_and_before_the_target(home: Path, trained: Trained) -> None:
    dataset = load(home, trained.windows.end, trained.config.model)
    lists = later(dataset, trained.windows.t3, trained.windows.end, 10, "recommendation", 0)
    alone, together = served.own(dataset), served.put_together(dataset, 400)
    for m in lists.moments:
        for at in range(len(m.prefix)):
            mine, whole = alone(m, at), together(m, at)
            assert len(mine) == m.prefix[at]
            assert len(whole) >= 400 > len(mine)
            assert np.all(np.diff(whole["time"].astype(np.int64)) >= 0)
            assert whole["time"][-1] < m.now[at]
            assert set(mine["digest"].tolist()) <= set(whole["digest"].tolist())
