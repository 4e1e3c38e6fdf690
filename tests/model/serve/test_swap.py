"""Following the pointer and confirming a release, alone."""

import errno
import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from features.errors import SeminarError
from features.online import Online
from features.publish import POINTER, point
from model import bundle
from model.serve import swap as swapping
from model.serve.rollout import confirm
from model.serve.store import Store
from model.serve.swap import Swap

from .conftest import answering


@pytest.fixture
def kind(home: Path) -> Path:
    return home / "bundles"


@pytest.fixture
def swap(kind: Path) -> Swap:
    return Swap(kind, Store(Online()))


@pytest.fixture
def exhausted(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """While it is set, no bundle can be read, through no fault of its own."""
    real, now = bundle.load, threading.Event()

    def load(folder: Path) -> bundle.Bundle:
        if now.is_set():
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return real(folder)

    monkeypatch.setattr(bundle, "load", load)
    now.set()
    return now


def test_a_refused_version_is_tried_again_when_it_is_promoted_again(
    kind: Path, swap: Swap, exhausted: threading.Event
) -> None:
    point(kind, "v000001")
    swap.look()
    assert swap.refused is not None
    exhausted.clear()
    swap.look()
    assert swap.refused is not None  # not every second: trying costs
    point(kind, "v000001")
    swap.look()
    assert (swap.scorer().version, swap.refused) == ("v000001", None)


def test_a_refused_version_is_tried_again_after_a_while(
    kind: Path, swap: Swap, exhausted: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(swapping, "AGAIN_S", 0.0)
    point(kind, "v000001")
    swap.look()
    with pytest.raises(SeminarError, match="Too many open files"):
        swap.scorer()
    exhausted.clear()
    swap.look()
    assert swap.scorer().version == "v000001"


def test_whoever_follows_the_pointer_goes_on_where_it_cannot_be_read(
    kind: Path, swap: Swap, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked, real = threading.Semaphore(0), swapping.current

    def current(bundles: Path) -> str | None:
        looked.release()
        return real(bundles)

    monkeypatch.setattr(swapping, "current", current)
    (kind / POINTER).mkdir()  # stands for any OSError
    thread = swap.watch(0.01)
    try:
        for _ in range(3):
            assert looked.acquire(timeout=30)
        (kind / POINTER).rmdir()
        point(kind, "v000001")
        for _ in range(400):
            if swap.swaps:
                break
            threading.Event().wait(0.05)
        assert swap.scorer().version == "v000001"
    finally:
        swap.close()
        thread.join(30)


SERVES, REFUSES = ({"model_version": "v1", "refused": x} for x in (None, {"version": "v2", "reason": "torn"}))


@pytest.fixture
def scorer(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a scorer that says one of the given bodies after another, the last one for ever."""
    bodies: list[dict[str, Any]] = list(request.param)

    def answer(asked: BaseHTTPRequestHandler) -> None:
        body = json.dumps(bodies.pop(0) if len(bodies) > 1 else bodies[0]).encode()
        asked.send_response(200)
        asked.send_header("Content-Length", str(len(body)))
        asked.end_headers()
        asked.wfile.write(body)

    with answering(answer) as url:
        yield url


BEHIND = {"model_version": "v2", "workers": [{"model_version": "v2"}, {"model_version": "v1"}]}
TORN = {"model_version": "v2", "workers": [{"model_version": "v2"}, {"model_version": "v1", "refused": REFUSES["refused"]}]}


@pytest.mark.parametrize(
    ("scorer", "why"), [([BEHIND], "serves v1 in 1 of 2 workers"), ([TORN], "refuses it: torn")], indirect=["scorer"]
)
def test_a_release_is_confirmed_by_all_workers(scorer: str, why: str) -> None:
    found = confirm([scorer], "v2", patience_s=0)
    assert not found["served"]
    assert found["scorers"] == [{"url": scorer, "model_version": "v1", "why": why}]


@pytest.mark.parametrize("scorer", [[REFUSES, SERVES, {"model_version": "v2", "refused": None}]], indirect=True)
def test_a_refusal_of_before_the_promotion_ends_no_release(scorer: str) -> None:
    found = confirm([scorer], "v2", patience_s=60, every_s=0.01)
    assert found["served"]
    assert found["scorers"] == [{"url": scorer, "model_version": "v2", "why": ""}]


@pytest.mark.parametrize("scorer", [[SERVES, REFUSES]], indirect=True)
def test_a_refusal_that_lasts_does(scorer: str) -> None:
    found = confirm([scorer], "v2", patience_s=60, every_s=0.01, lasting_s=0.05)
    assert not found["served"]
    assert found["scorers"] == [{"url": scorer, "model_version": "v1", "why": "refuses it: torn"}]
