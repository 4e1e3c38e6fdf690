"""The page for people with two CSV files: its blocks, in order, from the example files to an explained score."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from features.settings import REPOSITORY

TEXT = (REPOSITORY / "docs" / "your-own-data.md").read_text()


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_every_block_runs(tmp_path: Path) -> None:
    seminar = tmp_path / "bin" / "seminar"
    seminar.parent.mkdir()
    seminar.write_text(f'#!/bin/sh\nPYTHONPATH={REPOSITORY} exec {sys.executable} -m cli.main "$@"\n')
    seminar.chmod(0o755)
    blocks = re.findall(r"```bash\n(.*?)```", TEXT, re.S)
    assert len(blocks) == 5
    environment = {k: v for k, v in os.environ.items() if k not in ("SEMINAR_HOME", "KAFKA_BOOTSTRAP_SERVERS")}
    run = subprocess.run(
        ["bash", "-euc", "\necho next block\n".join(blocks)],
        cwd=tmp_path,
        env={**environment, "PATH": f"{seminar.parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    example, check, imported, trained, scored = run.stdout.split("next block\n")
    assert "user_id,timestamp,item_id,query,dwell_s" in example
    assert "FAIL" not in check
    assert "PASS" in check
    rows = len((tmp_path / "shop" / "events.csv").read_text().splitlines()) - 1
    assert f"{rows + 300:,} events imported" in imported
    assert ", 0 rows refused" in imported
    labels = json.loads((tmp_path / "var" / "own" / "ctr.json").read_text())["labels"]
    assert labels["impressions"] == 0 < labels["targets_with_sampled_negatives"]
    methods = re.findall(r"^(\w+) +(recommendation|search) +(0\.\d+)", trained, re.M)
    gauc = {(name, mode): float(value) for name, mode, value in methods}
    assert len(gauc) == 6
    assert gauc["seminar", "recommendation"] > gauc["popularity", "recommendation"]
    assert "bundle v000001 is served" in scored
    assert "behaviours retrieved" in scored
    assert "not applicable: codes_recall, histories are too short" in scored
    assert "not applicable: calibration, nothing was shown" in scored
