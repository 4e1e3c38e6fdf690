"""METRICS of a consumer for Prometheus, in a registry of their own; nothing is served until `serve` is called."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from features import versions
from features.errors import SeminarError
from features.fences import pending
from features.state import Watermark
from streaming.apply import Applied


class Metrics:
    """What one consumer has applied and how far it is."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        made: dict[str, Any] = {"registry": self.registry, "namespace": "seminar"}
        self._events = Counter("events", "Valid events applied.", ["type"], **made)
        self._rejected = Counter("dead_letters", "Messages set aside.", **made)
        self._forgotten = Counter("forgotten_events", "Events dropped: older than their user's fence.", **made)
        self._batches = Histogram("batch_seconds", "From validation to commit.", **made)
        self._steps = Counter("step_seconds", "Time by step of a batch.", ["step"], **made)
        self._failed = Counter("failed_batches", "Tries of a batch that failed and were made again.", **made)
        self._offset = Gauge("watermark_offset", "The next offset: all before it are applied.", ["partition"], **made)
        self._time = Gauge(
            "watermark_timestamp_seconds", "All that arrived before this time is applied.", ["partition"], **made
        )
        self._lag = Gauge("lag", "Messages in the topic that are not applied yet.", ["partition"], **made)
        self._compacted = Gauge("compaction_timestamp_seconds", "When history's newest version was made.", **made)
        self._erasures = Gauge("pending_erasures", "Forgotten users whose older rows are still in files.", **made)
        self._tick = Gauge("last_tick_timestamp_seconds", "When the consumer last said how far it is.", **made)

    def serve(self, port: int, host: str = "127.0.0.1") -> None:
        """Answer `/metrics` from a thread of its own; SeminarError where the address cannot be had."""
        try:
            start_http_server(port, host, self.registry)
        except OSError as error:
            raise SeminarError("metrics port", f"{host}:{port}", f"cannot be had ({error})", "name another") from None

    def applied(self, done: Applied, seconds: float) -> None:
        """A batch is applied and committed."""
        for kind, count in done.counts.items():
            self._events.labels(kind).inc(count)
        self._rejected.inc(done.rejected)
        self._forgotten.inc(done.forgotten)
        self._batches.observe(seconds)
        for name, took in done.seconds.items():
            self._steps.labels(name).inc(took)

    def failed(self) -> None:
        """A batch failed and comes again."""
        self._failed.inc()

    def reached(self, marks: Mapping[str, Watermark]) -> None:
        """How far each partition is."""
        self._tick.set(time.time())
        for name, mark in marks.items():
            self._offset.labels(name).set(mark.offset)
            self._time.labels(name).set(mark.time_ms / 1000)
            self._lag.labels(name).set(mark.lag)

    def history(self, home: Path) -> None:
        """The state of history's files."""
        if made := versions.last(home):
            self._compacted.set(time.time() - versions.load(home, made).age())
        self._erasures.set(len(pending(home)))
