"""Bundles change under load: promotions, rollbacks and a corrupt bundle, while clients ask without a pause.

    python -m benchmarks.swap --json

Three versions give other rates to the same requests: weights, item table and calibration differ. Every answer is compared
with a recomputation by the version that it states: `mixed` counts those that differ by more than 1e-5, `failed` those
that were no 200. The corrupt version has a byte changed after its checksums; a pointer names it for a while.
"""

import argparse
import json
import os
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file, save_file

from benchmarks.harness import waiting
from benchmarks.harness.serving import Server, Wire, home
from benchmarks.harness.world import World
from benchmarks.score import worlds
from features.publish import current, path, point, publish
from features.record import entity_id
from model import bundle
from model.compute import tune
from model.golden import Golden
from model.serve.entities import Entities
from model.serve.scoring import Scoring
from model.serve.store import Store, until
from model.train.release import promote, rollback

USERS, LENGTH, CANDIDATES, CLIENTS, TOLERANCE = 50, 500, 20, 4, 1e-5


def run(given: World, requests: int = 10_000, swaps: int = 22, workers: int = 2) -> dict[str, Any]:
    """Ask `requests` times while the pointer moves `swaps` times."""
    tune()
    with tempfile.TemporaryDirectory() as name, home(Path(name) / "home", given, None) as online:
        folder = Path(name) / "home"
        kind, now = folder / "bundles", int(time.time() * 1000)
        first = current(kind)
        assert first is not None
        others = [_variant(kind, first, seed) for seed in (1, 2)]
        corrupt = _corrupt(kind, first)
        rng = np.random.default_rng(0)
        users = [f"u{i}" for i in range(USERS)]
        for i, user in enumerate(users):
            online.append({user: given.history(LENGTH, i, now)})
        asked = [
            (user, [given.candidates[i] for i in rng.choice(len(given.candidates), CANDIDATES, replace=False)])
            for user in users
        ]
        expected = _expected(kind, [first, *others], asked, Store(online), now)
        seen = _Seen(requests, expected)
        with Server(folder, workers) as server:
            bodies = [
                Wire.request("POST", "/v1/score", {"user": user, "candidates": keys, "time": _moment(now)})
                for user, keys in asked
            ]
            threads = [threading.Thread(target=seen.ask, args=(server.port, bodies, i)) for i in range(CLIENTS)]
            for thread in threads:
                thread.start()
            moved, refused = _move(folder, server, seen, others, corrupt, swaps)
            for thread in threads:
                thread.join()
            with Wire(server.port) as wire:
                metrics = wire.send(Wire.request("GET", "/metrics"))[1].decode()
    changes = next(float(line.split()[1]) for line in metrics.splitlines() if line.startswith("seminar_model_swaps_total "))
    return {
        "bench": "swap",
        "requests": sum(seen.answered.values()),
        "swaps": moved,
        "failed": len(seen.failed),
        "mixed": seen.mixed,
        "max_difference": seen.worst,
        "answers_by_version": dict(sorted(seen.answered.items())),
        "changes_seen_by_workers": int(changes),
        "corrupt_refused": refused,
        "corrupt_answers": seen.answered.get(corrupt, 0),
        "workers": workers,
        "failures": seen.failed[:5],
        "load_1min": round(os.getloadavg()[0], 2),
    }


class _Seen:
    """What clients got."""

    def __init__(self, requests: int, expected: dict[tuple[str, int], list[float]]) -> None:
        self._left, self._expected = requests, expected
        self._lock = threading.Condition()
        self.answered: Counter[str] = Counter()
        self.failed: list[str] = []
        self.mixed, self.worst = 0, 0.0

    @property
    def left(self) -> int:
        """Requests that are still to be sent."""
        return self._left

    def wait(self, left: float) -> None:
        """Until no more than so many are still to be sent."""
        with self._lock:
            self._lock.wait_for(lambda: self._left <= left)

    def ask(self, port: int, bodies: list[bytes], first: int) -> None:
        """Ask until all requests are sent; one of several clients."""
        number, wire = first, Wire(port)
        while True:
            with self._lock:
                if self._left <= 0:
                    return
                self._left -= 1
                self._lock.notify_all()
            place, number = number % len(bodies), number + 1
            try:
                status, content = wire.send(bodies[place])
                answer = json.loads(content)
            except OSError as error:
                status, answer = 0, {"error": str(error)}
                wire = Wire(port)
            with self._lock:
                self._judge(status, answer, place)

    def _judge(self, status: int, answer: dict[str, Any], place: int) -> None:
        if status != 200 or any(not reason.startswith("stale") for reason in answer["degraded"]):
            self.failed.append(f"{status}: {str(answer)[:200]}")
            return
        version = answer["model_version"]
        self.answered[version] += 1
        rates = self._expected.get((version, place))
        difference = 1.0 if rates is None else max(abs(a["rate"] - b) for a, b in zip(answer["scores"], rates, strict=True))
        self.worst = max(self.worst, difference)
        self.mixed += difference > TOLERANCE


def _move(folder: Path, server: Server, seen: _Seen, others: list[str], corrupt: str, swaps: int) -> tuple[int, bool]:
    """Promote and roll back in turn, each when its share of the requests is sent; how often, and whether the corrupt bundle
    was refused."""
    kind, whole, moved, refused = folder / "bundles", seen.left, 0, False
    while moved < swaps:
        seen.wait(max(whole * (swaps - moved - 1) / (swaps + 1), 0))
        if moved == swaps // 2:
            former = current(kind)
            assert former is not None
            point(kind, corrupt)
            refused = _refuses(server, corrupt)
            point(kind, former)
        if moved % 2:
            rollback(folder)
        else:
            promote(folder, bundle=others[moved // 2 % len(others)])
        moved += 1
    return moved, refused


def _refuses(server: Server, version: str) -> bool:
    """Whether the server says within ten seconds that it refuses a version."""

    def said() -> bool:
        with Wire(server.port) as wire:
            found = wire.ask("GET", "/v2/health/ready")[1].get("refused")
        return bool(found) and found["version"] == version

    try:
        waiting.until(said, 10, "the corrupt bundle is not refused", 0.02)
    except RuntimeError:
        return False
    return True


def _variant(kind: Path, version: str, seed: int) -> str:
    """A bundle that gives other rates: head, item parts, biases and calibration differ."""
    source, rng = path(kind, version), np.random.default_rng(seed)

    def build(aside: Path) -> None:
        _copy(source, aside)
        weights = load_file(aside / bundle.WEIGHTS)
        weights["head.0.weight"] = weights["head.0.weight"] * (1 + 0.3 * seed)
        weights["backbone.attention.w_v"] = weights["backbone.attention.w_v"] * (1 - 0.2 * seed)
        save_file(weights, aside / bundle.WEIGHTS)
        for name, size in (("items.parts.npy", 0.1), ("items.bias.npy", 0.5)):
            column = np.load(aside / name)
            np.save(aside / name, column + (size * rng.standard_normal(column.shape)).astype(np.float32))
        manifest = json.loads((aside / bundle.MANIFEST).read_text())
        manifest["logistic"] = [manifest["logistic"][0] * (1 + 0.1 * seed), manifest["logistic"][1] - 0.2 * seed]
        (aside / bundle.MANIFEST).write_text(json.dumps(manifest))

    return publish(kind, build)


def _corrupt(kind: Path, version: str) -> str:
    source = path(kind, version)
    name = publish(kind, lambda aside: _copy(source, aside))
    file = kind / name / "items.parts.npy"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    return name


def _copy(source: Path, aside: Path) -> None:
    for file in source.iterdir():
        if file.name not in ("READY", "SHA256SUMS"):
            (aside / file.name).write_bytes(file.read_bytes())
    Golden.none().save(aside)  # golden requests would refuse what was changed


def _expected(
    kind: Path, versions: list[str], asked: list[tuple[str, list[str]]], store: Store, now: int
) -> dict[tuple[str, int], list[float]]:
    """Rates by version and number of the request."""
    found = {}
    for version in versions:
        loaded = bundle.load(path(kind, version))
        scoring = Scoring(loaded, Entities(loaded, store))
        for number, (user, keys) in enumerate(asked):
            read = store.online.sequence(user)
            assert read is not None
            ids = np.array([entity_id(key) for key in keys], np.uint64)
            found[version, number] = scoring(until(read[0], now), ids, None, now).rates.tolist()
    return found


def _moment(ms: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(ms / 1000, UTC).isoformat()


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--world", choices=("auto", "trained", "hard"), default="auto")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--swaps", type=int, default=22)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        given = worlds(options.world, Path(folder))
        print(json.dumps(run(given, options.requests, options.swaps, options.workers)))


if __name__ == "__main__":
    main()
