"""Stock `feast serve` answers what the scorer reads."""

import base64
import os
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np
import pytest

from benchmarks.harness.kafka_broker import free_ports
from features.children import die_with_parent
from features.online import Online
from features.record import RECORD, decode, entity_id, signed
from features.repository import CONFIG
from features.settings import REPOSITORY


@pytest.mark.long
def test_stock_feast_serves_sequences(home: Path) -> None:
    records = np.zeros(7, RECORD)
    records["time"], records["item"] = np.arange(7), entity_id("a")
    Online().append({"u": records})
    (port,) = free_ports(1)
    command = [Path(sys.executable).parent / "feast", "-f", home / CONFIG, "serve", "--port", str(port)]
    process = subprocess.Popen(
        [*map(str, command), "--max-requests", "0"], cwd=REPOSITORY, env=dict(os.environ), preexec_fn=die_with_parent()
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as http:
            deadline = time.monotonic() + 150
            while True:
                try:
                    http.get("/health").raise_for_status()
                    break
                except httpx.TransportError:
                    assert process.poll() is None
                    assert time.monotonic() < deadline
                    time.sleep(0.2)
            entities = {"user_id": ["u", "nobody"], "item": [signed(entity_id("a"))] * 2, "query": [1, 1]}
            answer = http.post("/get-online-features", json={"feature_service": "ctr_v1", "entities": entities})
            answer.raise_for_status()
    finally:
        process.terminate()
        process.wait(20)
    body = answer.json()
    column = dict(zip(body["metadata"]["feature_names"], body["results"], strict=True))["sequence"]
    assert column["statuses"] == ["PRESENT", "NOT_FOUND"]
    found, fence = decode(base64.b64decode(column["values"][0]))
    assert np.array_equal(found, records)
    assert fence == 0
