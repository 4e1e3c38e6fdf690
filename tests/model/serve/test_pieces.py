"""Admission, counters, freshness, patience, the client: each alone."""

import asyncio
import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import numpy as np
import pytest

from features.errors import SeminarError
from features.online import Online
from features.record import RECORD, Records
from features.settings import settings
from features.state import Watermark, write_watermarks
from model.serve import store as storing
from model.serve.admission import Admission
from model.serve.answers import MOST_DEADLINE_MS
from model.serve.client import Client
from model.serve.counters import Counters
from model.serve.freshness import Watch
from model.serve.refusals import Refused
from model.serve.server import Parent
from model.serve.service import Limits, Service
from model.serve.store import RECENT_EACH, Recent, Store, until

from .conftest import answering


def test_what_would_wait_behind_too_many_is_refused_at_once() -> None:
    async def run() -> None:
        counters, hold = Counters(), threading.Event()
        admission = Admission(counters, waiting=1)
        far = time.monotonic() + 60
        first = asyncio.create_task(admission.run(lambda: hold.wait(20) and "first", far))
        second = asyncio.create_task(admission.run(lambda: "second", far))
        await asyncio.sleep(0.05)
        with pytest.raises(Refused) as refused:
            await admission.run(lambda: "third", far)
        assert refused.value.status == 503
        assert int(refused.value.headers["Retry-After"]) >= 1
        with pytest.raises(Refused, match="queue"):
            await admission.run(lambda: "fourth", far)
        hold.set()
        assert (await first, await second) == ("first", "second")
        await asyncio.sleep(0.05)
        assert await admission.run(lambda: "later", far) == "later"
        admission.close()
        assert 'seminar_score_requests_total{outcome="shed"} 2.0' in counters.exposition().decode()

    asyncio.run(run())


def test_a_request_whose_deadline_passes_in_the_queue_is_never_begun() -> None:
    async def run() -> None:
        hold, begun = threading.Event(), []
        admission = Admission(Counters(), waiting=5)
        first = asyncio.create_task(admission.run(lambda: hold.wait(20), time.monotonic() + 60))
        await asyncio.sleep(0.05)
        with pytest.raises(Refused) as refused:
            await admission.run(lambda: begun.append(1), time.monotonic() + 0.05)
        assert refused.value.status == 504
        hold.set()
        await first
        assert await admission.run(lambda: "next", time.monotonic() + 60) == "next"
        assert begun == []
        admission.close()

    asyncio.run(run())


def test_workers_figures_are_summed() -> None:
    counters = Counters(2)
    for worker in (0, 1):
        counters.worker = worker
        counters.count("seminar_score_requests", "ok", 2)
        counters.observe("total", 0.003)
        counters.set("seminar_score_waiting", worker + 1)
    text = counters.exposition().decode()
    assert 'seminar_score_requests_total{outcome="ok"} 4.0' in text
    assert 'seminar_score_seconds_bucket{le="0.002",stage="total"} 0.0' in text
    assert 'seminar_score_seconds_bucket{le="0.004",stage="total"} 2.0' in text
    assert 'seminar_score_seconds_sum{stage="total"} 0.006' in text
    assert 'seminar_score_waiting{worker="1"} 2.0' in text


def test_workers_see_what_each_serves_and_refuses() -> None:
    counters = Counters(3)
    refused = {"version": "v2", "reason": "\x01" * 5000}
    if not (pid := os.fork()):
        counters.board.write(1, "v1", refused)
        os._exit(0)
    os.waitpid(pid, 0)
    counters.board.write(2, "v2", None)
    starts = {"worker": 0, "model_version": None, "refused": None}
    refuses = {"worker": 1, "model_version": "v1", "refused": {"version": "v2", "reason": "\x01" * 1000}}
    assert counters.board.read() == [starts, refuses, {"worker": 2, "model_version": "v2", "refused": None}]
    counters.board.clear(1)
    assert counters.board.read()[1] == {**starts, "worker": 1}


def test_stale_is_an_old_watermark_not_a_quiet_user(home: Path) -> None:
    online = Online()
    watch, now = Watch(Store(online), home, limit_s=60), int(time.time() * 1000)
    watch.look()
    assert watch.now()["stale"] is None
    assert watch.degraded() == []
    write_watermarks(online, {"seminar.search/0": Watermark(5, now), "seminar.browse/1": Watermark(9, now - 1000)})
    watch.look()
    fresh = watch.now()
    assert fresh["stale"] is False
    assert fresh["age_s"] is not None
    assert 1 <= fresh["age_s"] < 30
    write_watermarks(online, {"seminar.browse/1": Watermark(9, now - 100_000), "seminar.item/0": Watermark(1, 0)})
    watch.look()
    assert watch.now()["stale"] is True
    assert [reason.split(":")[0] for reason in watch.degraded()] == ["stale"]


def test_each_worker_tells_the_age_of_its_own_watermark_whoever_is_asked(home: Path) -> None:
    def ages() -> list[float]:
        lines = [line for line in service.exposition().decode().splitlines() if line.startswith("seminar_watermark_age")]
        return [float(line.split()[-1]) for line in lines]

    service = Service(settings(), counters=Counters(2))
    assert np.isnan(ages()).all()
    write_watermarks(Online(), {"seminar.browse/1": Watermark(9, int(time.time() * 1000) - 100_000)})
    service.watch.look()
    service.counters.worker = 1  # another process is asked, which has not looked yet
    first, second = ages()
    assert first >= 100
    assert np.isnan(second)
    assert ages()[0] > first


def test_a_store_that_hangs_counts_as_away_and_the_last_sequence_serves(home: Path) -> None:
    online = Online()
    records = np.zeros(3, RECORD)
    records["time"] = [1, 2, 3]
    online.append({"u": records})
    store, hold = Store(online, patience=0.1), threading.Event()
    assert len(store.sequence("u", 2).records) == 2
    assert store.sequence("nobody", 9).known is False
    real = online.sequence
    online.sequence = lambda user: hold.wait(20) and real(user)  # type: ignore[method-assign,return-value,assignment]
    begin = time.monotonic()
    read = store.sequence("u", 9)
    assert [reason.split(":")[0] for reason in read.degraded] == ["store", "recent sequence"]
    assert len(read.records) == 3
    other = store.sequence("v", 9)
    assert [reason.split(":")[0] for reason in other.degraded] == ["store"]
    assert time.monotonic() - begin < 5  # the second did not wait for the hanging one
    online.sequence = real  # type: ignore[method-assign]
    hold.set()
    time.sleep(0.6)
    assert store.sequence("u", 9).degraded == []


def test_who_looks_at_sequences_takes_no_past_away_from_a_score(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storing, "LOOK_S", 0.1, raising=False)
    service, hold = Service(settings(), Limits(store=0.1)), threading.Event()
    real = service.store.online.sequence

    def sequence(user: str) -> tuple[Records, int] | None:
        if user == "slow":
            hold.wait(30)
        return real(user)

    monkeypatch.setattr(service.store.online, "sequence", sequence)
    with ThreadPoolExecutor(4) as lookers:
        looks = [lookers.submit(service.sequence, "slow", 10) for _ in range(4)]
        assert all(isinstance(look.exception(30), SeminarError) for look in looks)
    read = service.store.sequence("user-1", 1 << 60)
    hold.set()
    assert read.degraded == []
    assert len(read.records) > 0


def test_recent_sequences_keep_within_their_bytes() -> None:
    for length in (0, 4, 100):
        recent = Recent(2 * (RECENT_EACH + RECORD.itemsize * length))
        for number in [0, 1, 2, 3, 4, 4]:
            recent.put(f"u{number}", np.zeros(length, RECORD))
        assert [recent.get(f"u{number}") is not None for number in range(5)] == [False, False, False, True, True]
    assert len(until(np.zeros(0, RECORD), 5)) == 0


@pytest.fixture
def busy() -> Iterator[tuple[str, list[str]]]:
    """A server that is too busy twice, then answers."""
    seen: list[str] = []

    def answer(request: BaseHTTPRequestHandler) -> None:
        seen.append(request.headers["X-Deadline-Ms"])
        request.send_response(503 if len(seen) < 3 else 200)
        request.send_header("Retry-After", "0" if len(seen) < 2 else "Wed, 21 Oct 2015 07:28:00 GMT")
        problem = {"field": "queue", "value": "9", "problem": "is full", "remedy": "come again"}
        body = json.dumps({"ready": True} if len(seen) > 2 else {"error": problem}).encode()
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    with answering(answer) as url:
        yield url, seen


def test_the_client_comes_again_within_its_deadline(busy: tuple[str, list[str]]) -> None:
    url, seen = busy
    with Client(url, timeout=5, retries=2) as client:
        assert client.health() == {"ready": True}
    left = [int(x) for x in seen]
    assert len(left) == 3
    assert 5000 >= left[0] > left[1] > left[2] > 0


def test_the_client_allows_no_request_more_than_the_service_does(busy: tuple[str, list[str]]) -> None:
    url, seen = busy
    with Client(url, timeout=90) as client:
        client.health()
    assert seen == [str(MOST_DEADLINE_MS)] * 3


def test_the_client_gives_up_when_its_deadline_does_not_allow_more(busy: tuple[str, list[str]]) -> None:
    url, seen = busy
    with Client(url, timeout=5, retries=1) as client, pytest.raises(SeminarError, match="is full"):
        client.health()
    assert len(seen) == 2


def test_the_client_does_not_wait_for_an_answer_that_comes_in_drops() -> None:
    gone = threading.Event()

    def answer(request: BaseHTTPRequestHandler) -> None:
        body = b'{"ready": true}' + b" " * 100
        request.send_response(200)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        for byte in body:
            gone.wait(0.05)
            with suppress(OSError):
                request.wfile.write(bytes([byte]))

    with answering(answer) as url, Client(url, timeout=0.5, retries=0) as client:
        with pytest.raises(SeminarError, match="does not answer"):
            client.health()
        gone.set()


def test_the_client_names_an_answer_that_is_none() -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", "2")
        request.end_headers()
        request.wfile.write(b"<>")

    with answering(answer) as url, Client(url) as client, pytest.raises(SeminarError, match="not what the service answers"):
        client.health()


class Idle:
    """Workers that only wait to be ended."""

    def __call__(self, number: int) -> None:
        signal.pause()


class Done:
    """Workers that end at once."""

    def __call__(self, number: int) -> None:
        pass


def end_after_a_fork() -> None:
    """SIGTERM comes between the fork of the first of three workers and the parent's note of it."""
    fork = os.fork

    def forked() -> int:
        if pid := fork():
            signal.raise_signal(signal.SIGTERM)
        return pid

    os.fork = forked
    Parent(3, Idle()).run()  # type: ignore[arg-type]


def end_after_a_wait() -> None:
    """SIGTERM comes between the end of a worker and the parent's note of it."""
    wait = os.wait

    def waited() -> tuple[int, int]:
        found = wait()
        signal.raise_signal(signal.SIGTERM)
        return found

    os.wait = waited
    Parent(1, Done()).run()  # type: ignore[arg-type]


@pytest.mark.parametrize("end", [end_after_a_fork, end_after_a_wait])
def test_a_signal_between_a_worker_and_the_note_of_it_ends_all(end: Callable[[], None]) -> None:
    process = multiprocessing.get_context("fork").Process(target=end)
    process.start()
    process.join(60)
    process.kill()  # it may wait for ever; its workers end with it
    process.join()
    assert process.exitcode == 0
