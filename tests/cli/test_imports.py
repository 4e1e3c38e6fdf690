"""`seminar history import` with its formats, as people call it."""

import json
import subprocess
import sys
from importlib import util
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli.histories import app
from features.errors import SeminarError
from features.history import read_sequences
from features.settings import REPOSITORY


def run(*arguments: str) -> tuple[dict[str, Any], str]:
    done = CliRunner().invoke(app, [*arguments, "--json"])
    if done.exception:
        raise done.exception
    return json.loads(done.stdout.splitlines()[-1]), done.output


def test_example_check_import_and_again(home: Path, tmp_path: Path) -> None:
    shop = tmp_path / "shop"
    made, _ = run("example", str(shop), "--users", "20")
    found, _ = run("import", "--format", "csv", "--check", str(shop))
    assert (found["passed"], found["messages"]) == (True, made["events"] + made["items"])
    assert not len(read_sequences(home).records)
    lengths = []
    for _ in range(2):
        done, _ = run("import", "--format", "csv", str(shop))
        assert (sum(done["events"].values()), done["rejected"]) == (made["events"] + made["items"], 0)
        lengths.append(len(read_sequences(home).records))
    assert lengths[0] == lengths[1] > made["events"] * 0.99
    with pytest.raises(SeminarError, match="name an empty folder"):
        run("example", str(shop))


def test_a_check_that_fails_says_where(home: Path, tmp_path: Path) -> None:
    shop = tmp_path / "shop"
    run("example", str(shop), "--users", "20")
    with (shop / "events.csv").open("a") as file:
        file.write("user-1,soon,esp-1,,\n")
    line = len((shop / "events.csv").read_text().splitlines())
    done = CliRunner().invoke(app, ["import", "--format", "csv", "--check", str(shop)])
    assert f"schema: events.csv line {line}: timestamp 'soon' is no time; write RFC 3339" in done.output
    assert "schema' failed; correct the rows" in str(done.exception)
    assert run("import", "--format", "csv", "--check", str(shop), "--limit", "invalid=0.01")[0]["passed"]
    done_, output = run("import", "--format", "csv", str(shop))
    assert done_["rejected"] == 1
    assert f"refused: events.csv line {line}: timestamp: 'soon'" in output


def test_what_makes_no_sense_is_refused(tmp_path: Path) -> None:
    for arguments, words in (
        ([], "exactly one is needed"),
        ([str(tmp_path), "--dataset", "ml-100k"], "exactly one is needed"),
        ([str(tmp_path / "x"), "--format", "csv"], "is no folder"),
        ([str(tmp_path), "--format", "csv", "--users", "3"], "is for --dataset"),
        ([str(tmp_path), "--format", "csv"], "has no events.csv"),
        ([str(tmp_path), "--check"], "run `seminar validate"),
    ):
        with pytest.raises(SeminarError, match=words):
            run("import", *arguments)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.skipif(util.find_spec("recbole") is None, reason="`make data` installs recbole")
def test_ml_100k_through_the_same_commands(home: Path, tmp_path: Path) -> None:
    """Import, PSU, codebooks, click model, evaluation: labels are sampled negatives, since nothing was shown."""
    few = tmp_path / "few.toml"
    few.write_text("[model]\nencoder = 'hashing'\n[train]\npsu_epochs = 1\nctr_epochs = 1\neval_targets = 200\n")

    def seminar(*arguments: str) -> dict[str, Any]:
        command = [sys.executable, "-m", "cli.main", *arguments, "--json"]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found

    imported = seminar("history", "import", "--dataset", "ml-100k", "--users", "300")
    assert (imported["rejected"], imported["events"].get("impression")) == (0, None)
    assert "constructed" in imported["notice"]
    assert seminar("train", "psu", "--config", str(few))["version"] == "v000001"
    assert seminar("codebooks", "build")["version"] == "v000001"
    tuned = seminar("train", "ctr", "--config", str(few))
    assert tuned["labels"]["impressions"] == 0 < tuned["labels"]["targets_with_sampled_negatives"]
    found = seminar("evaluate", f"seminar={tuned['checkpoint']}", "--config", str(few))
    rows = {(row["name"], row["mode"]): row for row in found["methods"]}
    assert all(rows["seminar", mode]["n_targets"] >= 100 for mode in ("recommendation", "search"))
    assert all(row["logloss"] is None for row in rows.values())  # nothing was shown
