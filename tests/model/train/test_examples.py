"""No leak: whatever happens at and after a user's target changes no earlier example and no earlier score."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from features import history
from features.record import KIND_BROWSE, KIND_SEARCH, RECORD, entity_id, signed
from model.config import ModelConfig
from model.train import checkpoint
from model.train.ctr import logits
from model.train.dataset import Dataset, load, vocabulary
from model.train.examples import ClickExamples, browses, impressions
from model.train.lists import later
from model.train.moments import Row, pad, session_time
from model.train.popularity import Popularity
from tests.dags.history import DAY, START, origin
from tests.model.conftest import Trained


def scores(found: Dataset, trained: Trained, user: int, prefix: int, now: int) -> torch.Tensor:
    saved = checkpoint.read(Path(trained.tuned["checkpoint"]))
    model = saved.spec.click()
    model.load_state_dict(saved.weights)
    items = np.arange(1, 30)
    row = Row(prefix, now, 1, items, np.zeros(29, np.float32), 0, None)
    with torch.no_grad():
        popularity = Popularity(found, trained.windows.end)
        return logits(model.eval(), found, saved.vocabulary(found), [pad(user, [row])], popularity)[0]


def test_what_happens_at_and_after_a_target_changes_no_score(trained: Trained, tmp_path: Path) -> None:
    whole = load(trained.home, trained.windows.end, trained.config.model)
    user = 3
    place = int(browses(whole, user, trained.windows.t3, trained.windows.end)[0])
    start = whole.histories.offsets[user]
    prefix = int(whole.basket_starts[start + place])
    now = session_time(whole, user, prefix)
    before = scores(whole, trained, user, prefix, now)
    # Its own search and its basket-mates lie in the session that the prefix excludes.
    session = whole.histories.of(user)[prefix : place + 1]
    assert len(session) >= 2
    assert (session["item"] == 0).any()

    home = tmp_path / "var"
    for table in history.SCHEMAS:
        shutil.copytree(trained.home / "history" / table, home / "history" / table)
    rows = history.read(home, history.EVENTS)
    records = np.frombuffer(b"".join(rows["sequence"].to_pylist()), RECORD).copy()
    changed = (records["time"] >= now) & (np.array(rows["user_id"].to_pylist()) == whole.histories.user_ids[user])
    assert changed.sum() > 5
    known = records["item"][records["item"] > 0]
    records["item"][changed] = np.random.default_rng(0).choice(known, changed.sum())
    records["query"][changed] = 0
    records["kind"][changed] = 2
    shutil.rmtree(home / "history" / history.EVENTS)
    packed = pa.array([r.tobytes() for r in records], pa.binary(32))
    history.write(home, history.EVENTS, rows.set_column(2, "sequence", packed), "mutated")

    mutated = load(home, trained.windows.end, trained.config.model)
    assert mutated.histories.records.tobytes() != whole.histories.records.tobytes()
    assert torch.equal(before, scores(mutated, trained, user, prefix, now))


def test_training_reads_nothing_after_its_window(trained: Trained) -> None:
    whole = load(trained.home, trained.windows.end, trained.config.model)
    cut = load(trained.home, trained.windows.t2, trained.config.model)
    assert cut.histories.records["time"].max() < trained.windows.t2
    known = vocabulary(whole, trained.windows.t2, trained.config.train) > 0
    assert (known == (vocabulary(cut, trained.windows.t2, trained.config.train) > 0)).all()
    assert (whole.counts(trained.windows.t2) == cut.counts(trained.windows.t2)).all()


def test_prefixes_end_before_the_session(trained: Trained) -> None:
    found = load(trained.home, trained.windows.end, trained.config.model)
    for user in range(5):
        times = found.histories.of(user)["time"]
        start = found.histories.offsets[user]
        for place in browses(found, user, 0, trained.windows.end):
            prefix = int(found.basket_starts[start + place])
            assert prefix <= place
            assert prefix == 0 or times[prefix] - times[prefix - 1] > 600_000
            assert (np.diff(times[prefix : place + 1]) <= 600_000).all()


def test_clicks_are_browses_after_the_impression_and_unfinished_ones_wait(trained: Trained) -> None:
    found = load(trained.home, trained.windows.end, trained.config.model)
    lists = impressions(trained.home, found, trained.windows.t2, trained.windows.t3)
    assert len(lists) == 16
    for user, shown in lists.items():
        past = found.histories.of(user)
        for one in shown:
            assert one.now < trained.windows.t3 - 86_400_000
            inside = (past["time"] >= one.now) & (past["time"] <= one.now + 86_400_000)
            clicked = set(
                found.item_rows[found.histories.offsets[user] : found.histories.offsets[user + 1]][inside].tolist()
            )
            assert one.clicks.tolist() == [int(row) in clicked for row in one.items]
            assert one.clicks.any()


def test_what_precedes_an_impression_says_nothing_of_its_click(tmp_path: Path) -> None:
    """A search, a list shown a second later, and on every other day a click after it."""
    tables: dict[str, list[dict[str, Any]]] = {name: [] for name in history.SCHEMAS}
    items = [signed(entity_id(f"item-{i}")) for i in range(10)]
    for i, item in enumerate(items):
        named = {"item": item, "item_id": f"item-{i}", "title": "cup", "category": "cups", "brand": None, "attributes": "{}"}
        tables[history.ITEMS].append({**named, **origin(START)})
    for day in range(20):
        begin = START + day * DAY
        for number, (ms, item) in enumerate([(begin, 0), (begin + 20_000, entity_id("item-3"))][: 1 + day % 2]):
            record = np.zeros(1, RECORD)
            record["time"], record["item"], record["query"] = ms, item, entity_id("cups")
            record["kind"], record["digest"] = KIND_BROWSE if item else KIND_SEARCH, 2 * day + number
            tables[history.EVENTS].append({"user_id": "ann", "sequence": record.tobytes(), **origin(ms)})
        shown = {"user_id": "ann", "impression_id": f"{day}", "query": 0, "items": items, "positions": list(range(10))}
        tables[history.IMPRESSIONS].append({**shown, "place": "top", **origin(begin + 1000)})
    for name, rows in tables.items():
        history.write(tmp_path, name, pa.Table.from_pylist(rows, schema=history.SCHEMAS[name]), "test")
    end = START + 30 * DAY
    found = load(tmp_path, end, ModelConfig(encoder="hashing"))
    (lists,) = impressions(tmp_path, found, START, end).values()
    assert {one.clicks.any() for one in lists} == {True, False}
    gaps = [one.now - found.histories.records["time"][one.prefix - 1] for one in lists if one.prefix]
    assert len(gaps) == 19
    assert min(gaps) > 86_000_000  # of every list the day before is the last that it sees: its own search is none of it


def test_the_commonest_width_of_pictures_is_read(trained: Trained, tmp_path: Path) -> None:
    shutil.copytree(trained.home / "history", tmp_path / "history")
    rows = history.newest_items(history.read(tmp_path, history.ITEMS)).to_pylist()
    for width, some in ((512, rows[:3]), (768, rows[3:4])):
        new = [{**row, "image_vector": np.ones(width, np.float32).tobytes(), **origin(START + DAY)} for row in some]
        history.write(tmp_path, history.ITEMS, pa.Table.from_pylist(new, schema=history.SCHEMAS[history.ITEMS]), f"w{width}")
    found = load(tmp_path, trained.windows.end, trained.config.model)
    assert (found.image_width, found.items.image_ok.sum()) == (512, 3)
    # A model that was made before there were pictures reads the data set as it is now.
    before = load(trained.home, trained.windows.end, trained.config.model)
    assert torch.equal(*(scores(one, trained, 3, 40, trained.windows.t3) for one in (before, found)))


def test_examples_say_where_their_labels_come_from(trained: Trained) -> None:
    found = load(trained.home, trained.windows.t2, trained.config.model)
    examples = ClickExamples(trained.home, found, trained.windows.t1, trained.windows.t2, 10)
    assert examples.labels()["impressions"] > 0
    rng = np.random.default_rng(0)
    drawn, other = examples.draw(rng, examples.users[:2], 8)
    assert (drawn.user, other.user) == tuple(examples.users[:2])
    assert set(drawn.source.tolist()) == {0, 1}
    sampled = drawn.source == 0
    assert (drawn.labels[sampled, 0] == 1).all()
    assert (drawn.labels[sampled].sum(1) == 1).all()
    assert (drawn.position[sampled] == -1).all()
    for items, real in zip(drawn.items[sampled], drawn.real[sampled], strict=True):
        assert items[0] not in items[1:][real[1:]]


def test_evaluation_lists_are_the_same_for_everyone(trained: Trained) -> None:
    found = load(trained.home, trained.windows.end, trained.config.model)
    window = trained.windows.t3, trained.windows.end
    for mode in ("recommendation", "search"):
        first, again = (later(found, *window, 40, mode, 0) for _ in range(2))
        other = later(found, *window, 40, mode, 1)
        assert first.digest(found) == again.digest(found) != other.digest(found)
        for m in first.moments:
            assert (m.labels[:, 0] == 1).all()
            assert (m.labels.sum(1) == 1).all()
            assert ((m.queries[:, 0] > 0) == (mode == "search")).all()
