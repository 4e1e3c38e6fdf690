"""METRICS of a consumer for Prometheus, in a registry of their own; nothing is served until `serve` is called."""

import time
from collections.abc import Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

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
        self._tick = Gauge("last_tick_timestamp_seconds", "When the consumer last said how far it is.", **made)

    def serve(self, port: int, host: str = "127.0.0.1") -> None:
        """Answer `/metrics` from a thread of its own."""
        start_http_server(port, host, self.registry)

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
