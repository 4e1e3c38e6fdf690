import sqlite3
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from features import history
from features.online import Online
from features.publish import path
from features.record import RECORD, VECTOR_MOST, entity_id, signed
from model import bundle
from model.nn.click import IMPRESSED, SAMPLED
from model.serve.scorer import AWAY, UNKNOWN, Scorer
from model.serve.store import PIECE
from model.train import checkpoint
from model.train.ctr import logits
from model.train.dataset import load
from model.train.moments import Row, pad
from model.train.popularity import Popularity
from tests.model.conftest import Trained

ITEMS = [f"{kind}-{i}" for kind in ("milk", "bread", "rice") for i in range(4)]


@pytest.fixture
def scorer(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> Scorer:
    monkeypatch.setenv("SEMINAR_HOME", str(trained.home))
    return Scorer.of(bundle.load(path(trained.home / "bundles", trained.bundle)), Online())


@pytest.mark.parametrize("query", ["", "milk"])
def test_serving_scores_what_training_would(scorer: Scorer, trained: Trained, query: str) -> None:
    dataset = load(trained.home, trained.windows.end, trained.config.model)
    saved = checkpoint.read(Path(trained.tuned["checkpoint"]))
    model = saved.spec.click()
    model.load_state_dict(saved.weights)
    user = dataset.histories.user_ids[2]
    place = {item: row for row, item in enumerate(dataset.item_ids.tolist(), 1)}
    rows = np.array([place[entity_id(key)] for key in ITEMS])
    asked = 1 + dataset.query_ids.tolist().index(entity_id(query)) if query else 0
    now = trained.windows.end
    labels, past = np.zeros(len(rows), np.float32), len(dataset.histories.of(2))
    moments = pad(2, [Row(past, now, asked, rows, labels, source, None) for source in (SAMPLED, IMPRESSED)])
    found = logits(model.eval(), dataset, saved.vocabulary(dataset), [moments], Popularity(dataset, now))[0]
    catalogue, expected = found.detach().numpy()
    answer = scorer.score(user, ITEMS, query=query, time_ms=now)
    scale, shift = trained.metrics["logistic"]["seminar"]
    assert answer.degraded == []
    assert answer.rates == pytest.approx((1 / (1 + np.exp(-(scale * expected + shift)))).tolist(), abs=1e-5)
    assert answer.scores == pytest.approx(catalogue.tolist(), abs=1e-4)
    assert np.abs(catalogue - expected).max() > 1e-3


def test_quantised_search_scores_nearly_the_same(scorer: Scorer, trained: Trained) -> None:
    other = Scorer.of(bundle.load(path(trained.home / "bundles", trained.bundle)), Online(), method="pq")
    exact = scorer.score("user-2", ITEMS, time_ms=trained.windows.end).rates
    quantised = other.score("user-2", ITEMS, time_ms=trained.windows.end).rates
    assert quantised == pytest.approx(exact, abs=0.1)


def test_an_unknown_user_is_scored_and_marked(scorer: Scorer, trained: Trained) -> None:
    answer = scorer.score("nobody", ITEMS, query="milk", time_ms=trained.windows.end, explain=ITEMS[:1])
    assert answer.degraded == ["unknown user: no sequence"]
    assert all(rate is not None and 0 <= rate <= 1 for rate in answer.rates)
    assert answer.explanations[0]["behaviours"] == []
    assert answer.explanations[0]["rate"] == pytest.approx(answer.explanations[0]["rate_without"])


def test_an_unknown_candidate_gets_null_and_a_reason(scorer: Scorer, trained: Trained) -> None:
    answer = scorer.score("user-1", ["milk-0", "no such thing", "rice-1"], time_ms=trained.windows.end)
    assert [rate is None for rate in answer.rates] == [False, True, False]
    assert [bool(reason) for reason in answer.reasons] == [False, True, False]


def test_a_cold_item_is_scored_from_its_content(scorer: Scorer, trained: Trained) -> None:
    moment = datetime(2025, 3, 1, tzinfo=UTC)
    row = {
        "item": signed(entity_id("milk-new")),
        "event_timestamp": moment,
        "item_id": "milk-new",
        "title": "milk number 0",
        "category": "milk",
        "brand": "brand 0",
        "attributes": '{"product_type": "milk"}',
    }
    Online().write_items(pa.Table.from_pylist([row], schema=history.SCHEMAS["items"]))
    answer = scorer.score("user-1", ["milk-new", "milk-0"], query="milk", time_ms=trained.windows.end)
    assert answer.reasons == [None, None]
    assert answer.rates[0] is not None


@pytest.mark.parametrize("largest", [9e5, 3e38])
def test_an_item_of_absurd_content_costs_the_others_nothing(scorer: Scorer, trained: Trained, largest: float) -> None:
    now, key = trained.windows.end, f"huge-{largest}"
    vector = np.resize(np.array([largest, -largest], np.float32), 256)
    row = {
        "item": signed(entity_id(key)),
        "item_id": key,
        "title": "milk",
        "attributes": "{}",
        "text_vector": vector.tobytes(),
    }
    row["event_timestamp"] = datetime(2025, 3, 1, tzinfo=UTC)
    records = np.zeros(4000, RECORD)
    records["time"], records["kind"] = now - 1000 * np.arange(4000, 0, -1), 2
    records["item"] = np.resize(scorer.bundle.items.ids, 4000)
    Online().append({"user-plain": records})
    records["item"][::5] = 0
    Online().append({"user-none": records})
    records["item"][::5] = entity_id(key)
    Online().append({"user-huge": records})
    Online().write_items(pa.Table.from_pylist([row], schema=history.SCHEMAS["items"]))
    alone, beside = (scorer.score("user-plain", [*ITEMS, *more], time_ms=now).rates for more in ([], [key]))
    assert beside[: len(ITEMS)] == pytest.approx(alone, abs=1e-6)
    found = scorer.score("user-huge", ITEMS, time_ms=now).rates
    assert all(rate is not None and 0 <= rate <= 1 for rate in found)
    if largest < VECTOR_MOST:  # a vector that no event may hold is missing, the item is its title then; this one is nothing
        assert beside[-1] is None
        assert found == pytest.approx(scorer.score("user-none", ITEMS, time_ms=now).rates, abs=1e-6)


def test_a_cold_item_of_the_history_is_searched_like_any_other(scorer: Scorer, trained: Trained) -> None:
    moment, now = datetime(2025, 3, 1, tzinfo=UTC), trained.windows.end
    keys = [f"milk-late-{i}" for i in range(3)]
    row = {"event_timestamp": moment, "title": "milk number 0", "category": "milk", "brand": "brand 0"}
    rows = [row | {"item": signed(entity_id(key)), "item_id": key, "attributes": '{"product_type": "milk"}'} for key in keys]
    records = np.zeros(30, RECORD)
    records["time"], records["item"], records["kind"] = now - 1000 * np.arange(30, 0, -1), entity_id("bread-1"), 2
    records["item"][::10] = [entity_id(key) for key in keys]
    Online().append({"user-late": records})
    Online().write_items(pa.Table.from_pylist(rows, schema=history.SCHEMAS["items"]))
    folder = path(trained.home / "bundles", trained.bundle)
    for method in ("exact", "cells", "pq"):
        other = Scorer.of(bundle.load(folder), Online(), method=method)
        encoded = other._entities.items(records["item"])
        assert sorted(encoded.cold.tolist()) == sorted(entity_id(key) for key in keys)
        assert encoded.content.all()
        more, books = encoded.parts.more, other.bundle.codebooks
        assert more is not None
        assert np.array_equal(more.cells, books.coarse.assign(more.parts))
        assert np.array_equal(more.codes, books.item.encode(more.parts))
        found = other.score("user-late", ["milk-0", keys[0]], time_ms=now)
        assert found.reasons == [None, None]
        scored = other.scoring(records, np.array([entity_id("milk-0")], np.uint64), None, now, method)
        past = [side.parts.take(side.rows[0]) for side in (scored.items, scored.queries)]
        truth = (scored.folded @ (past[0] + past[1]).T)[0]  # all are of one kind and gap: the bias is the same for all
        k = scored.places.shape[1]
        assert np.allclose(np.sort(truth[scored.places[0]]), np.sort(truth)[-k:], atol=1e-5)


def write_milk(*keys: str) -> None:
    row = {"event_timestamp": datetime(2025, 3, 1, tzinfo=UTC), "title": "milk", "attributes": "{}"}
    rows = [row | {"item": signed(entity_id(key)), "item_id": key} for key in keys]
    Online().write_items(pa.Table.from_pylist(rows, schema=history.SCHEMAS["items"]))


def test_content_that_does_not_come_is_said_and_asked_for_again(scorer: Scorer, trained: Trained) -> None:
    write_milk("milk-away")
    online, candidates, now = scorer._store.online, ["milk-away", "milk-0"], trained.windows.end
    real, hold = online.items, threading.Event()
    online.items = lambda ids: hold.wait(30) and real(ids)  # type: ignore[method-assign,return-value,assignment]
    answer = scorer.score("user-1", candidates, time_ms=now)
    assert [words.startswith("store: items") for words in answer.degraded] == [True]
    assert answer.reasons == [AWAY, None]
    online.items = real  # type: ignore[method-assign]
    hold.set()
    scorer._store._resting_until = 0.0
    answer = scorer.score("user-1", [*candidates, "no such thing"], time_ms=now)
    assert (answer.degraded, answer.reasons) == ([], [None, None, UNKNOWN])


def test_words_that_do_not_come_are_said(scorer: Scorer, trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(ids: object) -> list[str | None]:
        raise ConnectionError("away")

    records = np.zeros(1, RECORD)
    records["time"], records["query"], records["kind"] = trained.windows.end - 1, entity_id("a new query"), 1
    Online().append({"user-asks": records})
    monkeypatch.setattr(scorer._store.online, "queries", away)
    answer = scorer.score("user-asks", ["milk-0"], query="another", time_ms=trained.windows.end)
    assert answer.degraded == ["store: queries new to the bundle: ConnectionError: away"]


def test_many_contents_come_in_pieces_and_what_came_is_kept(
    scorer: Scorer, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [f"milk-many-{i}" for i in range(5 * PIECE // 2)]
    write_milk(*keys)
    online, sizes = scorer._store.online, list[int]()
    real = online.items

    def items(ids: Sequence[int]) -> list[dict[str, Any] | None]:
        sizes.append(len(ids))
        if len(sizes) == 2:
            raise ConnectionError("away")
        return real(ids)

    monkeypatch.setattr(online, "items", items)
    monkeypatch.setattr(scorer._store, "_patience", 30.0)  # the machine may be slow, this is about something else
    first = scorer.score("user-1", keys, time_ms=trained.windows.end)
    assert first.reasons.count(None) == PIECE
    assert first.reasons.count(AWAY) == len(keys) - PIECE
    second = scorer.score("user-1", keys, time_ms=trained.windows.end)
    assert (second.degraded, set(second.reasons)) == ([], {None})
    assert sizes == [PIECE, PIECE, PIECE, PIECE // 2]


def test_new_events_change_the_score_without_a_restart(scorer: Scorer, trained: Trained) -> None:
    now = trained.windows.end
    before = scorer.score("user-new", ["milk-0"], time_ms=now + 10_000)
    records = np.zeros(20, RECORD)
    records["time"], records["item"], records["kind"] = now + np.arange(20), entity_id("milk-0"), 2
    Online().append({"user-new": records})
    after = scorer.score("user-new", ["milk-0"], time_ms=now + 10_000)
    assert (before.length, after.length) == (0, 20)
    assert after.rates[0] > before.rates[0]  # type: ignore[operator]
    early = scorer.score("user-new", ["milk-0"], time_ms=now + 4)
    assert early.length == 5  # what is later than the request does not count


def test_explanations_name_past_behaviours(scorer: Scorer, trained: Trained) -> None:
    now = trained.windows.end
    answer = scorer.score("user-3", ITEMS, query="milk", time_ms=now, explain=[ITEMS[2], ITEMS[0]])
    assert [found["candidate"] for found in answer.explanations] == [ITEMS[2], ITEMS[0]]
    found = answer.explanations[0]
    assert found["rate"] == answer.rates[2]
    shares = [b["attention"] for b in found["behaviours"]]
    assert shares == sorted(shares, reverse=True)
    assert 0 < sum(shares) <= found["attention_total"] + 1e-4 <= 1.001
    assert all(b["age_s"] > 0 for b in found["behaviours"])
    assert all(b["title"] if b["kind"] == "browse" else b["query"] for b in found["behaviours"])
    assert all(sum(b["modalities"].values()) == pytest.approx(1, abs=1e-3) for b in found["behaviours"])


def test_without_what_it_retrieved_a_candidate_is_scored_on_the_rest(scorer: Scorer, trained: Trained) -> None:
    now = trained.windows.end
    read = scorer._store.sequence("user-3", now)
    ids = np.array([entity_id(ITEMS[0])], np.uint64)
    retrieved = scorer.scoring(read.records, ids, "milk", now).places[0]
    assert len(read.records) > len(retrieved) > 0
    answer = scorer.score("user-3", ITEMS, query="milk", time_ms=now, explain=ITEMS[:1])
    Online().append({"user-rest": np.delete(read.records, retrieved)})
    rest = scorer.score("user-rest", ITEMS[:1], query="milk", time_ms=now)
    assert answer.explanations[0]["rate_without"] == pytest.approx(rest.rates[0], abs=1e-6)
    assert answer.explanations[0]["rate_without"] != pytest.approx(answer.rates[0], abs=1e-6)


def test_modalities_add_up_to_the_match(scorer: Scorer, trained: Trained) -> None:
    read = scorer._store.sequence("user-3", trained.windows.end)
    ids = np.array([entity_id(ITEMS[0])], np.uint64)
    scored = scorer.scoring(read.records, ids, "milk", trained.windows.end)
    chosen = read.records[scored.places[0]]
    explainer = scorer._explainer
    found = explainer.match(chosen, Online().items(chosen["item"].tolist()), scored.folded[0])
    assert found is not None
    rows = scored.items.rows[0][scored.places[0]], scored.queries.rows[0][scored.places[0]]
    keys = scored.items.parts.take(rows[0]) + scored.queries.parts.take(rows[1])
    searches = chosen["item"] == 0
    without_item = scorer.bundle.items.parts[0] @ scored.folded[0]
    expected = keys @ scored.folded[0] - np.where(searches, without_item, 0)
    assert found.sum(1) == pytest.approx(expected, abs=1e-4)


def test_a_store_that_is_away_costs_the_sequence_never_the_answer(
    scorer: Scorer, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = scorer._store.online._provider.online_store
    connection = store._conn
    store._conn = broken = sqlite3.connect(":memory:", check_same_thread=False)
    broken.close()
    try:
        answer = scorer.score("user-3", ["milk-0", "unknown"], query="milk", time_ms=trained.windows.end)
    finally:
        store._conn = connection
    assert answer.degraded[0].startswith("store:")
    assert answer.rates[0] is not None
    assert answer.rates[1] is None
    assert answer.length == 0
