import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from features import history
from features.errors import SeminarError
from features.online import Online
from features.repository import open_store
from features.settings import REPOSITORY
from tests.features.conftest import make

FEAST = Path(sys.executable).parent / "feast"
T = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def filled(home: Path) -> Path:
    """A home whose history holds one event of a user and three versions of an item."""
    origin = {"topic": "t", "partition": 0, "offset": 0, "arrived": T}
    event = {"user_id": "u", "event_timestamp": T, "sequence": make([1]).tobytes(), **origin}
    history.write(home, "events", pa.Table.from_pylist([event], schema=history.SCHEMAS["events"]), "a")
    titles = {2: "newest", 0: "old", 1: "older"}
    items = [
        {"item": 1, "item_id": "i", "title": title, "event_timestamp": T + timedelta(hours=h), **origin}
        for h, title in titles.items()
    ]
    history.write(home, "items", pa.Table.from_pylist(items, schema=history.SCHEMAS["items"]), "a")
    return home


def feast(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [FEAST, "-f", home / "feature_store.yaml", *arguments],
        cwd=REPOSITORY,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_point_in_time_join_over_sequences_is_refused(filled: Path) -> None:
    store = open_store()
    people = pd.DataFrame({"user_id": ["u"], "event_timestamp": [T]})
    with pytest.raises(SeminarError, match=r"user_sequence.*read_sequences"):
        store.get_historical_features(people, ["user_sequence:sequence"])
    things = pd.DataFrame({"item": [1], "event_timestamp": [T + timedelta(hours=1.5)]})
    found = store.get_historical_features(things, ["item_content:title"]).to_df()
    assert found["title"].tolist() == ["older"]


def test_materialising_a_sequence_is_refused_and_leaves_it_readable(filled: Path) -> None:
    online, store = Online(), open_store()
    online.append({"u": make([5])})
    for pull_latest in (False, True):
        store.config.materialization_config.pull_latest_features = pull_latest
        with pytest.raises(SeminarError, match=r"user_sequence.*seminar replay.*--views"):
            store.materialize(T - timedelta(days=1), T + timedelta(days=1), ["user_sequence"])
        with pytest.raises(SeminarError, match=r"user_sequence.*seminar replay"):
            store.materialize_incremental(T + timedelta(days=1))
    row = {"user_id": "u", "item": 1, "query": 1}
    again = open_store()
    answer = again.get_online_features(again.get_feature_service("ctr_v1"), [row]).to_dict()
    assert len(answer["sequence"][0]) == 16 + 32


@pytest.mark.long
def test_the_command_line_says_the_same_and_materialises_the_others(filled: Path) -> None:
    for command in (("materialize", "2025-12-31T00:00:00"), ("materialize-incremental",)):
        run = feast(filled, *command, "2026-01-02T00:00:00")
        assert run.returncode != 0
        assert "user_sequence" in run.stderr
        assert "seminar replay" in run.stderr
        assert "Traceback" not in run.stderr
    views = ("--views", "item_content")
    run = feast(filled, "materialize", *views, "2025-12-31T00:00:00", "2026-01-02T00:00:00")
    assert run.returncode == 0, run.stderr
    found = Online().items([1])[0]
    assert found is not None
    assert found["title"] == "newest"
