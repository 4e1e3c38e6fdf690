"""The report of a run: one self-contained page, rendered from plain facts. What is missing is said in words.

The facts (JSON-able; the demo keeps them as `<home>/report.json`), every key optional:

    notice, started (RFC 3339), households, dates {"past", "t1", "t2", "t3", "end"}: the data, and how time is cut
    import     {"events", "seconds", "events_per_s"}
    lengths    [events in a user's history, one number a user]
    stream     {"events", "seconds", "events_per_s", "dead_letters": [{"field", "value", "reason", "origin"}],
                "parity": {"users", "equal", "missing", "extra", "edit_distance"}}
    training   {dag: what `cli.airflow.run` returned, by task}; of it are shown
                 psu.pretrain      {"version", "losses": {objective: [mean by epoch]}, "seconds", "data"}
                 codebooks.build   {"version", "recall": [{"item_bytes", "query_bytes", "bits", "recall", "recall_scan"}],
                                    "chosen": one of these}
                 ctr.pin           {"windows": {"t1", "t2", "t3", "end"} ms}
                 ctr.finetune_*    {"losses": [by epoch], "labels"}
                 ctr.evaluate      {"methods": [{"name", "mode", "gauc", "gauc_lo", "gauc_hi", "ndcg10", "logloss"}],
                                    "calibration": {method: {"deciles": [{"predicted", "observed", "n"}],
                                                             "predicted_to_observed", "slope"} or None}}
                 ctr.export        {"version"};   ctr.gate  {"checks": [{"name", "value", "limit", "at", "passed"}]}
    scoring    {"latency": {stage: {"p50_ms", "p99_ms"}}, "requests", "candidates", "history",
                "explained": {"user", "query", "item_id", "title", "rate", "retrieved": [{"what", "kind", "age_s",
                              "attention"}], the greatest attention first},
                "change": {"user", "item_id", "title", "before", "after", "events"}}
    versions   {name: version}       machine  {name: value}       stages_s {stage: seconds}, wall_s, peak_mb
"""

import os
import uuid
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

from cli import plots
from cli.answers import explained, latency, milliseconds
from cli.page import Facts, Html, bold, document, missing, pairs, paragraph, part, table, text, tiles
from cli.results import calibration, codebooks, losses, methods, seminar_method

TITLE = "SEMINAR: from an event to a score"


def write(home: Path, facts: Facts) -> Path:
    """Render `<home>/report.html`, replacing a former one atomically; its path."""
    home.mkdir(parents=True, exist_ok=True)
    page, aside = home / "report.html", home / f".report-{uuid.uuid4().hex}.tmp"
    try:
        aside.write_text(render(facts), encoding="utf-8")
        os.replace(aside, page)
    finally:
        aside.unlink(missing_ok=True)
    return page


def render(facts: Facts) -> str:
    """The page as HTML."""
    sections: list[tuple[str, Callable[[Facts], Html]]] = [
        ("The data", data),
        ("How long histories are", lengths),
        ("The stream", stream),
        ("What training minimised", losses),
        ("Codebooks", codebooks),
        ("Against other methods", methods),
        ("Calibration", calibration),
        ("Latency", latency),
        ("One score, explained", explained),
        ("Versions and lineage", lineage),
        ("This machine", machine),
    ]
    facts = {name: value for name, value in facts.items() if value is not None}
    return document(
        TITLE, lead(facts), headline(facts), [(name, guarded(name, section, facts)) for name, section in sections]
    )


def guarded(name: str, section: Callable[[Facts], Html], facts: Facts) -> Html:
    """A section, or a sentence where the facts are not of the form that it expects: the rest of the page is worth having."""
    try:
        return section(facts)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        return paragraph(f"{name} could not be shown ({type(error).__name__}: {error}).", "missing")


def lead(facts: Facts) -> str:
    """When it ran, on what, for how long."""
    started, wall = facts.get("started"), facts.get("wall_s")
    when = f"{datetime.fromisoformat(started):%-d %B %Y, %H:%M %Z}" if started else "At a time not recorded"
    users = f"{facts['households']:,} households" if facts.get("households") else "users"
    took = f" The whole run took {wall / 60:.1f} minutes." if wall else ""
    return f"{when}. Purchase histories of {users}: imported, streamed, trained upon, served.{took}"


def headline(facts: Facts) -> Html:
    """The figures that most people look for."""
    method = seminar_method(facts)
    shown = [
        (method and f"{method['gauc']:.3f}", "GAUC on later events"),
        (part(facts, "stream", "events_per_s"), "events a second through the consumer"),
        (part(facts, "stream", "parity", "edit_distance"), "records by which online and history differ"),
        (milliseconds(part(facts, "scoring", "latency", "http", "p50_ms")), "for a request over HTTP, p50"),
    ]
    return tiles((value, name) for value, name in shown if value is not None)


def data(facts: Facts) -> Html:
    """The notice of the data's owner, what was imported, how time is cut."""
    html = (
        f"<blockquote>{paragraph(facts['notice'])}</blockquote>" if facts.get("notice") else missing("The data's notice was")
    )
    imported = part(facts, "import")
    if part(imported, "events") is not None:
        took = f" in {imported['seconds']:.1f} s" if imported.get("seconds") else ""
        html += paragraph(f"{imported['events']:,} events of the past were imported in bulk{took}.")
    dates = facts.get("dates")
    if dates:
        html += paragraph("Time is cut so that nothing sees what comes after it:")
        words = {
            "past": "history begins",
            "t1": "pretraining ends, fine-tuning begins",
            "t2": "fine-tuning ends, validation begins",
            "t3": "validation ends, test begins",
            "end": "test ends",
        }
        html += table(["from", ""], ((dates[key], words[key]) for key in words if key in dates))
    return Html(html)


def lengths(facts: Facts) -> Html:
    """A histogram and its quantiles."""
    values = sorted(facts.get("lengths") or ())
    if not values:
        return missing("History lengths were")
    quantile = [values[min(int(share * len(values)), len(values) - 1)] for share in (0.1, 0.5, 0.9)]
    return Html(
        paragraph(
            f"{len(values):,} users, {sum(values):,} events. Half of the users have {quantile[1]:,} or more; "
            f"one in ten at most {quantile[0]:,}, one in ten {quantile[2]:,} or more; the longest has {values[-1]:,}."
        )
        + plots.lengths(values)
    )


def stream(facts: Facts) -> Html:
    """Throughput, parity, dead letters."""
    found = facts.get("stream")
    if not found:
        return missing("The stream was")
    html = ""
    if found.get("events") is not None:
        rate = f", {found['events_per_s']:,.0f} a second" if found.get("events_per_s") else ""
        took = f" in {found['seconds']:.1f} s" if found.get("seconds") else ""
        html += paragraph(
            f"{found['events']:,} events went through Kafka and the consumer{took}{rate}: to history, then to the "
            "users' online sequences, then the offsets were committed."
        )
    parity = found.get("parity")
    if parity:
        users, equal, distance = (parity.get(key) for key in ("users", "equal", "edit_distance"))
        agree = '<b class="good">They agree exactly.</b>' if distance == 0 else '<b class="bad">They do not agree.</b>'
        html += paragraph(
            Html(
                f"Online sequences and history were compared. Users: {text(users)}; equal byte for byte: {text(equal)}; "
                f"edit distance, in records: {text(distance)}. {agree}"
            )
        )
    else:
        html += missing("A comparison of online sequences with history was")
    letters = found.get("dead_letters")
    if letters is None:
        return Html(html + missing("Dead letters were"))
    html += "<h3>Dead letters</h3>" + paragraph(f"{len(letters):,} events were refused, each with its reason.")
    if letters:
        rows = [[letter.get(key) or "" for key in ("field", "value", "reason", "origin")] for letter in letters[:20]]
        html += table(["field", "value", "reason", "origin"], [[clip(cell) for cell in row] for row in rows])
    return Html(html)


def clip(value: object, size: int = 80) -> str:
    """Text of at most `size` characters."""
    words = str(value)
    return words if len(words) <= size else words[: size - 1] + "…"


def lineage(facts: Facts) -> Html:
    """Which versions came of which, and how the gate judged them."""
    training = facts.get("training") or {}
    windows = part(training, "ctr", "pin", "windows") or {}
    cuts = [f"{name} {datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d}" for name, ms in windows.items()]
    rows = [
        ("bundle", part(training, "ctr", "export", "version")),
        ("built from codebooks", part(training, "codebooks", "build", "version")),
        ("built for PSU", part(training, "psu", "pretrain", "version")),
        ("on history cut at", ", ".join(cuts) or None),
        *(facts.get("versions") or {}).items(),
    ]
    known: list[tuple[str, object]] = [(name, value) for name, value in rows if value is not None]
    html = pairs(known) if known else missing("Versions were")
    checks = part(training, "ctr", "gate", "checks")
    if checks:
        html = Html(html + "<h3>The gate</h3>" + table(["check", "value", "limit", ""], map(verdict, checks), numbers=(1,)))
    return html


def verdict(check: Facts) -> tuple[object, ...]:
    """A row of the gate's table."""
    limit = f"at {check['at']} {check['limit']}" if check.get("at") else check.get("limit")
    outcome = Html('<span class="good">passed</span>' if check.get("passed") else '<b class="bad">failed</b>')
    return check.get("name"), check.get("value"), limit, outcome


def machine(facts: Facts) -> Html:
    """Where the time and the memory went."""
    known: Iterable[tuple[str, object]] = [(str(k), v) for k, v in (facts.get("machine") or {}).items()]
    html = pairs(known) if known else missing("The machine was")
    spent = facts.get("stages_s") or {}
    if spent:
        html = Html(
            html + "<h3>Stages</h3>" + table(["stage", "seconds"], ((n, f"{s:.1f}") for n, s in spent.items()), (1,))
        )
    if facts.get("wall_s"):
        html = Html(html + paragraph(Html(f"In all {bold(round(facts['wall_s']))} seconds.")))
    if facts.get("peak_mb"):
        html = Html(html + paragraph(Html(f"Most memory at once, all processes: {bold(round(facts['peak_mb']))} MB.")))
    return html
