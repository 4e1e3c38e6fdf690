"""What the processes of a local Airflow share; that they run and end together: `make airflow`, `seminar bench chain`."""

import socket
import stat
from pathlib import Path

import pytest

from cli import airflow_local
from cli.output import Output
from features.errors import SeminarError


def test_secrets_are_made_once_and_are_the_owners_alone(tmp_path: Path) -> None:
    first, word = airflow_local.environment(tmp_path, 8123), airflow_local.password(tmp_path)
    assert airflow_local.environment(tmp_path, 8123) == first
    assert airflow_local.password(tmp_path) == word
    assert len(first["AIRFLOW__API_AUTH__JWT_SECRET"]) == 64
    assert first["AIRFLOW__API_AUTH__JWT_SECRET"] != first["AIRFLOW__API__SECRET_KEY"]
    for name in ("password.json", "jwt.key", "secret.key"):
        assert stat.S_IMODE((tmp_path / "airflow" / name).stat().st_mode) == 0o600


def test_everything_is_on_loopback(tmp_path: Path) -> None:
    found = airflow_local.environment(tmp_path, 8123)
    assert found["AIRFLOW__API__HOST"] == "127.0.0.1"
    assert found["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == "http://127.0.0.1:8123/execution/"
    assert found["AIRFLOW__CORE__EXECUTOR"] == "LocalExecutor"
    assert all("--skip-serve-logs" in airflow_local.COMMANDS[name] for name in ("scheduler", "triggerer"))


def test_a_port_that_is_taken_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(SeminarError, match="cannot be bound"):
            airflow_local.serve(tmp_path, taken.getsockname()[1], Output(False))
