"""A page of the newest health report, with every check over the last reports, the last DAG runs, refused dates and alerts.

`<home>/reports/health.html`, one file that needs nothing else. Plots are made where matplotlib is installed.
"""

import base64
import html
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from features import alerts, journal

_STYLE = """body{font:14px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem}
body{color:#222;background:#fff}
h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem}table{border-collapse:collapse;width:100%}
td,th{text-align:left;padding:.2rem .6rem;border-bottom:1px solid #ddd;vertical-align:top}.bad{color:#b00020;font-weight:600}
.good{color:#1b5e20}.none{color:#777}img{max-width:100%}
@media(prefers-color-scheme:dark){body{color:#ddd;background:#151515}td,th{border-color:#333}.bad{color:#ff8a80}
.good{color:#81c784}.none{color:#999}img{background:#fff}}"""


def write(home: Path, reports: Sequence[Mapping[str, Any]], runs: int = 40) -> Path:
    """Write the page from health reports (oldest first); its file."""
    newest = reports[-1]
    parts = [
        f"<h1>SEMINAR health: {_state(newest['passed'])}</h1><p>Looked at {html.escape(newest['looked'])}.</p>",
        *(_section(name, section) for name, section in newest["sections"].items()),
        "<h2>Over the last reports</h2>",
        _plots(reports),
        "<h2>Last DAG runs</h2>",
        _table(["ended", "DAG", "state", "seconds", "tasks", "what failed"], [_run(x) for x in journal.runs(home, runs)]),
        "<h2>Last alerts</h2>",
        _table(["time", "what", "DAG", "task", "error"], [_alert(x) for x in alerts.recent(home, 20)]),
    ]
    file = home / "reports" / "health.html"
    aside = file.with_suffix(".tmp")
    aside.write_text(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>SEMINAR health</title><style>{_STYLE}</style>'
        + "".join(parts)
        + "</html>"
    )
    os.replace(aside, file)
    return file


def _state(passed: bool) -> str:
    return '<span class="good">good</span>' if passed else '<span class="bad">look here</span>'


def _section(name: str, section: Mapping[str, Any]) -> str:
    rows = [
        [
            html.escape(x["name"]),
            _number(x["value"]),
            f"at {x['at']} {_number(x['limit'])}",
            f'<span class="none">not applicable: {html.escape(x["why"])}</span>' if x["why"] else _state(x["passed"]),
        ]
        for x in section["checks"]
    ]
    return f"<h2>{html.escape(name.replace('_', ' '))}</h2>" + _table(["check", "value", "limit", ""], rows)


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:,.4g}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    if not body:
        return '<p class="none">None yet.</p>'
    return "<table><tr>" + "".join(f"<th>{html.escape(name)}</th>" for name in head) + f"</tr>{body}</table>"


def _run(run: Mapping[str, Any]) -> list[str]:
    bad = [f"{x['task']}: {x['error']}" for x in run["tasks"] if x["state"] == "failed"]
    words = html.escape("; ".join(bad)[:300])
    state = _state(True) if run["state"] == "success" else '<span class="bad">failed</span>'
    return [run["ended"][:19], html.escape(run["dag"]), state, f"{run['seconds']:,.0f}", str(len(run["tasks"])), words]


def _alert(alert: Mapping[str, Any]) -> list[str]:
    return [html.escape(str(alert.get(name) or ""))[:300] for name in ("time", "what", "dag", "task", "error")]


def _plots(reports: Sequence[Mapping[str, Any]]) -> str:
    """Small multiples of the checks that ever had a value, each with its limit."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return '<p class="none">No plots: matplotlib is not installed (pip install "seminar[demo]").</p>'
    series: dict[str, list[tuple[datetime, float, float]]] = {}
    for report in reports:
        when = datetime.fromisoformat(report["looked"])
        for section in report["sections"].values():
            for x in section["checks"]:
                if x["value"] is not None:
                    series.setdefault(x["name"], []).append((when, x["value"], x["limit"]))
    if not series:
        return '<p class="none">No check has had a value yet.</p>'
    columns = 4
    rows = -(-len(series) // columns)
    figure = Figure(figsize=(12, 2 * rows), layout="constrained")
    for place, (name, points) in enumerate(series.items(), 1):
        axes = figure.add_subplot(rows, columns, place)
        times, values, limits = zip(*points, strict=True)
        axes.plot(times, values, marker="o", markersize=3, linewidth=1)
        axes.plot(times, limits, linestyle="--", linewidth=0.8, color="tab:red")
        axes.set_title(name, fontsize=9)
        axes.tick_params(labelsize=6)
        axes.tick_params(axis="x", labelrotation=30)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90)
    picture = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="Each check over the last reports, its limit dashed" src="data:image/png;base64,{picture}">'
