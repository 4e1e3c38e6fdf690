import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import uvicorn

from cli.processes import free_port
from features.errors import SeminarError
from features.online import Online
from features.publish import path, point
from model.serve.client import Client
from model.serve.http import create_app
from model.serve.swap import Swap
from tests.model.conftest import Trained


@pytest.fixture
def served(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Swap, Path]]:
    """A real server on loopback over a folder of two bundles, none of them promoted."""
    monkeypatch.setenv("SEMINAR_HOME", str(trained.home))
    kind = tmp_path / "bundles"
    for version in ("v000001", "v000002"):
        shutil.copytree(path(trained.home / "bundles", trained.bundle), kind / version)
    swap = Swap(kind, Online())
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(create_app(swap, period=0.05), host="127.0.0.1", port=port, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        threading.Event().wait(0.02)
    yield f"http://127.0.0.1:{port}", swap, kind
    server.should_exit = True
    thread.join(20)


def wait_for(url: str, version: str) -> None:
    with httpx.Client(base_url=url) as http:
        for _ in range(400):
            answer = http.get("/v2/health/ready")
            if answer.is_success and answer.json()["model_version"] == version:
                return
            threading.Event().wait(0.05)
    raise AssertionError(f"{version} does not serve")


def test_from_no_bundle_to_a_score_to_a_swap_to_a_refusal(served: tuple[str, Swap, Path]) -> None:
    url, swap, kind = served
    with Client(url) as client, httpx.Client(base_url=url) as http:
        assert http.get("/v2/health/live").json() == {"live": True}
        assert not client.ready()
        with pytest.raises(SeminarError, match="no bundle is promoted"):
            client.score("user-1", ["milk-0"])

        point(kind, "v000001")
        wait_for(url, "v000001")
        answer = client.score("user-1", ["milk-0", "nothing"], "milk", explain=True)
        assert answer["model_version"] == "v000001"
        assert [score["item"] for score in answer["scores"]] == ["milk-0", "nothing"]
        assert answer["scores"][1]["rate"] is None
        assert answer["scores"][1]["reason"]
        assert answer["explain"]["behaviours"]

        point(kind, "v000002")
        wait_for(url, "v000002")
        assert client.score("user-1", ["milk-0"], "milk")["model_version"] == "v000002"
        torn = kind / "v000003"
        shutil.copytree(kind / "v000001", torn)
        (torn / "items.parts.npy").write_bytes(b"torn")
        point(kind, "v000003")
        for _ in range(200):
            if swap.refused:
                break
            threading.Event().wait(0.05)
        refused = http.get("/v2/health/ready").json()["refused"]
        assert refused["version"] == "v000003"
        assert "items.parts.npy" in refused["reason"]
        assert client.score("user-1", ["milk-0"], "milk")["model_version"] == "v000002"
        assert "seminar_score_requests_total" in http.get("/metrics").text


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"user": "u"},
        {"user": "u", "candidates": []},
        {"user": "", "candidates": ["a"]},
        {"user": "u", "candidates": "a"},
    ],
)
def test_only_a_malformed_body_is_422(served: tuple[str, Swap, Path], body: dict[str, object]) -> None:
    assert httpx.post(served[0] + "/v1/score", json=body).status_code == 422


def test_the_client_says_what_was_refused(served: tuple[str, Swap, Path]) -> None:
    with Client(served[0]) as client, pytest.raises(SeminarError, match="candidates"):
        client.score("u", [])
    with Client("http://127.0.0.1:9", timeout=1) as client, pytest.raises(SeminarError, match="seminar serve"):
        client.score("u", ["a"])
