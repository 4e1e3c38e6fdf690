import json
import logging
import shutil
import threading
from logging.handlers import QueueHandler
from pathlib import Path
from queue import Queue

import httpx
import numpy as np
import pytest

from features.errors import SeminarError
from features.publish import SUMS, checksums, point
from model.golden import FILE
from model.serve.client import Client

from .conftest import Served, wait_for


def refused(served: Served, version: str) -> str:
    for _ in range(400):
        found = served.service.swap.refused
        if found and found["version"] == version:
            return found["reason"]
        threading.Event().wait(0.05)
    raise AssertionError(f"{version} is not refused")


def test_from_no_bundle_to_a_score_to_a_swap_to_refusals(served: Served) -> None:
    url, kind = served.url, served.kind
    with Client(url, retries=0) as client, httpx.Client(base_url=url) as http:
        assert http.get("/v2/health/live").json() == {"live": True}
        assert not client.ready()
        with pytest.raises(SeminarError, match="no bundle is promoted"):
            client.score("user-1", ["milk-0"])

        point(kind, "v000001")
        wait_for(url, "v000001")
        answer = client.score("user-1", ["milk-0", "nothing"], "milk", explain=["milk-0"])
        assert answer["model_version"] == "v000001"
        assert [score["item"] for score in answer["scores"]] == ["milk-0", "nothing"]
        assert answer["scores"][1]["rate"] is None
        assert answer["scores"][1]["reason"]
        assert answer["explanations"][0]["behaviours"]
        assert answer["freshness"]["stale"] is None  # no consumer has ever said how far it is

        point(kind, "v000002")
        wait_for(url, "v000002")
        assert client.score("user-1", ["milk-0"], "milk")["model_version"] == "v000002"

        shutil.copytree(kind / "v000001", kind / "v000003")
        (kind / "v000003" / "items.parts.npy").write_bytes(b"torn")
        point(kind, "v000003")
        assert "items.parts.npy" in refused(served, "v000003")
        assert http.get("/v2/health/ready").json()["refused"]["version"] == "v000003"
        assert client.score("user-1", ["milk-0"], "milk")["model_version"] == "v000002"

        other = copy_with_other_rates(kind, "v000004")
        point(kind, other)
        assert "golden request" in refused(served, other)
        assert client.score("user-1", ["milk-0"], "milk")["model_version"] == "v000002"
        text = http.get("/metrics").text
        assert 'seminar_score_requests_total{outcome="ok"} 4.0' in text
        assert "seminar_model_refused_total 2.0" in text
        assert 'seminar_score_seconds_count{stage="search"} 4.0' in text


def copy_with_other_rates(kind: Path, version: str) -> str:
    """A whole bundle, whose golden requests say something else than its model does."""
    folder = kind / version
    shutil.copytree(kind / "v000001", folder)
    with np.load(folder / FILE) as stored:
        columns = {name: stored[name] for name in stored.files}
    columns["rates"][0, 0] += 0.01
    np.savez(folder / FILE, **columns)
    (folder / SUMS).write_text("".join(f"{digest}  {name}\n" for name, digest in checksums(folder).items()))
    return version


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ([], "body"),
        ({}, "user"),
        ({"user": "u"}, "candidates"),
        ({"user": "u", "candidates": []}, "candidates"),
        ({"user": "", "candidates": ["a"]}, "user"),
        ({"user": "u", "candidates": "a"}, "candidates"),
        ({"user": "u", "candidates": ["a", 5]}, "candidates.1"),
        ({"user": "u", "candidates": ["a"], "query": 5}, "query"),
        ({"user": "u", "candidates": ["a"], "explain": "a"}, "explain"),
        ({"user": "u", "candidates": ["a"], "explain": ["a", ""]}, "explain.1"),
        ({"user": "u", "candidates": ["a"], "time": "2017-01-01T00:00:00"}, "time"),
        ({"user": "u", "candidates": ["a"], "unheard": 1}, "unheard"),
        ({"user": "u", "candidates": ["a"] * 1001}, "candidates"),
    ],
)
def test_a_malformed_body_is_422_and_its_field_is_named(served: Served, body: object, field: str) -> None:
    answer = httpx.post(served.url + "/v1/score", json=body)
    assert answer.status_code == 422
    assert set(answer.json()["error"]) == {"field", "value", "problem", "remedy"}
    assert answer.json()["error"]["field"] == field


def test_what_is_explained_and_no_candidate_is_named(served: Served) -> None:
    body = {"user": "u", "candidates": ["a"], "explain": ["a", "b"]}
    error = httpx.post(served.url + "/v1/score", json=body).json()["error"]
    assert (error["field"], error["value"]) == ("explain", "['a', 'b']")
    assert "b is no candidate" in error["problem"]


def test_refused_headers_parameters_and_places_of_a_list_are_named(served: Served) -> None:
    with httpx.Client(base_url=served.url) as http:
        header = http.post("/v1/score", json={"user": "u", "candidates": ["a"]}, headers={"X-Deadline-Ms": "60001"})
        answers = header, http.get("/v1/users/u/sequence?limit=-1"), http.post("/inspect/v1/named", json=["a", 5])
    assert [answer.json()["error"]["field"] for answer in answers] == ["X-Deadline-Ms", "limit", "body.1"]


def test_other_bodies(served: Served) -> None:
    with httpx.Client(base_url=served.url) as http:
        assert http.post("/v1/score", content=b"{", headers={"content-type": "application/json"}).status_code == 422
        assert http.post("/v1/score", content=b"{}", headers={"content-type": "text/plain"}).status_code == 415
        large = json.dumps({"user": "u", "candidates": ["a" * 200] * 9000})
        assert http.post("/v1/score", content=large, headers={"content-type": "application/json"}).status_code == 413
        assert http.get("/v1/score").status_code == 405


def test_a_sequence_is_read(served: Served) -> None:
    with Client(served.url) as client:
        found = client.sequence("user-1", 5)
        assert len(found["behaviours"]) == 5 < found["length"]
        times = [event["time"] for event in found["behaviours"]]
        assert times == sorted(times, reverse=True)
        assert found["last_event"] == times[0]
        assert all(event["title"] if event["kind"] == "browse" else event["query"] for event in found["behaviours"])
        for user in ("no/body here", ".", "..", "a/../b"):
            with pytest.raises(SeminarError, match="has no sequence") as unknown:
                client.sequence(user)
            assert unknown.value.value == user


def test_the_client_says_what_was_refused(served: Served) -> None:
    with Client(served.url) as client, pytest.raises(SeminarError, match="candidates"):
        client.score("u", [])
    with Client("http://127.0.0.1:9", timeout=1) as client, pytest.raises(SeminarError, match="seminar serve"):
        client.score("u", ["a"])


def outcomes(http: httpx.Client) -> dict[str, float]:
    """Requests by outcome, of those that there were."""
    lines = [line for line in http.get("/metrics").text.splitlines() if line.startswith("seminar_score_requests_total{")]
    counts = {line.split('"')[1]: float(line.split()[-1]) for line in lines}
    return {outcome: count for outcome, count in counts.items() if count}


def test_what_fails_is_told_in_the_one_body_and_counted(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("a secret")

    logged: Queue[logging.LogRecord] = Queue()
    monkeypatch.setattr(logging.getLogger("uvicorn.error"), "handlers", [QueueHandler(logged)])
    with httpx.Client(base_url=served.url) as http:
        assert http.post("/v1/score", json={"user": "u", "candidates": ["a"]}).status_code == 503
        assert outcomes(http) == {"unavailable": 1}
        monkeypatch.setattr(served.service.swap, "scorer", broken)
        answer = http.post("/v1/score", json={"user": "u", "candidates": ["a"]})
        assert answer.status_code == 500
        error = answer.json()["error"]
        assert (error["field"], error["value"]) == ("request", "POST /v1/score")
        assert "secret" not in answer.text
        assert "a secret" in logged.get(timeout=30).message
        assert outcomes(http) == {"unavailable": 1, "failed": 1}
        assert http.get("/v2/health/ready").json()["error"]["value"] == "GET /v2/health/ready"
