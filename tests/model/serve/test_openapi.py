"""schemathesis asks what the OpenAPI document allows and what it does not."""

import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from features.publish import point
from model.serve.keys import SCOPES, Keys, create
from model.serve.service import Limits

from .conftest import Served, wait_for


@pytest.fixture
def key(tmp_path: Path) -> str:
    return create(tmp_path / "keys.yaml", "all", list(SCOPES))


@pytest.fixture
def keys(key: str, tmp_path: Path) -> Keys:
    return Keys(tmp_path / "keys.yaml")


@pytest.fixture
def limits() -> Limits:
    return Limits(deadline=30.0, store=5.0)


def test_the_document_has_examples_and_says_what_is_refused(served: Served) -> None:
    document = httpx.get(served.url + "/openapi.json").json()
    score = document["paths"]["/v1/score"]["post"]
    content = score["requestBody"]["content"]["application/json"]
    assert content["schema"]["examples"]
    assert {"200", "401", "403", "408", "413", "415", "422", "503", "504"} <= set(score["responses"])
    assert score["responses"]["200"]["content"]["application/json"]["example"]["scores"]
    assert all(operation["responses"] for path in document["paths"].values() for operation in path.values())


def test_a_body_that_is_no_text_is_refused_as_the_document_says(served: Served, key: str) -> None:
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    answer = httpx.post(served.url + "/inspect/v1/named", content=b"\xb9r\x92R", headers=headers)
    documented = httpx.get(served.url + "/openapi.json").json()["paths"]["/inspect/v1/named"]["post"]["responses"]
    assert (answer.status_code, answer.json()["error"]["field"]) == (400, "request")
    assert "400" in documented


def test_half_a_surrogate_pair_is_refused_in_words_that_can_be_written(served: Served, key: str) -> None:
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    answer = httpx.post(served.url + "/inspect/v1/named", content=b'["milk \\ud800"]', headers=headers)
    assert (answer.status_code, answer.json()["error"]["value"]) == (422, "milk \\ud800")


@pytest.mark.long
def test_schemathesis_finds_nothing(served: Served, key: str) -> None:
    point(served.kind, "v000001")
    wait_for(served.url, "v000001")
    command = [str(Path(sys.executable).parent / "st"), "run", served.url + "/openapi.json"]
    # A deadline of its own would be 1 ms, sooner or later, and the answer a 504.
    options = ["-H", f"Authorization: Bearer {key}", "-H", "X-Deadline-Ms: 30000", "--max-examples", "50", "--seed", "1"]
    # No schema says that what is explained must be a candidate; headers that nobody knows are to be ignored.
    for phases, unwanted in (("examples,fuzzing", ""), ("coverage", ",negative_data_rejection")):
        chosen = ["--phases", phases, "--exclude-checks", f"positive_data_acceptance{unwanted}"]
        run = subprocess.run([*command, *options, *chosen], capture_output=True, text=True, timeout=150, cwd=served.kind)
        assert run.returncode == 0, run.stdout[-5000:] + run.stderr
