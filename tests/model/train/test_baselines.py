"""The trivial methods by hand, and counters that see nothing of what comes later."""

from pathlib import Path

import numpy as np
import pytest

from features import history as tables
from features.record import KIND_BROWSE
from model.nn.click import IMPRESSED
from model.train import baselines
from model.train.counters import NAMES, Counters
from model.train.dataset import Dataset, load
from model.train.lists import later
from model.train.moments import Moments, Row, pad, session_time
from model.train.rank import figures, scored
from model.train.trees import RUNS, fit, scorer, titles
from tests.dags import history
from tests.model.conftest import CONFIG, Windows

WINDOWS = Windows.from_dates(history.WINDOWS)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A history with types of 12 items."""
    home = tmp_path_factory.mktemp("baselines")
    history.write(home, users=12, items_each=12)
    return home


@pytest.fixture(scope="module")
def dataset(home: Path) -> Dataset:
    """It, as of the end."""
    return load(home, WINDOWS.end, CONFIG.model)


def moment(dataset: Dataset, user: int, prefix: int, query: int = 0) -> Moments:
    """All items as candidates of one moment."""
    items = np.arange(1, len(dataset.item_ids) + 1)
    now = session_time(dataset, user, prefix)
    return pad(user, [Row(prefix, now, query, items, np.zeros(len(items), np.float32), IMPRESSED, None)])


def a_prefix(dataset: Dataset, user: int, since: int) -> int:
    """Where the user's first session after a time begins."""
    here = slice(dataset.histories.offsets[user], dataset.histories.offsets[user + 1])
    place = int(np.flatnonzero(dataset.histories.records["time"][here] >= since)[0])
    return int(dataset.basket_starts[here][place])


def test_own_frequency_by_hand(dataset: Dataset) -> None:
    user = 4
    prefix = a_prefix(dataset, user, WINDOWS.t3)
    m = moment(dataset, user, prefix)
    values = baselines.frequency(dataset, WINDOWS.t3, 30)([m])[0][0]
    weight = np.zeros(len(dataset.item_ids) + 1)
    start = dataset.histories.offsets[user]
    for place in range(prefix):
        age_days = (m.now[0] - int(dataset.histories.records["time"][start + place])) / 86_400_000
        weight[dataset.item_rows[start + place]] += 0.5 ** (age_days / 30)
    bought = weight[1:] > 0
    assert bought.any()
    assert not bought.all()
    assert np.exp(values[bought]) == pytest.approx(weight[1:][bought], abs=2e-3)
    assert values[~bought].max() < values[bought].min()
    popular = baselines.popularity(dataset, WINDOWS.t3)([m])[0][0]
    assert (np.argsort(values[~bought], kind="stable") == np.argsort(popular[~bought], kind="stable")).all()


def test_the_half_life_is_the_one_that_validates_best(home: Path, dataset: Dataset) -> None:
    validation = [later(dataset, WINDOWS.t2, WINDOWS.t3, 60, m, 0) for m in ("recommendation", "search")]
    score, runs = baselines.tuned_frequency(dataset, validation, WINDOWS.t3)
    assert len(runs) == 8
    best = max(runs, key=lambda row: row["quality"])
    m = moment(dataset, 1, a_prefix(dataset, 1, WINDOWS.t3))
    assert np.array_equal(score([m])[0], baselines.frequency(dataset, WINDOWS.t3, best["half_life_days"])([m])[0])


def test_counters_by_hand(home: Path, dataset: Dataset) -> None:
    user, until = 2, WINDOWS.t3
    prefix = a_prefix(dataset, user, WINDOWS.t3)
    query = int(dataset.query_rows[dataset.query_rows > 0][0])
    m = moment(dataset, user, prefix, query)
    found = dict(zip(NAMES, Counters(dataset, titles(home, dataset, WINDOWS.end), until).of(m)[0].T, strict=True))
    start, now = dataset.histories.offsets[user], int(m.now[0])
    here = slice(start, start + prefix)
    rows, asked = dataset.item_rows[here], dataset.query_rows[here]
    times = dataset.histories.records["time"][here].astype(np.int64)
    everyone = dataset.histories.records
    browsed = (everyone["kind"] == KIND_BROWSE) & (everyone["time"] < min(until, now))
    for at, item in enumerate(m.items[0].tolist()):
        mine = rows == item
        assert found["item_infd"][at] == mine.sum()
        assert found["item_after_query"][at] == (mine & (asked == query)).sum()
        assert found["type_infd"][at] == (dataset.types[rows[rows > 0]] == dataset.types[item]).sum()
        theirs = browsed & (dataset.item_rows == item)
        assert found["popularity"][at] == pytest.approx(np.log1p(theirs.sum()))
        assert found["popularity_after_query"][at] == pytest.approx(np.log1p((theirs & (dataset.query_rows == query)).sum()))
        if mine.any():
            assert found["item_days_since"][at] == pytest.approx((now - times[mine].max()) / 86_400_000, rel=1e-4)
        else:
            assert np.isnan(found["item_days_since"][at])
        if mine.sum() > 1:
            gap = (times[mine].max() - times[mine].min()) / 86_400_000 / (mine.sum() - 1)
            assert found["item_mean_gap_days"][at] == pytest.approx(gap, rel=1e-4)
    word = dataset.query_texts[query - 1]
    assert found["query_words_in_title"].tolist() == [float(key.startswith(word)) for key in dataset.item_keys]


def test_counters_see_nothing_of_what_comes_later(home: Path, dataset: Dataset, tmp_path: Path) -> None:
    """The same counters from a history that ends where the moment's session begins."""
    user, prefix = 5, a_prefix(dataset, 5, WINDOWS.t2)
    now = session_time(dataset, user, prefix)
    rows = tables.read(home, tables.EVENTS, until_ms=now)
    tables.write(tmp_path, tables.EVENTS, rows, "cut")
    for name in (tables.ITEMS, tables.QUERIES):
        tables.write(tmp_path, name, tables.read(home, name), "all")
    cut = load(tmp_path, WINDOWS.end, CONFIG.model)
    assert len(cut.histories.records) < len(dataset.histories.records)
    m = moment(dataset, user, prefix, 1)
    whole, short = (Counters(d, titles(home, d, WINDOWS.end), WINDOWS.end).of(m) for d in (dataset, cut))
    assert np.array_equal(whole, short, equal_nan=True)


def test_trees_learn_what_users_like(home: Path, dataset: Dataset) -> None:
    modes = ("recommendation", "search")
    validation = [later(dataset, WINDOWS.t2, WINDOWS.t3, 60, mode, 0) for mode in modes]
    runs = tuple({**run, "trees": 20} for run in (RUNS[0], RUNS[4]))
    text, logged = fit(home, dataset, validation, WINDOWS, CONFIG, runs=runs)
    score = scorer(text, home, dataset, WINDOWS)
    assert [row["objective"] for row in logged] == ["binary", "lambdarank"]
    assert all(0 <= row["gauc"] <= 1 for row in logged)
    test = later(dataset, WINDOWS.t3, WINDOWS.end, 100, "recommendation", 0)
    ours, popular = (figures(scored(x, test))["gauc"] for x in (score, baselines.popularity(dataset, WINDOWS.t3)))
    assert ours > popular + 0.05
