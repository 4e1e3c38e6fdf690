"""The deployment files: held against the specifications by their tools, and against our own commands and variables."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.airflow import environment
from cli.main import app
from features.settings import REPOSITORY, settings

DEPLOY = REPOSITORY / "deploy"
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))


def resources() -> list[tuple[Path, dict[str, Any]]]:
    return [(file, found) for file in MANIFESTS for found in yaml.safe_load_all(file.read_text())]


def containers() -> Iterator[dict[str, Any]]:
    for _, found in resources():
        pod = found.get("spec", {}).get("template", {}).get("spec", {})
        yield from [*pod.get("containers", ()), *pod.get("initContainers", ())]


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return found


def test_the_compose_file_is_one() -> None:
    import compose_spec as parser

    # The parser is of the specification without YAML's merge keys, which every Compose takes: they are merged before.
    merged = {name: part for name, part in compose().items() if not name.startswith("x-")}
    found = parser.PyCompose.from_yaml(yaml.safe_dump(merged))
    assert {"kafka", "redis", "consumer", "scorer", "airflow-scheduler"} <= set(found.service_names())
    broken = {**merged, "services": {**merged["services"], "scorer": {"image": ["no", "text"]}}}
    with pytest.raises(Exception, match="image"):
        parser.PyCompose.from_yaml(yaml.safe_dump(broken))
    services = merged["services"]
    for name, service in services.items():
        assert set(service.get("depends_on", ())) <= services.keys(), name
        for volume in service.get("volumes", ()):
            assert volume.split(":")[0] in merged["volumes"], name


@pytest.mark.parametrize(("file", "found"), resources(), ids=lambda x: x["kind"] if isinstance(x, dict) else x.name)
def test_the_manifests_are_of_kubernetes(file: Path, found: dict[str, Any]) -> None:
    import kubernetes_validate as validate

    validate.validate(found, "1.37", strict=True)
    with pytest.raises(validate.ValidationError):
        validate.validate({**found, "metdata": {}}, "1.37", strict=True)


def commands() -> list[list[str]]:
    """Every `seminar` command of the files: arguments of our image, and those within shell lines."""
    found = [[*map(str, x["args"])] for x in containers() if x["image"] == "seminar:latest" and "args" in x]
    services = compose()["services"].values()
    ours = [x for x in services if x["image"] == "seminar:latest"]
    found += [[*map(str, x["command"])] for x in ours if "entrypoint" not in x]
    lines = [part for x in [*containers(), *ours] for part in x.get("command", ()) if " && " in str(part)]
    found += [words.split()[1:] for line in lines for words in line.split(" && ") if words.startswith("seminar ")]
    for line in re.findall(
        r"(?:seminar|run --rm scorer) (\w[^#\n`]*)", (DEPLOY / "README.md").read_text().split("## One")[1]
    ):
        if line.startswith(("keys operator", "status")):
            found.append(line.split())
    return found


def test_every_command_is_ours(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(commands()) >= 8
    for arguments in commands():
        words = [x for x in arguments if re.fullmatch(r"[a-z]+", x)]
        verb = words[:2] if words[0] == "topics" else words[:1]
        monkeypatch.setattr(sys, "argv", ["seminar", *verb, "--help"])
        app(args=[*verb, "--help"], standalone_mode=False)
        said = capsys.readouterr().out
        for option in (x for x in arguments if x.startswith("--")):
            assert option in said, f"{verb} has no {option}"


def test_every_variable_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = (REPOSITORY / "features" / "settings.py").read_text()
    (config,) = (x["data"] for _, x in resources() if x["kind"] == "ConfigMap")
    known = set(environment(tmp_path)) | {"AIRFLOW__CORE__EXECUTOR", "AIRFLOW__CORE__EXECUTION_API_SERVER_URL"}
    for variables in (config, compose()["x-seminar"]["environment"]):
        for name in variables:
            used = name in text or name in known or name in (DEPLOY / "online_store.yaml").read_text()
            assert used, f"nothing reads {name}"
    assert (REPOSITORY / Path(config["SEMINAR_ONLINE_STORE"]).relative_to("/opt/seminar")).exists()
    assert (REPOSITORY / Path(config["AIRFLOW__CORE__DAGS_FOLDER"]).relative_to("/opt/seminar")).is_dir()


def test_the_online_store_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from features.repository import configure

    monkeypatch.setenv("SEMINAR_HOME", str(tmp_path))
    monkeypatch.setenv("SEMINAR_ONLINE_STORE", str(DEPLOY / "online_store.yaml"))
    monkeypatch.setenv("SEMINAR_REDIS_PASSWORD", "p")
    written = yaml.safe_load(configure().read_text())
    assert written["online_store"]["type"].endswith("SequenceRedisOnlineStore")
    assert settings().online_store == DEPLOY / "online_store.yaml"


def test_probes_ask_routes_that_are_there() -> None:
    from model.serve import http

    for container in containers():
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            path = container.get(probe, {}).get("httpGet", {}).get("path")
            if path and container["name"] == "scorer":
                assert f'"{path}"' in Path(http.__file__).read_text()
