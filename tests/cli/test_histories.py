"""Verbs of history, as an operator would use them one after the other."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli.histories import app
from features import history, versions
from features.errors import SeminarError
from features.online import Online
from features.state import ensure_identity
from tests.features.rows import events, records


def run(*arguments: str) -> dict[str, Any]:
    done = CliRunner().invoke(app, [*arguments, "--json"])
    if done.exception:
        raise done.exception
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_compact_show_versions_compare_and_repair(home: Path) -> None:
    online = Online()
    ensure_identity(online, home)
    history.write(home, "events", events("u", records([1, 2])), "a")
    online.append({"u": records([1, 3])})
    assert run("compact", "--grace", "90s")["version"] == "v000001"
    versions.pin(home, "v000001", "someone")
    (shown,) = run("versions")["versions"]
    assert (shown["version"], shown["rows"]["events"], shown["files"], shown["pinned_by"]) == ("v000001", 2, 1, ["someone"])
    with pytest.raises(SeminarError, match=r"'u'.*parity --repair"):
        run("parity")
    fixed = run("parity", "--repair", "--all")
    assert (fixed["faults"], fixed["repaired"]["edit_distance"]) == (0, 2)
    assert run("parity", "--sample", "1")["equal"] == 1
    assert run("compact", "--grace", "0s", "--keep", "2")["removed"]["loose"] == 2


def test_what_makes_no_sense_is_refused(home: Path) -> None:
    with pytest.raises(SeminarError, match="90s, 15m"):
        run("compact", "--grace", "1 hour")
    with pytest.raises(SeminarError, match="contradicts --all"):
        run("parity", "--all", "--sample", "3")
