"""The report renders whatever is known, escapes it, and carries all that it shows in itself."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cli import report

DAY = 86_400_000
NOW = 1_511_700_000_000


def deciles(factor: float) -> dict[str, Any]:
    """A calibration whose observed rates are the predicted ones times a factor."""
    points = [{"predicted": p, "observed": p * factor, "n": 100} for p in np.linspace(0.01, 0.3, 10).tolist()]
    return {"deciles": points, "predicted_to_observed": 1 / factor, "slope": 0.97}


def method(name: str, mode: str, gauc: float, logloss: float | None) -> dict[str, Any]:
    """A row of the evaluation."""
    interval = {"gauc_lo": gauc - 0.008, "gauc_hi": gauc + 0.008}
    queries = "constructed queries" if mode == "search" else "no query"
    return {
        "name": name,
        "mode": mode,
        "gauc": gauc,
        **interval,
        "ndcg10": gauc - 0.2,
        "logloss": logloss,
        "queries": queries,
    }


def full() -> dict[str, Any]:
    """Facts of a run in which everything was measured."""
    rng = np.random.default_rng(0)
    methods = [
        method(name, mode, gauc + shift, loss)
        for mode, shift in (("recommendation", 0.0), ("search", 0.11))
        for name, gauc, loss in (
            ("seminar", 0.7012, 0.312),
            ("din_full", 0.6981, 0.309),
            ("din_recent", 0.6822, 0.321),
            ("popularity", 0.5811, 0.341),
            ("own_frequency", 0.6633, None),
        )
    ]
    return {
        "notice": "The Complete Journey data are provided by 84.51° <for research> & teaching.",
        "started": "2026-03-01T12:30:00+00:00",
        "households": 500,
        "dates": {"past": "2017-01-01", "t1": "2017-09-11", "t2": "2017-10-30", "t3": "2017-11-13", "end": "2017-11-27"},
        "import": {"events": 412_031, "seconds": 31.2, "events_per_s": 13_206},
        "lengths": [int(x) for x in rng.lognormal(6.2, 0.9, 500)],
        "stream": {
            "events": 48_211,
            "seconds": 9.1,
            "events_per_s": 5298,
            "dead_letters": [
                {"field": "item_id", "value": "", "reason": "must not be empty", "origin": "seminar.browse/0/17"},
                {
                    "field": "data",
                    "value": "<script>alert(1)</script>",
                    "reason": "is no JSON",
                    "origin": "seminar.search/1/3",
                },
            ],
            "parity": {"users": 500, "equal": 500, "missing": 0, "extra": 0, "edit_distance": 0},
        },
        "training": {
            "psu": {
                "pretrain": {
                    "version": "v000001",
                    "seconds": 41.0,
                    "losses": {"next_pair": [3.1, 2.4, 2.2], "alignment": [5.0, 4.1, 3.9], "relevance": [0.69, 0.51, 0.47]},
                }
            },
            "codebooks": {
                "build": {
                    "version": "v000001",
                    "chosen": {"bits": 192, "recall": 0.955},
                    "recall": [
                        {"item_bytes": i, "query_bytes": q, "bits": 8 * (i + q), "recall": r, "recall_scan": r - 0.2}
                        for i, q, r in ((4, 4, 0.71), (8, 8, 0.87), (16, 8, 0.955), (32, 16, 0.981))
                    ],
                }
            },
            "ctr": {
                "pin": {"windows": {"t1": NOW - 80 * DAY, "t2": NOW - 30 * DAY, "t3": NOW - 15 * DAY, "end": NOW}},
                "finetune_seminar": {
                    "losses": [0.41, 0.36, 0.34],
                    "labels": {"impressions": 9123, "targets_with_sampled_negatives": 700},
                },
                "evaluate": {
                    "methods": methods,
                    "calibration": {
                        "seminar": deciles(1.03),
                        "din_full": deciles(0.9),
                        "popularity": deciles(0.8),
                        "own_frequency": None,
                    },
                },
                "export": {"version": "v000001"},
                "gate": {
                    "checks": [
                        {"name": "gauc", "value": 0.7012, "limit": 0.55, "at": "least", "passed": True},
                        {"name": "calibration", "value": None, "limit": 0.25, "at": "most", "passed": False},
                    ]
                },
            },
        },
        "scoring": {
            "latency": {
                stage: {"p50_ms": p50, "p99_ms": p99}
                for stage, p50, p99 in (
                    ("features", 1.9, 4.2),
                    ("encode", 0.8, 1.5),
                    ("search", 0.6, 1.4),
                    ("attend", 2.8, 6.0),
                    ("http", 7.4, 15.2),
                )
            },
            "requests": 200,
            "candidates": 100,
            "history": 1804,
            "explained": {
                "user": "1228",
                "query": "ice cream",
                "item_id": "995242",
                "title": "Ice cream, vanilla",
                "rate": 0.0712,
                "retrieved": [
                    {
                        "what": f"past event {i} <b>",
                        "kind": "browse" if i % 3 else "search",
                        "age_s": 28_800 + i * 86_400,
                        "attention": 0.2 / (i + 1),
                    }
                    for i in range(30)
                ],
            },
            "change": {
                "user": "1228",
                "item_id": "995242",
                "title": "Ice cream, vanilla",
                "before": 0.0712,
                "after": 0.0953,
                "events": 12,
            },
        },
        "versions": {"code": "0.1.0", "torch": "2.13.0"},
        "machine": {"cores": 2, "threads": 2, "memory": "23 GB", "bundle": "11.2 MB"},
        "stages_s": {"repository": 6.1, "import": 31.2, "stream": 22.4, "training": 181.0, "scoring": 14.2},
        "wall_s": 261.3,
        "peak_mb": 2113,
    }


def test_a_full_report_shows_every_section_and_carries_all_in_itself(tmp_path: Path) -> None:
    facts = json.loads(json.dumps(full()))
    page = report.write(tmp_path / "var", facts)
    html = page.read_text()
    assert page == tmp_path / "var" / "report.html"
    assert not re.search(r"""(src|href|srcset)\s*=\s*["'](?!data:|#)|url\(|https?://|<script""", html)
    assert html.count("<picture>") == 5
    assert "not recorded" not in html
    assert "edit distance, in records: 0" in html
    assert "84.51° &lt;for research&gt; &amp; teaching." in html
    assert "&lt;script&gt;alert(1)" in html
    assert "past event 0 &lt;b&gt;" in html
    assert "8 hours ago" in html
    assert "6 days ago" in html
    assert "7.12 % to 9.53 %" in html
    assert [x.name for x in (tmp_path / "var").iterdir()] == ["report.html"]


def test_the_best_of_each_metric_is_bold_whoever_it_is() -> None:
    html = report.render(full())
    assert "<b>0.7012</b>" in html  # GAUC: seminar
    assert "<b>0.3090</b>" in html  # log loss: DIN
    assert "<b>0.3120</b>" not in html


def test_an_empty_run_is_said_in_words(tmp_path: Path) -> None:
    html = report.write(tmp_path, {}).read_text()
    assert html.count("not recorded in this run") >= 10
    assert "<picture>" not in html


def drop(facts: Any, keys: list[str]) -> Any:
    """The facts without one of them."""
    return {k: drop(v, keys[1:]) if k == keys[0] and keys[1:] else v for k, v in facts.items() if k != keys[0] or keys[1:]}


def paths(facts: Any, above: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The keys of every fact, to three levels."""
    if not isinstance(facts, dict) or len(above) == 3:
        return []
    return [p for k, v in facts.items() for p in ((*above, k), *paths(v, (*above, k)))]


def test_any_one_fact_may_be_missing_and_so_may_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)  # as where the extra is not installed
    assert report.render(full()).count("matplotlib is not installed") == 5
    for keys in paths(full()):
        assert "could not be shown" not in report.render(drop(full(), list(keys))), keys
    for key in full():
        assert "could not be shown" not in report.render({**full(), key: None}), key


def test_facts_of_another_form_cost_their_section_only() -> None:
    html = report.render({**full(), "stream": {"events": "many"}, "lengths": [1, None]})
    assert html.count("could not be shown") == 2
    assert "<b>0.7012</b>" in html


def test_results_from_made_up_queries_say_so() -> None:
    html = report.render(full())
    assert "search: the query is given (constructed queries)" in html
    assert "recommendation: no query (constructed queries)" not in html
