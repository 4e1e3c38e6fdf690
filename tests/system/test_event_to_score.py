"""The whole path on a small catalogue, over real processes: producer, broker, consumer, training, scorer, HTTP."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cli.processes import Child, free_port
from features import history
from features.history import read_items, read_queries, read_sequences
from features.online import Online
from features.parity import compare
from features.record import KIND_BROWSE, unsigned
from model.config import Windows
from model.serve.client import Client
from model.train.codebooks import build
from model.train.ctr import finetune
from model.train.evaluate import evaluate
from model.train.export import export
from model.train.psu import pretrain
from model.train.release import promote
from streaming import consumer, topics
from streaming.broker import EmbeddedBroker
from streaming.producer import Producer
from tests.dags import history as synthetic
from tests.model.conftest import CONFIG


def wait_for(done: Callable[[], bool], child: Child) -> None:
    for _ in range(600):
        child.check()
        if done():
            return
        threading.Event().wait(0.1)
    raise AssertionError(f"nothing happened; see {child.log.read_text()}")


def produce(bootstrap: str, source: Path) -> int:
    """Send what a synthetic history holds as events; how many behaviours."""
    items, queries = read_items(source).to_pylist(), read_queries(source).to_pylist()
    keys = {unsigned(row["item"]): row["item_id"] for row in items}
    texts = {unsigned(row["query"]): row["text"] for row in queries}
    stored, sent = read_sequences(source), 0
    with Producer(bootstrap, "test") as producer:
        for row in items:
            producer.item(row["item_id"], row["title"], row["event_timestamp"], category=row["category"], brand=row["brand"])
        for row in history.read_impressions(source).to_pylist():
            shown = [(keys[unsigned(item)], place) for place, item in enumerate(row["items"])]
            producer.impression(row["user_id"], row["impression_id"], shown, row["event_timestamp"])
        for i, user in enumerate(stored.user_ids):
            for record in stored.of(i):
                moment = datetime.fromtimestamp(int(record["time"]) / 1000, UTC)
                text = texts[int(record["query"])]
                if record["kind"] == KIND_BROWSE:
                    producer.browse(user, keys[int(record["item"])], moment, query=text)
                else:
                    producer.search(user, text, moment)
                sent += 1
    return sent


def test_from_events_to_a_score_that_follows_them(home: Path, tmp_path: Path) -> None:
    pytest.importorskip("noida_db", reason="the extra demo is not installed")
    source = tmp_path / "source"
    synthetic.write(source, users=12)
    windows = Windows.from_dates(synthetic.WINDOWS)
    with EmbeddedBroker(home / "broker") as broker:
        topics.apply(broker.bootstrap)
        sent = produce(broker.bootstrap, source)
        with Child(["consume", "--bootstrap", broker.bootstrap], home / "logs" / "consumer.log") as consuming:
            wait_for(lambda: not any(consumer.lag(broker.bootstrap).values()), consuming)
            parity = compare(Online(), home)
            assert (parity["users"], parity["equal"], parity["edit_distance"]) == (12, 12, 0)
            assert len(read_sequences(home).records) == sent

            psu = pretrain(home, windows=windows, config=CONFIG)["version"]
            books = build(home, psu=psu, windows=windows, config=CONFIG)["version"]
            tuned = finetune(home, windows=windows, psu=psu, config=CONFIG)["checkpoint"]
            metrics = evaluate(home, checkpoints={"seminar": tuned}, windows=windows, config=CONFIG)
            exported = export(
                home, checkpoint_folder=tuned, codebooks=books, windows=windows, metrics=metrics, config=CONFIG
            )
            promote(home, bundle=exported["version"])

            port = free_port()
            serving = Child(["serve", "--port", str(port)], home / "logs" / "scorer.log")
            with serving, Client(f"http://127.0.0.1:{port}") as client:
                wait_for(client.ready, serving)
                now = datetime.fromisoformat(synthetic.WINDOWS["end"]).replace(tzinfo=UTC)
                later = now + timedelta(hours=1)
                before = client.score("user-3", ["milk-0", "rice-1"], "milk", later, explain=True)
                assert before["degraded"] == []
                assert before["explanations"][0]["behaviours"]
                with Producer(broker.bootstrap, "test") as producer:
                    for i in range(15):
                        producer.browse("user-3", "milk-0", now + timedelta(seconds=i), query="milk")
                length = before["sequence"]["length"] + 15
                wait_for(
                    lambda: client.score("user-3", ["milk-0"], "milk", later)["sequence"]["length"] == length, consuming
                )
                after = client.score("user-3", ["milk-0", "rice-1"], "milk", later)
                assert after["scores"][0]["rate"] > before["scores"][0]["rate"]
                assert serving.stop() in (0, -15)  # uvicorn closes in order, then takes the signal again
            assert consuming.stop() == 0
