"""Figures of all worker processes, in memory that they share: whichever worker is asked for /metrics answers for all.

The memory is made before the workers are forked. Each worker writes its own row, so that no lock spans processes, and a
worker that takes another's place goes on with its row. Every series is declared below.
"""

import mmap
import threading
import time
from bisect import bisect_left
from collections.abc import Iterator

import numpy as np
from prometheus_client import CONTENT_TYPE_LATEST as CONTENT_TYPE
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from model.serve.board import Board

BUCKETS = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.015, 0.03, 0.06, 0.12, 0.25, 0.5, 1, 2, 4)
STAGES = ("queue", "sequence", "encode", "search", "attention", "tiers", "head", "explain", "total")
OUTCOMES = ("ok", "degraded", "refused", "shed", "late", "unavailable", "failed")
REASONS = ("store", "recent sequence", "unknown user", "stale", "identity")
_COUNTERS = {
    "seminar_score_requests": ("Requests by outcome", "outcome", OUTCOMES),
    "seminar_score_degraded": ("Answers marked degraded, by reason", "reason", REASONS),
    "seminar_score_candidates": ("Candidates by whether they were scored", "known", ("yes", "no")),
    "seminar_model_swaps": ("Changes of the bundle that answers", None, ("",)),
    "seminar_model_refused": ("Times that a bundle was refused", None, ("",)),
    "seminar_workers_restarted": ("Workers that ended and were started again", None, ("",)),
    "seminar_requests_logged": ("Scored requests written to the log", None, ("",)),
}
_GAUGES = {"seminar_score_waiting": "Requests that wait or are computed"}
_AGES = {"seminar_watermark_age_seconds": "Age of the oldest watermark (s); NaN where none is known"}
"""Gauges that are set to a moment (s since 1970) and shown as how long ago it is, so that they grow between two looks."""


class Counters:
    """A row of figures a worker; this process writes row `worker`, and that slot of the board."""

    def __init__(self, workers: int = 1) -> None:
        names = [(name, label) for name, (_, _, labels) in _COUNTERS.items() for label in labels]
        names += [(name, "") for name in (*_GAUGES, *_AGES)]
        names += [(stage, str(i)) for stage in STAGES for i in range(len(BUCKETS) + 2)]  # ..., +Inf, sum
        self._place = {name: i for i, name in enumerate(names)}
        size = workers * len(names)
        self._rows = np.frombuffer(mmap.mmap(-1, size * 8), np.float64, size).reshape(workers, len(names))
        self._rows[:, [self._place[name, ""] for name in _AGES]] = np.nan
        self._lock = threading.Lock()
        self.worker = 0
        self.board = Board(workers)

    def count(self, name: str, label: str = "", by: float = 1) -> None:
        """Add to a counter."""
        place = self._place[name, label]
        with self._lock:
            self._rows[self.worker, place] += by

    def set(self, name: str, value: float) -> None:
        """Set a gauge of this worker: a value, or the moment (s since 1970) of an age."""
        self._rows[self.worker, self._place[name, ""]] = value

    def observe(self, stage: str, seconds: float) -> None:
        """Add to a stage's histogram."""
        first = self._place[stage, "0"]
        with self._lock:
            self._rows[self.worker, first + bisect_left(BUCKETS, seconds)] += 1
            self._rows[self.worker, first + len(BUCKETS) + 1] += seconds

    def collect(self) -> Iterator[Metric]:
        """What prometheus_client asks of a collector."""
        totals = self._rows.sum(0)
        for name, (words, label, values) in _COUNTERS.items():
            counter = CounterMetricFamily(name, words, labels=[label] if label else [])
            for value in values:
                counter.add_metric([value] if label else [], totals[self._place[name, value]])
            yield counter
        for name, words in (_GAUGES | _AGES).items():
            gauge = GaugeMetricFamily(name, words, labels=["worker"])
            column = self._rows[:, self._place[name, ""]]
            for worker, value in enumerate(time.time() - column if name in _AGES else column):
                gauge.add_metric([str(worker)], value)
            yield gauge
        histogram = HistogramMetricFamily("seminar_score_seconds", "Time to answer, by stage", labels=["stage"])
        for stage in STAGES:
            first = self._place[stage, "0"]
            below = np.cumsum(totals[first : first + len(BUCKETS) + 1])
            ends = [*map(str, BUCKETS), "+Inf"]
            histogram.add_metric([stage], list(zip(ends, below, strict=True)), totals[first + len(BUCKETS) + 1])
        yield histogram

    def exposition(self) -> bytes:
        """The text that Prometheus reads."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        return generate_latest(registry)


__all__ = ["CONTENT_TYPE", "Counters"]
