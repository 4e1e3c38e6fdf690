"""Verbs of history, as an operator would use them one after the other."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli.histories import app
from features import history, quality, versions
from features.errors import SeminarError
from features.online import Online
from features.state import ensure_identity
from streaming import topics
from streaming.broker import EmbeddedBroker
from streaming.deadletters import KafkaSink
from streaming.events import Invalid, Message
from tests.features.rows import T0, events, records


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


def test_looking_at_a_date_counts_its_dead_letters_and_lifts_no_refusal(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Letters of the stream are seen with its brokers only; those of imports always."""
    arrived = datetime.now(UTC).replace(hour=12)  # a letter counts for the date of its event where that is near
    now = int(arrived.timestamp() * 1000)
    history.write(home, "events", events("u", records([now - T0 + i for i in range(20)]), arrived=arrived), "a")
    date, headers = quality.date_of(now), {"ce_time": arrived.isoformat().encode()}
    with EmbeddedBroker(tmp_path / "broker") as broker:
        topics.apply(broker.bootstrap)
        sink = KafkaSink(broker.bootstrap)
        sink.send([(Message("t", 0, i, None, b"", headers), Invalid("data", b"", "is not JSON")) for i in range(9)])
        sink.close()
        monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", broker.bootstrap)
        with pytest.raises(SeminarError, match=r"bad 0.3103 \(limit 0.05\)"):
            run("quality", date)
        assert quality.refused(home) == [date]
        monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS")
        done = CliRunner().invoke(app, ["quality", date])
        assert (done.exit_code, "no dead letters of the stream" in done.output) == (0, True)
        assert quality.refused(home) == [date]
        monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", broker.bootstrap)
        more = events("u", records([now - T0 + i for i in range(20, 420)]), offset=20, arrived=arrived)
        history.write(home, "events", more, "b")  # beside which nine are few
        assert run("quality", date)["dates"][0]["passed"]
    assert quality.refused(home) == []


def test_what_makes_no_sense_is_refused(home: Path) -> None:
    with pytest.raises(SeminarError, match="90s, 15m"):
        run("compact", "--grace", "1 hour")
    with pytest.raises(SeminarError, match="contradicts --all"):
        run("parity", "--all", "--sample", "3")
