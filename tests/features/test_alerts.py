import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from features.alerts import alert, recent


def test_an_alert_is_kept_and_posted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    came: list[bytes] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            came.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Hook) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        monkeypatch.setenv("SEMINAR_ALERT_URL", f"http://127.0.0.1:{server.server_port}/hook")
        entry = alert(tmp_path, "a task failed", dag="psu", error="x" * 10)
    assert json.loads(came[0]) == entry
    assert recent(tmp_path) == [entry]


def test_an_address_that_is_away_costs_only_the_post(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEMINAR_ALERT_URL", "http://127.0.0.1:9/hook")
    for number in range(3):
        alert(tmp_path, f"alert {number}")
    assert [x["what"] for x in recent(tmp_path, 2)] == ["alert 2", "alert 1"]
    monkeypatch.setenv("SEMINAR_ALERT_URL", "alerts.example/hook")  # without a scheme
    alert(tmp_path, "alert 3")
    assert recent(tmp_path, 1)[0]["what"] == "alert 3"
    assert recent(tmp_path / "nothing") == []
    with (tmp_path / "alerts.jsonl").open("a") as file:
        file.write('{"time": "20')
    alert(tmp_path, "the last")
    assert [x["what"] for x in recent(tmp_path, 2)] == ["the last", "alert 3"]
