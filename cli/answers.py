"""The report's sections about scoring: latency by stage, one score explained, a score that follows new events."""

from cli import plots
from cli.page import Facts, Html, missing, pairs, paragraph, part, table

SHOWN = 20


def latency(facts: Facts) -> Html:
    """p50 and p99 of every stage of a request."""
    stages: dict[str, Facts] = part(facts, "scoring", "latency")
    if not stages:
        return missing("Latency was")
    known = ("requests", "requests"), ("candidates", "candidates each"), ("history", "events in the user's history")
    counted = [f"{facts['scoring'][key]:,} {name}" for key, name in known if part(facts, "scoring", key)]
    rows = [(name, milliseconds(x.get("p50_ms")), milliseconds(x.get("p99_ms"))) for name, x in stages.items()]
    html = paragraph("Over HTTP, on the machine below" + (": " if counted else "") + ", ".join(counted) + ".")
    return Html(html + table(["stage", "p50", "p99"], rows, numbers=(1, 2)) + plots.latency(stages))


def explained(facts: Facts) -> Html:
    """Which past behaviours the first candidate retrieved, and how a score followed new events."""
    found, change = part(facts, "scoring", "explained"), part(facts, "scoring", "change")
    html = ""
    if not found:
        html += missing("An explained score was")
    else:
        item = " · ".join(str(found[key]) for key in ("title", "item_id") if found.get(key)) or None
        html += pairs(
            [
                ("user", found.get("user")),
                ("query", found.get("query") or "none"),
                ("first candidate", item),
                ("click-through rate", rate(found.get("rate"))),
            ]
        )
        html += retrieved(found)
    if change:
        what = change.get("title") or change.get("item_id")
        html += "<h3>The score follows the events</h3>" + paragraph(
            f"{change.get('events', 'More')} new events of user {change.get('user')} were streamed while the scorer ran: "
            f"the rate of {what} went from {rate(change.get('before'))} to {rate(change.get('after'))}, with no restart."
        )
    return Html(html)


def retrieved(found: Facts) -> Html:
    """The past searches and browses with the greatest attention."""
    past = sorted(found.get("retrieved") or (), key=lambda x: -(x.get("attention") or 0.0))[:SHOWN]
    if not past:
        return paragraph("Nothing of the user's past was retrieved for it.", "missing")
    most = max(x.get("attention") or 0.0 for x in past) or 1.0
    rows = []
    for event in past:
        weight = event.get("attention") or 0.0
        bar = Html(f'<span class="bar" style="width:{4.5 * weight / most:.2f}rem"></span>{100 * weight:.1f} %')
        rows.append((event.get("what") or "an item no longer known", event.get("kind") or "", ago(event.get("age_s")), bar))
    words = "Of the past searches and browses that it retrieved, those with the greatest attention, mean over the heads:"
    return Html(paragraph(words) + table(["what", "", "when", "attention"], rows))


def rate(value: float | None) -> str:
    """A click-through rate in percent."""
    return "not measured" if value is None else f"{100 * value:.2f} %"


def milliseconds(value: float | None) -> str | None:
    """A latency for people."""
    return None if value is None else f"{value:.1f} ms" if value < 100 else f"{value:,.0f} ms"


def ago(seconds: float | None) -> str:
    """An age in the largest unit that fits."""
    if seconds is None:
        return "at a time not recorded"
    for unit, size in (("day", 86_400), ("hour", 3600), ("minute", 60)):
        if seconds >= size:
            count = round(seconds / size)
            return f"{count:,} {unit}{'s' if count != 1 else ''} ago"
    return "just now"
