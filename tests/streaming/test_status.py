"""What operators see: watermarks that move while nothing comes, lag, metrics, and rules that name what exists."""

import re
import socket
import time
import urllib.request
from pathlib import Path

import pytest
import yaml

from features.errors import SeminarError
from features.online import Online
from features.settings import REPOSITORY
from features.state import watermarks
from streaming.apply import Applied
from streaming.consumer import lag
from streaming.member import Limits
from streaming.metrics import Metrics
from streaming.producer import Producer
from streaming.status import look

from .conftest import caught_up, consuming, event, wait

QUICK = Limits(seconds=0.05, tick=0.1)


def test_watermarks_lag_and_dead_letters(bootstrap: str, home: Path) -> None:
    assert look(Online(), home, bootstrap)["store"] == "nothing applied yet"
    with Producer(bootstrap, "test") as producer:
        for i in range(60):
            producer.send(event(i))
        producer.send_raw("seminar.search", b"u", b"not json", event(0).headers())
    assert look(Online(), home, bootstrap)["lag"] == 61
    with consuming(bootstrap, home, limits=QUICK):
        wait(caught_up(bootstrap))
        wait(lambda: len(watermarks(Online())) == len(lag(bootstrap)))
        first = watermarks(Online())
        wait(lambda: all(mark.time_ms > first[name].time_ms for name, mark in watermarks(Online()).items()))
        found = look(Online(), home, bootstrap)
    assert (found["lag"], found["dead_letters"]) == (0, {"imports": 0, "stream": 1})
    assert sum(x["offset"] for x in found["partitions"]) == 61
    assert {x["instance"] for x in found["partitions"]} == {"one"}
    with Producer(bootstrap, "test") as producer:
        for i in range(60, 90):
            producer.send(event(i))
    assert look(Online(), home, bootstrap)["lag"] == 30
    assert look(Online(), home, None)["lag"] == 0, "as the member last said"


def test_a_restart_does_not_set_watermarks_back(bootstrap: str, home: Path) -> None:
    with consuming(bootstrap, home, limits=QUICK):
        wait(lambda: len(watermarks(Online())) == len(lag(bootstrap)))
    before = watermarks(Online())
    with consuming(bootstrap, home, limits=QUICK):
        wait(lambda: all(mark.time_ms > before[name].time_ms for name, mark in watermarks(Online()).items()))


def test_a_metrics_port_that_is_taken_is_named() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(SeminarError, match=rf"metrics port: '127\.0\.0\.1:{port}' cannot be had.*name another"):
            Metrics().serve(port)
    with pytest.raises(SeminarError, match=rf"metrics port: '192\.0\.2\.1:{port}' cannot be had"):
        Metrics().serve(port, "192.0.2.1")


def test_metrics_over_http_and_the_rules_name_them(bootstrap: str, home: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    metrics = Metrics()
    metrics.serve(port)
    metrics.applied(Applied({"search": 0, "browse": 0}), 0)
    before = {kind: counted(port, kind) for kind in ("search", "browse")}  # one process's counters outlive their registry
    with Producer(bootstrap, "test") as producer:
        for i in range(30):
            producer.send(event(i))
    with consuming(bootstrap, home, limits=QUICK, metrics=metrics):
        wait(caught_up(bootstrap))
        wait(lambda: 'seminar_lag{partition="seminar.item/3"} 0' in read(port))
        wait(lambda: counted(port, "browse") == before["browse"] + 20)
    text = read(port)
    assert counted(port, "search") == before["search"] + 10
    marks = re.findall(r"seminar_watermark_timestamp_seconds\{.*\} (.+)", text)
    assert all(time.time() - float(mark) < 3600 for mark in marks)
    rules = yaml.safe_load((REPOSITORY / "docs" / "alert-rules.yml").read_text())["groups"][0]["rules"]
    metrics.failed()
    for rule in rules:
        names = re.findall(r"seminar_\w+", rule["expr"])
        assert names
        assert all(f"# TYPE {name}" in text or f"\n{name}" in text for name in names), rule["expr"]


def test_every_alert_has_a_runbook() -> None:
    rules = yaml.safe_load((REPOSITORY / "docs" / "alert-rules.yml").read_text())["groups"][0]["rules"]
    headings = re.findall(r"^#+ (.+)$", (REPOSITORY / "docs" / "operations.md").read_text(), re.M)
    anchors = {heading.lower().replace(" ", "-") for heading in headings}
    for rule in rules:
        file, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert file == "docs/operations.md"
        assert anchor in anchors


def counted(port: int, kind: str) -> float:
    found = re.search(rf'seminar_events_total{{type="{kind}"}} (.+)', read(port))
    return float(found[1]) if found else 0.0


def read(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        return str(answer.read().decode())
