"""Every DAG, for real, on a small shop: what each built upon, what was released, what was stopped, and where."""

import json
import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from benchmarks.harness import days
from features import journal, quality, versions
from features.publish import current
from features.publish import versions as published
from features.reports import load
from features.settings import REPOSITORY
from model.train.lineage import lineage
from tests.dags import shop

pytestmark = pytest.mark.timeout(900)  # the first test waits for all of it


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shops")


@pytest.fixture(scope="module")
def ran(folder: Path) -> dict[str, Any]:
    """What one process saw that ran everything (tests/dags/whole.py)."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW", "SEMINAR", "KAFKA_BOOT"))}
    # So small a model runs many times faster on one thread than on threads that wait for a busy core.
    environment = {**inherited, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-m", "tests.dags.whole", str(folder)]
    done = subprocess.run(command, env=environment, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    log = folder / "base" / "airflow" / "logs" / "demo.log"
    assert done.returncode == 0, done.stderr[-3000:] + (log.read_text()[-3000:] if log.exists() else "")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


@pytest.fixture
def home(ran: dict[str, Any], folder: Path) -> Path:
    return folder / "home"


def test_a_dry_run_looks_and_does_nothing(ran: dict[str, Any]) -> None:
    assert ran["dry"] == ["", None]  # no refusal, no version


def test_history_is_checked_then_compacted(ran: dict[str, Any], home: Path) -> None:
    date = quality.date_of(shop.yesterday())
    assert date in ran["history"]["check"]["dates"]
    report = load(home, f"quality/{date}")
    assert report is not None
    assert report["passed"]
    assert report["before"]["events"] > 0
    assert ran["history"]["compact"]["version"] == "v000001"


def test_what_forget_events_asked_for_is_erased(ran: dict[str, Any]) -> None:
    assert ran["history"]["erase"] == {"waiting": 0, "users": 1, "rows": 2}
    assert ran["waiting"] == 0


def test_labels_are_joined_and_closed_once(ran: dict[str, Any], home: Path) -> None:
    done = ran["labels"]["join"]
    assert done["written"] == done["impressions"] > 0
    assert 0 < done["clicks"] < done["shown"]
    refusal, states = ran["labels_again"]
    assert (refusal, states["close"]) == ("", "skipped")
    assert [name for name, _ in ran["events"]].count("seminar://labels") == 1


def test_pretraining_publishes_and_reports_all_three_objectives(ran: dict[str, Any], home: Path) -> None:
    found = ran["psu"]["pretrain"]
    assert found["version"] == "v000001"
    assert {name: len(values) for name, values in found["losses"].items()} == {
        "next_pair": 1,
        "alignment": 1,
        "relevance": 1,
    }
    assert load(home, "psu") == ran["psu_again"]["pretrain"]
    assert (ran["psu"]["pin"]["warm"], ran["psu_again"]["pin"]["warm"]) == (None, "v000001")


def test_each_dag_builds_on_what_belongs_together(ran: dict[str, Any], home: Path) -> None:
    history = ran["psu"]["pin"]["history"]
    assert ran["codebooks"]["pin"]["psu"] == "v000001"
    # A newer PSU exists, for which no codebooks were built: it is left alone.
    assert published(home / "psu") == ["v000001", "v000002"]
    pins = ran["ctr"]["pin"]
    assert (pins["psu"], pins["codebooks"]) == ("v000001", "v000001")
    for name in ("windows", "history"):
        assert ran["psu"]["pin"][name] == ran["codebooks"]["pin"][name] == pins[name]
    assert pins["config"]["model"] == ran["psu"]["pin"]["config"]["model"]
    assert ran["ctr"]["finetune_seminar"]["restored"]["restored"] > 0
    assert any(who.startswith("run-psu-") for who in versions.pins(home)[history])


def test_the_catalogue_is_encoded_in_shards(ran: dict[str, Any], home: Path) -> None:
    from model.train.catalogue import read

    shards = ran["codebooks"]["encode"]
    assert [x["items"] for x in shards] == [25, 25, 10]
    found = read(home / "catalogue" / ran["codebooks"]["assemble"]["version"])
    assert len(found["ids"]) == 60 == len(set(found["ids"].tolist()))


def test_a_version_is_the_named_one_else_the_triggers_else_the_newest(ran: dict[str, Any]) -> None:
    assert ran["pinned"] == {"named": "v000002", "triggered": "v000001", "by hand": "v000002"}


def test_every_method_was_judged_on_the_same_events(ran: dict[str, Any], home: Path) -> None:
    methods = {row["name"] for row in ran["ctr"]["evaluate"]["methods"]}
    assert methods == {"seminar", "din_recent", "popularity", "own_frequency"}
    assert ran["states"]["finetune_din_full"] == "skipped"
    assert load(home, "evaluation") is not None


def test_a_bundle_that_passes_is_promoted(ran: dict[str, Any]) -> None:
    gated = ran["ctr"]["gate"]
    assert gated["passed"] is True
    checks = {check["name"]: check for check in gated["checks"]}
    assert checks["champion"]["why"] == "there is no champion yet"
    assert checks["latency_ms"]["value"] > 0
    assert ran["ctr"]["promote"]["bundle"] == "v000001"


def test_a_bundle_that_fails_the_gate_leaves_the_champion(ran: dict[str, Any]) -> None:
    message, states, serving = ran["stopped"]
    assert "bundle: 'v000002' failed the gate: " in message
    assert "champion -" in message
    assert "v000001 serves on" in message
    assert states["gate"] == "failed"
    assert "promote" not in states
    assert serving == "v000001"


def test_what_no_scorer_serves_is_pointed_back(ran: dict[str, Any], home: Path) -> None:
    message, serving = ran["unserved"]
    assert "bundle: 'v000003' is not served: http://127.0.0.1:9 does not answer" in message
    assert serving == current(home / "bundles") == "v000001"
    moves = lineage(home)["promotions"]
    assert [(x["bundle"], x["former"]) for x in moves] == [
        ("v000001", None),
        ("v000003", "v000001"),
        ("v000001", "v000003"),
    ]


def test_assets_carry_versions_and_windows(ran: dict[str, Any]) -> None:
    windows, history = ran["psu"]["pin"]["windows"], ran["psu"]["pin"]["history"]
    made = {"history": history, "windows": windows}
    date = quality.date_of(shop.yesterday())
    assert ran["events"] == [
        ["seminar://history", {"history": "v000001"}],
        ["seminar://labels", {"date": date, "history": history}],
        ["seminar://psu", {"psu": "v000001", **made}],
        ["seminar://codebooks", {"psu": "v000001", "codebooks": "v000001", **made}],
        ["seminar://catalogue", {"catalogue": "v000001", "codebooks": "v000001"}],
        ["seminar://psu", {"psu": "v000002", **made}],
        ["seminar://bundle", {"psu": "v000001", "codebooks": "v000001", "bundle": "v000001", **made}],
    ]


def test_lineage_leads_back_to_the_partitions(ran: dict[str, Any], home: Path) -> None:
    found = lineage(home)
    assert (found["psu"]["version"], found["codebooks"]["version"]) == ("v000001", "v000001")
    assert found["history"]["version"] == ran["psu"]["pin"]["history"]
    days_of = list(found["history"]["partitions"])
    assert quality.date_of(shop.yesterday()) in days_of
    assert found["history"]["partitions"][days_of[-1]]["labels"] > 0
    assert set(found["code"]) >= {"seminar", "commit"}
    assert found["metrics"]["gauc"] > 0.5


def test_health_is_looked_at_and_shown(ran: dict[str, Any], home: Path) -> None:
    assert ran["health"] == ""
    report = load(home, "health")
    assert report is not None
    assert set(report["sections"]) == {"stream", "parity", "drift", "click_rate", "codebooks"}
    assert report["sections"]["parity"]["faults"] == 0
    assert report["sections"]["click_rate"]["ratio"] == pytest.approx(1, abs=0.5)
    page = (home / "reports" / "health.html").read_text()
    assert "Last DAG runs" in page
    assert "finetune" not in page  # no task failed by then


def test_every_run_is_noted_and_failures_alert(ran: dict[str, Any], home: Path) -> None:
    runs = journal.runs(home)
    assert {run["dag"] for run in runs} == {"history", "labels", "psu", "codebooks", "ctr", "health"}
    assert [run["state"] for run in runs if run["dag"] == "ctr"].count("success") == 1
    assert all(datetime.fromisoformat(run["begun"]) <= datetime.fromisoformat(run["ended"]) for run in runs)
    alerts = [json.loads(line) for line in (home / "alerts.jsonl").read_text().splitlines()]
    assert {"gate", "confirm"} <= {alert["task"] for alert in alerts}


def test_bad_params_are_refused_in_one_sentence(ran: dict[str, Any]) -> None:
    bad = ran["bad"]
    assert "'yesterday' is no date" in bad["date"]
    assert bad["order"].startswith("windows: ")
    assert "'wings' is not known" in bad["setting"]
    assert "'v000009' is not published" in bad["version"]
    assert "'v000999' is not published" in bad["history"]


@pytest.mark.parametrize(
    ("poison", "what"),
    [
        ("empty", "events 0 (limit 1)"),
        ("tenfold", "events_more 10 (limit 5.0)"),
        ("duplicated", "repeats 0.5 (limit 0.2)"),
        ("flipped", "click_rate_higher "),
        ("unknown", "unknown 1 (limit 0.2)"),
        ("clocks", "late 1 (limit 0.2)"),
    ],
)
def test_a_bad_day_stops_with_its_numbers(ran: dict[str, Any], poison: str, what: str) -> None:
    assert what in ran["days"][poison]
    assert "is not as it should be" in ran["days"][poison]
    assert poison in days.POISONS


def test_nothing_is_trained_until_somebody_looked_at_a_bad_day(ran: dict[str, Any]) -> None:
    assert "are not as they should be" in ran["days"]["training"]
    assert ran["days"]["accepted"] == ""
