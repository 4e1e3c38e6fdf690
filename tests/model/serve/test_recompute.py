import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from features import history
from features.online import Online
from features.publish import point
from features.record import RECORD, entity_id, signed
from features.requests import Writer, read
from features.settings import settings
from model.serve.answers import ScoreRequest
from model.serve.recompute import SAME, difference, recompute
from model.serve.service import Limits, Service
from tests.model.conftest import Trained


@pytest.fixture
def answered(home: Path, trained: Trained) -> Path:
    """A home with history, whose service has answered and logged some requests."""
    shutil.copytree(trained.home / "history", home / "history")
    point(home / "bundles", "v000001")
    service = Service(settings(), Limits(logged=1.0))
    service.prepare()
    service.start(60)
    for user in range(6):
        service.score(ScoreRequest(user=f"user-{user}", query="milk", candidates=["milk-0", "rice-1", "nothing"]))
    service.close()
    return home


def test_history_gives_the_rates_that_were_served(answered: Path) -> None:
    found = recompute(answered)
    assert (found["requests"], found["recomputed"], found["same_records"]) == (6, 6, 6)
    assert found["max_difference"] == found["max_difference_same_records"] <= SAME
    assert found["left_out"] == {}


def test_a_rate_that_does_not_follow_is_found(answered: Path) -> None:
    lines = list(read(answered))
    lines[2].rates[0] += 0.125  # type: ignore[operator]
    lines[2].scored_ms += 1
    Writer(answered).write(lines[2])
    found = recompute(answered)
    assert found["max_difference_same_records"] == pytest.approx(0.125, abs=1e-6)
    assert found["worst"]["user"] == lines[2].user


def test_records_that_history_does_not_have_are_told_apart(answered: Path) -> None:
    records = np.zeros(40, RECORD)
    records["time"], records["item"], records["kind"] = 1_700_000_000_000 + np.arange(40), entity_id("milk-0"), 2
    Online().append({"user-1": records})
    service = Service(settings(), Limits(logged=1.0))
    service.prepare()
    service.start(60)
    service.score(ScoreRequest(user="user-1", candidates=["milk-0"]))
    service.close()
    found = recompute(answered)
    assert (found["recomputed"], found["same_records"]) == (7, 6)
    assert found["max_difference"] > SAME >= found["max_difference_same_records"]


def test_answers_without_the_store_and_of_bundles_that_are_gone_are_left_out(answered: Path) -> None:
    lines = list(read(answered))
    lines[0].degraded, lines[1].version = ["store: TimeoutError: did not answer"], "v000077"
    for line in lines[:2]:
        line.scored_ms += 10
        Writer(answered).write(line)
    assert recompute(answered)["left_out"] == {"the store was away": 1, "bundle v000077 is gone": 1}


def told(item: str, arrived: datetime) -> pa.Table:
    """An item's content as history has it."""
    schema = history.SCHEMAS[history.ITEMS]
    row = dict.fromkeys(schema.names) | {"item": signed(entity_id(item)), "item_id": item, "title": "milk"}
    origin = {"topic": "item", "partition": 0, "offset": 0, "arrived": arrived, "event_timestamp": arrived}
    return pa.Table.from_pylist([row | {"attributes": "{}"} | origin], schema=schema)


def test_answers_before_contents_are_left_out(answered: Path) -> None:
    former = told("milk-new", datetime.now(UTC) - timedelta(days=1))
    history.write(answered, history.ITEMS, former, "former")
    Online().write_items(former)
    service = Service(settings(), Limits(logged=1.0))
    service.prepare()
    service.start(60)
    service.score(ScoreRequest(user="user-1", candidates=["milk-0", "milk-new"]))
    service.score(ScoreRequest(user="user-1", candidates=["milk-0", "comes-later"]))
    service.close()
    history.write(answered, history.ITEMS, told("comes-later", datetime.now(UTC)), "later")
    found = recompute(answered)
    assert (found["requests"], found["recomputed"]) == (8, 7)
    assert found["left_out"] == {"contents came after the answer": 1}
    assert found["max_difference_same_records"] <= SAME


def test_differences() -> None:
    assert difference([0.5, None], [0.25, None]) == 0.25
    assert difference([None], [0.1]) == 1.0
