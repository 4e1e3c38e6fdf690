"""Lists are scored in passes: which candidate is in which pass, and how many passes run at once, changes no score."""

from pathlib import Path

import numpy as np
import pytest
import torch

from model.nn.click import IMPRESSED
from model.train import scoring
from model.train.dataset import load
from model.train.lists import later
from model.train.moments import Row, pad
from model.train.scoring import CELLS, LIKE, of_checkpoint, pieces
from tests.model.conftest import Trained


@pytest.mark.parametrize("lengths", [[3, 2 * CELLS + 5, 7, 100, 100], [5] * 2000, [10, 9, 8, 7, 2, 2, 1]])
def test_pieces_cover_every_candidate_once_and_are_bounded(lengths: list[int]) -> None:
    rows = [Row(i, i, 0, np.arange(1, n + 1), np.zeros(n, np.float32), IMPRESSED, None) for i, n in enumerate(lengths)]
    m = pad(0, rows)
    seen = np.zeros(m.items.shape, int)
    for taken, columns, piece in pieces(m):
        assert piece.items.size <= CELLS
        assert (piece.items == m.items[taken, columns]).all()
        assert (piece.prefix == m.prefix[taken]).all()
        assert len(taken) == 1 or piece.real.mean() > LIKE
        seen[np.ix_(taken, range(columns.start, columns.stop))] += 1
    assert (seen[m.real] == 1).all()
    assert (seen <= 1).all()


def test_scores_are_the_same_however_many_passes_run_at_once(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    windows, threads = trained.windows, torch.get_num_threads()
    dataset = load(trained.home, windows.end, trained.config.model)
    lists = later(dataset, windows.t3, windows.end, 200, "search", 0)
    assert len({m.items.shape[1] for m in lists.moments}) > 1

    def scores() -> np.ndarray:
        found = of_checkpoint(Path(trained.tuned["checkpoint"]), dataset, windows.t3)(lists.moments)
        return np.concatenate([s[m.real] for s, m in zip(found, lists.moments, strict=True)])

    together = scores()
    assert together.std() > 0.1
    monkeypatch.setattr(scoring, "PASS", 1)
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            np.testing.assert_allclose(scores(), together, atol=1e-4)
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
