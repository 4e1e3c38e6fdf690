"""What a new user does: clone, `make demo`, the commands that it prints, the blocks of the README."""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cli.processes import free_port
from features.settings import REPOSITORY
from tests.system.page_walk import walk

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]


END = "trap 'running=$(jobs -p); [ -z \"$running\" ] || kill $running' EXIT"
"""What a block started in the background ends with it, also where a later line fails."""


def sh(command: str, cwd: Path, timeout: float = 1200) -> str:
    inherited = {k: v for k, v in os.environ.items() if k not in ("SEMINAR_HOME", "VIRTUAL_ENV", "KAFKA_BOOTSTRAP_SERVERS")}
    run = subprocess.run(
        ["bash", "-euc", f"{END}\n{command}"],
        cwd=cwd,
        env=inherited,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert run.returncode == 0, f"{command}\n{run.stdout[-3000:]}\n{run.stderr[-3000:]}"
    return run.stdout


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean clone in which `make demo` ran, with a third of its households and of the targets that it is judged by."""
    folder = tmp_path_factory.mktemp("clone") / "seminar"
    sh(f"git clone -q {REPOSITORY} {folder}", REPOSITORY)
    (folder / "var").mkdir()
    (folder / "var" / "settings.toml").write_text("[train]\neval_targets = 300\n")
    (folder.parent / "demo.log").write_text(sh("make demo HOUSEHOLDS=100", folder, 1500))
    return folder


@contextmanager
def served(clone: Path) -> Iterator[str]:
    """The demo's bundle behind a port of its own."""
    port = free_port()
    command = [str(clone / ".venv" / "bin" / "seminar"), "serve", "--port", str(port)]
    with (clone.parent / "serve.log").open("ab") as log:
        process = subprocess.Popen(command, cwd=clone, stdout=log, stderr=log, env={**os.environ, "SEMINAR_HOME": "var"})
    try:
        url = f"http://127.0.0.1:{port}"
        sh(f"curl -sf --retry 300 --retry-delay 1 --retry-all-errors {url}/v2/health/ready", clone)
        yield url
    finally:
        process.terminate()
        process.wait(30)


def test_the_demo_reports_what_it_did(clone: Path) -> None:
    facts = json.loads((clone / "var" / "report.json").read_text())
    assert facts["stream"]["parity"]["edit_distance"] == 0
    assert facts["stream"]["parity"]["users"] == facts["households"]
    assert len(facts["stream"]["dead_letters"]) == facts["stream"]["bad"]
    assert facts["stream"]["events"] >= 5_000
    assert facts["training"]["ctr"]["promote"]["bundle"] == "v000001"
    assert facts["scoring"]["change"]["before"] != facts["scoring"]["change"]["after"]
    assert len((clone / "var" / "report.html").read_text()) > 100_000


def test_the_commands_that_it_prints_work(clone: Path) -> None:
    lines = (clone.parent / "demo.log").read_text().split("Next:\n")[1].strip().splitlines()
    serve, curl, score = (line.strip() for line in lines[:3])
    curl = curl.replace("curl -s", "curl -sf --retry 300 --retry-delay 1 --retry-connrefused")
    answer = json.loads(sh(f"{serve} >/dev/null 2>&1 & server=$!\n{curl}\nkill $server", clone))
    assert len(answer["scores"]) == 5
    assert all(row["rate"] is not None for row in answer["scores"])
    assert "behaviours retrieved" in sh(score, clone)


def test_every_block_of_the_readme_runs(clone: Path) -> None:
    blocks = re.findall(r"```bash\n(.*?)```", (clone / "README.md").read_text(), re.S)
    assert len(blocks) >= 2
    printed = [sh(block, clone) for block in blocks]
    assert '"model_version": "v000001"' in printed[0].replace('":"', '": "')


def test_the_services_page_from_nothing_to_a_score(clone: Path, tmp_path: Path) -> None:
    """Its bash and python blocks in order; servers go to the background, ports and the keys' folder are the test's."""
    text = (clone / "docs" / "services.md").read_text()
    blocks = re.findall(r"```(bash|python)\n(.*?)```", text, re.S)
    assert [kind for kind, _ in blocks] == ["bash", "bash", "bash", "python", "bash"]
    port, feast = str(free_port()), str(free_port())
    script = [f"export PATH={clone}/.venv/bin:$PATH SEMINAR_HOME=$PWD/var"]
    for kind, block in blocks:
        for old, new in (
            ("8080", port),
            ("6566", feast),
            ("/etc/seminar", str(tmp_path)),
            ("0.0.0.0", "127.0.0.1"),
            ("=0.2", "=20"),
        ):
            block = block.replace(old, new)
        if kind == "python":
            script.append(
                f"KEY=$KEY python - <<'END'\nimport os\nKEY = os.environ['KEY']\n{block}\nprint('best', best['item'])\nEND"
            )
            continue
        block = re.sub(r"^(seminar keys web-shop[^#\n]*).*$", r"KEY=$(\1| sed 's/.*: //')", block, flags=re.M)
        stop = 'if [ -n "$(jobs -p)" ]; then kill $(jobs -p); wait || true; fi'
        asked = f"curl -s -o answer --retry 300 --retry-delay 1 --retry-all-errors --fail http://127.0.0.1:{port}/v2/health/ready"
        block = re.sub(r"^(seminar serve .*)$", rf"{stop}\n\1 >>serve.log 2>&1 &\n{asked}", block, flags=re.M)
        block = re.sub(r"^(feast .* serve .*)$", r"\1 >>feast.log 2>&1 &", block, flags=re.M)
        script.append(
            re.sub(
                r"curl -s (http://127.0.0.1:\d+/get)", r"curl -sf --retry 300 --retry-delay 1 --retry-all-errors \1", block
            )
        )
    said = sh("\n".join(script), clone)
    assert '"model_version":"v000001"' in said
    assert "best sku" in said
    assert '"statuses":["PRESENT"]' in said.replace(" ", "")


def test_the_page_shows_the_demo(clone: Path, tmp_path: Path) -> None:
    """With SEMINAR_SCREENSHOTS=<folder> the pictures stay there."""
    explained = json.loads((clone / "var" / "report.json").read_text())["scoring"]["explained"]
    folder = Path(os.environ.get("SEMINAR_SCREENSHOTS") or tmp_path)
    with served(clone) as url:
        walk(url, folder, explained["user"], explained["query"])
    assert {file.name for file in folder.glob("inspect-*.png")} >= {
        "inspect-user.png",
        "inspect-score.png",
        "inspect-health.png",
    }


def test_a_backup_is_restored_as_the_operations_page_says(clone: Path) -> None:
    backup, restore = re.findall(r"```bash\n(.*?)```", (clone / "docs" / "operations.md").read_text(), re.S)
    path = f"export PATH={clone}/.venv/bin:$PATH"
    sh(f"{path} SEMINAR_HOME=var; seminar history compact\n{backup}", clone)
    said = sh(f"{path} SEMINAR_HOME=restored\n{restore}", clone)
    assert "edit distance 0" in said
    users = json.loads((clone / "var" / "report.json").read_text())["households"]
    assert f"{users} users, {users} equal" in said


def test_no_process_is_left(clone: Path) -> None:
    assert str(clone) not in subprocess.run(["ps", "axww"], capture_output=True, text=True, check=True).stdout
