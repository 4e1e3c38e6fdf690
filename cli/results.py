"""The report's sections about training: losses, codebooks, methods side by side, calibration."""

from typing import Any

from cli import plots
from cli.page import Facts, Html, bold, missing, paragraph, part, table

NAMES = {
    "seminar": "SEMINAR",
    "din_full": "DIN, whole history",
    "din_recent": "DIN, newest 50",
    "popularity": "popularity",
    "own_frequency": "own item frequency",
    "trees": "trees over counters",
}
MODES = {"recommendation": "recommendation: no query", "search": "search: the query is given"}
OBJECTIVES = {"next_pair": "next pair", "alignment": "alignment", "relevance": "relevance"}
CURVES = ("SEMINAR", "DIN, whole history", "DIN, newest 50")
METRICS = (("gauc", "GAUC", max), ("ndcg10", "NDCG@10", max), ("logloss", "log loss", min))


def task(facts: Facts, dag: str, name: str) -> Any:
    """What a task of a DAG returned, or {}."""
    return part(facts, "training", dag, name) or {}


def seminar_method(facts: Facts) -> Facts | None:
    """Our own model's first row in the evaluation that has a GAUC."""
    rows = task(facts, "ctr", "evaluate").get("methods") or ()
    return next((x for x in rows if x.get("name") == "seminar" and x.get("gauc") is not None), None)


def losses(facts: Facts) -> Html:
    """Pretraining losses by objective, and the loss of fine-tuning."""
    found = task(facts, "psu", "pretrain").get("losses") or {}
    curves = {OBJECTIVES.get(name, name): values for name, values in found.items() if values}
    tuned = task(facts, "ctr", "finetune_seminar").get("losses")
    html = ""
    if not curves:
        html += missing("Losses of pretraining were")
    else:
        html += paragraph("Pretraining, objective by objective (before weighting), and fine-tuning on clicks.")
    if tuned:
        curves["fine-tuning"] = tuned
    if curves:
        html += plots.losses(curves)
        html += table(
            ["objective", "first epoch", "last epoch"],
            ((name, f"{values[0]:.4f}", f"{values[-1]:.4f}") for name, values in curves.items()),
            numbers=(1, 2),
        )
    labels = task(facts, "ctr", "finetune_seminar").get("labels")
    if labels:
        words = ", ".join(f"{v:,} {words_of(k)}" if isinstance(v, int) else f"{words_of(k)} {v}" for k, v in labels.items())
        html += paragraph(f"Labels of fine-tuning: {words}.", "note")
    return Html(html)


def codebooks(facts: Facts) -> Html:
    """Recall of the coded search on held-out users by the size of the codes."""
    built = task(facts, "codebooks", "build")
    rows = [x for x in built.get("recall") or () if x.get("recall") is not None]
    if not rows:
        return missing("Recall of the codebooks was")
    html = paragraph(
        "Share of the events that exact search retrieves and the search over codes finds too, for users whom the codebooks "
        "have never seen: by lookup tables alone, and with an exact rerank of what they found."
    )
    chosen = built.get("chosen") or {}
    cells = []
    for row in rows:
        is_chosen = bool(chosen) and all(row.get(key) == value for key, value in chosen.items())
        shown = [*(row.get(key) for key in ("item_bytes", "query_bytes", "bits")), figure(row.get("recall_scan"))]
        cells.append([*shown, figure(row["recall"]), "chosen" if is_chosen else ""])
    columns = ["bytes of an item", "bytes of a query", "bits in all", "recall, scan", "recall, reranked", ""]
    html = Html(html + table(columns, cells, range(5)))
    lines = {"scan and rerank": "recall", "scan alone": "recall_scan"}
    series = {}
    for name, key in lines.items():
        points = sorted((row["bits"], row[key]) for row in rows if row.get("bits") is not None and row.get(key) is not None)
        if points:
            series[name] = points
    return Html(html + plots.recall(series)) if series else html


def words_of(key: str) -> str:
    """A key as words."""
    return key.replace("_", " ")


def figure(value: float | None) -> str:
    """A metric to four places, or a dash."""
    return "–" if value is None else f"{value:.4f}"


def methods(facts: Facts) -> Html:
    """All methods on the same later events, the best of each metric in bold, whoever it is."""
    rows = [x for x in task(facts, "ctr", "evaluate").get("methods") or () if x.get("name")]
    if not rows:
        return missing("A comparison of methods was")
    modes = list(dict.fromkeys(row.get("mode") or "" for row in rows))
    lines: list[list[object]] = []
    for mode in modes:
        group = [row for row in rows if (row.get("mode") or "") == mode]
        best = {}
        for key, _, choose in METRICS:
            values = [row[key] for row in group if row.get(key) is not None]
            best[key] = choose(values) if len(values) > 1 else None
        if len(modes) > 1:
            lines.append([MODES.get(mode, mode or "all") + constructed(group)])
        for row in group:
            line: list[object] = [NAMES.get(row["name"], row["name"])]
            for key, _, _ in METRICS:
                value = row.get(key)
                line.append(bold(figure(value)) if value is not None and value == best[key] else figure(value))
                if key == "gauc":
                    line.append(interval(row))
            lines.append(line)
    columns = ["method", "GAUC", "95 % interval", "NDCG@10", "log loss"]
    note = (
        "Best in bold, whoever it is. Every method scores the same later events with the same candidates "
        "(recommendation: 99 sampled ones, so no figure compares with full ranking; search: all items of the type); "
        "intervals are bootstrapped over users, and overlapping ones decide little. "
        "Log loss is that of later impressions, each method's scores calibrated on the impressions before them."
    )
    return Html(table(columns, lines, numbers=(1, 2, 3, 4)) + paragraph(note, "note"))


def constructed(rows: list[Facts]) -> str:
    """A word of caution where the data set's queries were made up."""
    return " (constructed queries)" if any(row.get("queries") == "constructed queries" for row in rows) else ""


def interval(row: Facts) -> str:
    """The interval of GAUC."""
    low, high = row.get("gauc_lo"), row.get("gauc_hi")
    return "–" if low is None or high is None else f"{low:.4f} to {high:.4f}"


def calibration(facts: Facts) -> Html:
    """Observed against predicted rates by decile of the prediction."""
    series = {}
    found: Facts = task(facts, "ctr", "evaluate").get("calibration") or {}
    for name, bins in found.items():
        points = [(x["predicted"], x["observed"]) for x in (bins or {}).get("deciles", ()) if x.get("n", 1)]
        if points:
            series[NAMES.get(name, name)] = points
    if not series:
        return missing("Calibration was")
    html = paragraph("Predicted against observed click rate on later impressions, by decile of the prediction.")
    ratios = [
        (NAMES.get(name, name), figure(x.get("predicted_to_observed")), figure(x.get("slope")))
        for name, x in found.items()
        if x
    ]
    html = Html(html + plots.calibration({name: series[name] for name in series if name in CURVES} or series))
    return Html(html + table(["method", "predicted / observed", "slope of log-odds"], ratios, numbers=(1, 2)))
