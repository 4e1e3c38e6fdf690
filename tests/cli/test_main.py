"""The command line as a person meets it: one sentence and exit status 1 for a refusal, one JSON object with --json."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import app
from cli.output import Output
from cli.scoring import show


def seminar(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "KAFKA_BOOTSTRAP_SERVERS"} | {"SEMINAR_HOME": str(home)}
    command = [sys.executable, "-m", "cli.main", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240, check=False)


def test_a_refusal_is_one_sentence_and_status_1(tmp_path: Path) -> None:
    """In a process of its own, with a broker that is not there; the table of refusals is in test_refusals.py."""
    run = seminar(tmp_path / "var", "topics", "plan", "--bootstrap", "127.0.0.1:9")
    assert run.returncode == 1, run.stderr
    lines = [line for line in run.stderr.splitlines() if line.startswith("seminar: ")]
    assert len(lines) == 1, run.stderr
    assert "127.0.0.1:9" in lines[0]
    assert "Traceback" not in run.stderr


def test_help_of_all_benches_and_of_one(tmp_path: Path) -> None:
    every, one = (seminar(tmp_path, "bench", *name, "--help") for name in ((), ("train",)))
    assert every.returncode == one.returncode == 0
    assert "alignment" in every.stdout
    assert "--rounds" in one.stdout


def test_a_second_demo_on_the_same_home_is_refused(tmp_path: Path) -> None:
    import fcntl

    with (tmp_path / ".demo.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        run = seminar(tmp_path, "demo")
    assert run.returncode == 1
    assert "in use by another demo" in run.stderr


def test_the_demo_never_removes_what_others_made(home: Path) -> None:
    run = seminar(home, "demo")
    assert run.returncode == 1
    assert "no demo made" in run.stderr
    assert (home / "registry.db").exists()


def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    """On a real file system of half a megabyte."""
    if os.geteuid():
        pytest.skip("mounting a small file system needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(disk)], check=True)
    try:
        assert seminar(disk, "apply").returncode == 0
        events = [
            {"type": "seminar.item.v1", "source": "t", "id": str(i), "time": "2025-01-01T00:00:00Z",
             "data": {"item_id": str(i), "title": os.urandom(200).hex()}}
            for i in range(4000)
        ]  # fmt: skip
        file = tmp_path / "events.jsonl"
        file.write_text("".join(json.dumps(event) + "\n" for event in events))
        run = seminar(disk, "history", "import", str(file))
        assert run.returncode == 1, run.stderr
        assert "is on a full disk" in run.stderr
        assert "Traceback" not in run.stderr
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_status_names_the_next_command_and_import_is_safe_to_repeat(tmp_path: Path) -> None:
    home = tmp_path / "var"
    assert json.loads(seminar(home, "status", "--json").stdout.splitlines()[-1])["next"].startswith("seminar apply")
    assert seminar(home, "apply").returncode == 0
    events = [
        {"specversion": "1.0", "type": "seminar.item.v1", "source": "t", "id": "1", "time": "2025-01-01T00:00:00Z",
         "data": {"item_id": "a", "title": "apples"}},
        {"specversion": "1.0", "type": "seminar.browse.v1", "source": "t", "id": "2", "time": "2025-01-01T00:00:01Z",
         "data": {"user_id": "u", "item_id": "a", "query": "Apples"}},
        {"specversion": "1.0", "type": "seminar.search.v1", "source": "t", "id": "3", "time": "2025-01-01T00:00:00Z",
         "data": {"user_id": "u"}},
    ]  # fmt: skip
    file = tmp_path / "events.jsonl"
    file.write_text("".join(json.dumps(event) + "\n" for event in events))
    for _ in range(2):
        run = seminar(home, "history", "import", str(file), "--json")
        assert run.returncode == 0, run.stderr
        assert json.loads(run.stdout.splitlines()[-1]) == {"events": {"item": 1, "browse": 1}, "rejected": 1}
    parity = json.loads(seminar(home, "history", "parity", "--json").stdout.splitlines()[-1])
    assert (parity["users"], parity["equal"], parity["edit_distance"]) == (1, 1, 0)
    assert "train psu" in json.loads(seminar(home, "status", "--json").stdout.splitlines()[-1])["next"]


def test_a_result_is_json_for_every_reader(capsys: pytest.CaptureFixture[str]) -> None:
    Output(as_json=True).result({"metrics": {"codes_recall": float("nan")}, "home": Path("x")})
    assert capsys.readouterr().out == '{"metrics": {"codes_recall": null}, "home": "x"}\n'


def test_candidates_without_a_score_are_shown_with_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    scores = [
        {"item": "a", "rate": 0.1, "score": 1.0},
        {"item": "zz", "rate": None, "score": None, "reason": "unknown item"},
    ]
    show(Output(), {"sequence": {"length": 1}, "user": "u", "model_version": "v1", "scores": scores}, {}, None)  # type: ignore
    assert "zz: unknown item" in capsys.readouterr().out


def test_forgetting_nobody_says_so(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)
    said = CliRunner().invoke(app, ["forget", "typo-user"])
    assert said.exit_code == 0
    assert "nothing was known of typo-user" in said.output
