"""A real server on loopback over a folder of bundles."""

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import pytest
import uvicorn

from cli.processes import free_port
from features.publish import path
from features.settings import settings
from model.serve.http import create_app
from model.serve.keys import Keys
from model.serve.service import Limits, Service
from model.serve.transport import PatientProtocol
from tests.model.conftest import Trained


@dataclass(frozen=True)
class Served:
    """Where it answers, what answers, and the folder of bundles, of which none is promoted."""

    url: str
    service: Service
    kind: Path


@contextmanager
def answering(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """The address of a server that answers every GET so."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def home(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own: the trained one's store, and two bundles, none of them promoted."""
    home = tmp_path / "var"
    home.mkdir()
    for name in ("feature_store.yaml", "registry.db", "online.db", "online.db-wal"):
        if (trained.home / name).exists():
            shutil.copy(trained.home / name, home / name)
    config = (home / "feature_store.yaml").read_text()
    (home / "feature_store.yaml").write_text(config.replace(str(trained.home), str(home)))
    for version in ("v000001", "v000002"):
        shutil.copytree(path(trained.home / "bundles", trained.bundle), home / "bundles" / version)
    monkeypatch.setenv("SEMINAR_HOME", str(home))
    return home


@pytest.fixture
def keys() -> Keys:
    return Keys(None)


@pytest.fixture
def limits() -> Limits:
    return Limits(logged=1.0)


@pytest.fixture
def served(home: Path, keys: Keys, limits: Limits) -> Iterator[Served]:
    service, port = Service(settings(), limits), free_port()
    app = create_app(service, keys, period=0.05)
    config = uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error", http=PatientProtocol)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        threading.Event().wait(0.02)
    yield Served(f"http://127.0.0.1:{port}", service, settings().bundles)
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
