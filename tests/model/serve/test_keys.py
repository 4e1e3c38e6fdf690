import hashlib
import os
from pathlib import Path

import httpx
import pytest

from features.errors import SeminarError
from features.publish import point
from model.serve.client import Client
from model.serve.keys import SCOPES, Keys, create, read
from model.serve.server import serve

from .conftest import Served, wait_for


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    file = tmp_path / "keys.yaml"
    return file, {scope: create(file, scope, [scope]) for scope in SCOPES}


@pytest.fixture
def keys(made: tuple[Path, dict[str, str]]) -> Keys:
    return Keys(made[0])


ROUTES = [
    ("POST", "/v1/score", "score", {"user": "user-1", "candidates": ["milk-0"]}),
    ("GET", "/v1/users/user-1/sequence", "read-sequence", None),
    ("GET", "/metrics", "admin", None),
]


def test_every_route_wants_its_scope(served: Served, made: tuple[Path, dict[str, str]]) -> None:
    point(served.kind, "v000001")
    wait_for(served.url, "v000001")
    open_to_all = {"/v2/health/live", "/v2/health/ready", "/docs", "/docs/oauth2-redirect", "/redoc", "/openapi.json"}
    app_routes = set(httpx.get(served.url + "/openapi.json").json()["paths"])
    assert app_routes - open_to_all >= {path.replace("user-1", "{user}") for _, path, _, _ in ROUTES}
    with httpx.Client(base_url=served.url) as http:
        for method, path, scope, body in ROUTES:
            for key, status in ((None, 401), ("wrong", 401), *((made[1][x], 200 if x == scope else 403) for x in SCOPES)):
                headers = {"Authorization": f"Bearer {key}"} if key else {}
                answer = http.request(method, path, json=body, headers=headers)
                assert answer.status_code == status, (path, key, answer.text)
                if key:
                    assert key not in answer.text
        assert http.get("/v2/health/ready").is_success
    with Client(served.url, key=made[1]["score"]) as client:
        assert client.score("user-1", ["milk-0"])["scores"][0]["rate"] is not None
    with Client(served.url, key="other") as client, pytest.raises(SeminarError, match="unknown"):
        client.score("user-1", ["milk-0"])


def test_no_file_holds_a_key(made: tuple[Path, dict[str, str]]) -> None:
    text = made[0].read_text()
    assert all(key not in text and hashlib.sha256(key.encode()).hexdigest() in text for key in made[1].values())
    with pytest.raises(SeminarError, match="already"):
        create(made[0], "score", ["score"])


def test_keys_change_without_a_restart_and_a_broken_file_changes_nothing(made: tuple[Path, dict[str, str]]) -> None:
    file, given = made
    keys = Keys(file)
    fresh = create(file, "fresh", ["score"])
    assert keys.check(fresh, "score") == "fresh"
    file.write_text("fresh: {sha256: zz, scopes: [score]}\n")
    assert keys.check(given["score"], "score") == "score"
    os.remove(file)
    assert keys.check(given["score"], "score") == "score"


@pytest.mark.parametrize(
    "text", ["[]", "a: b", "a: {sha256: '00', scopes: [score]}", f"a: {{sha256: {'0' * 64}, scopes: [all]}}", "{"]
)
def test_what_is_no_key_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "keys").write_text(text)
    with pytest.raises(SeminarError, match="SEMINAR_API_KEYS"):
        Keys(tmp_path / "keys")
    with pytest.raises(SeminarError, match="cannot be read"):
        read(tmp_path / "none")


def test_strangers_need_keys(home: Path) -> None:
    with pytest.raises(SeminarError, match="open to everybody"):
        serve("0.0.0.0", 0)
