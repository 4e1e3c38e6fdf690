import numpy as np
import pytest

from model.config import DAY_MS
from model.train.dataset import load
from model.train.popularity import WINDOWS_DAYS, Popularity
from tests.model.conftest import Trained


@pytest.mark.parametrize("days_after_end", [0, 40])
def test_counts_are_those_before_the_day_and_before_the_limit(trained: Trained, days_after_end: int) -> None:
    dataset = load(trained.home, trained.windows.end, trained.config.model)
    until = trained.windows.t3
    popularity, rows = Popularity(dataset, until), np.arange(len(dataset.item_ids) + 1)
    nows = np.array([trained.windows.t2 + DAY_MS // 2, until + days_after_end * DAY_MS])
    found = popularity.features(np.stack([rows, rows]), nows)
    for now, features in zip(nows.tolist(), found, strict=True):
        cut = min(now - now % DAY_MS, until)
        for i, days in enumerate(WINDOWS_DAYS):
            expected = dataset.counts(cut, max(0, cut - days * DAY_MS))
            expected[0] = 0
            assert np.allclose(features[:, i], np.log1p(expected) / 3)
        ever = dataset.counts(cut) * (rows > 0)
        kin = np.bincount(dataset.types + 1, ever)[dataset.types + 1] * (dataset.types >= 0)
        assert np.allclose(features[:, 3], np.log1p(kin) / 3)
        assert np.allclose(features[:, 4], ever * (dataset.types >= 0) / np.maximum(kin, 1), atol=1e-6)
    assert found[0, :, 0].sum() > 0
