"""A table and a plot of what `seminar evaluate --suite ... --json` printed.

seminar evaluate --suite peers --json | tail -1 > peers.json
python -m benchmarks.harness.suite_report peers.json docs/images/peers.png
"""

import json
import sys
from pathlib import Path
from typing import Any

from model.train.suites import TRIVIAL

Row = dict[str, Any]
WORDS = {"psu": "restored", "scratch": "from scratch"}
METRICS = {"gauc": "GAUC", "ndcg10": "NDCG@10"}


def table(rows: list[Row], mode: str) -> str:
    """Markdown of one mode, the best GAUC first: figures with intervals, and ours minus each with the same."""
    mine = sorted((row for row in rows if row["mode"] == mode), key=lambda row: -row["gauc"])
    lines = ["| method | GAUC | NDCG@10 | ours minus it, GAUC | ours minus it, NDCG@10 |", "|---|---|---|---|---|"]
    for row in mine:
        cells = [named(row)]
        for metric in METRICS:
            cells.append(f"{row[metric]:.4f} ({row[f'{metric}_lo']:.3f} to {row[f'{metric}_hi']:.3f})")
        for metric in METRICS:
            low, high = row[f"diff_{metric}_lo"], row[f"diff_{metric}_hi"]
            cells.append(f"{row[f'diff_{metric}']:+.4f} ({low:+.4f} to {high:+.4f})")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def catalogue(rows: list[Row]) -> str:
    """Markdown of NDCG@10 among all items on sale, the best first, of those that were ranked so; empty where none was."""
    mine = sorted((row for row in rows if "catalogue_ndcg10" in row), key=lambda row: -row["catalogue_ndcg10"])
    lines = ["| method | NDCG@10 among all items | ours minus it |", "|---|---|---|"] if mine else []
    for row in mine:
        value, low, high = (row[f"catalogue_ndcg10{end}"] for end in ("", "_lo", "_hi"))
        less, least, most = (row[f"diff_catalogue_ndcg10{end}"] for end in ("", "_lo", "_hi"))
        lines.append(f"| {named(row)} | {value:.4f} ({low:.3f} to {high:.3f}) | {less:+.4f} ({least:+.4f} to {most:+.4f}) |")
    return "\n".join(lines)


def named(row: Row) -> str:
    """What a row is called: methods without a sequence model have no initialisation."""
    return str(row["name"]) if row["name"] in TRIVIAL else f"{row['name']}, {WORDS[row['init']]}"


def plot(rows: list[Row], file: Path) -> None:
    """Ours minus each method with its interval, a panel a mode and metric: right of zero, ours is ahead."""
    from matplotlib.figure import Figure

    modes = list(dict.fromkeys(row["mode"] for row in rows))
    count = max(sum(row["mode"] == mode for row in rows) for mode in modes)
    figure = Figure((10, 2 * (1 + 0.19 * count)), dpi=80, layout="constrained")
    panels = figure.subplots(len(METRICS), len(modes), squeeze=False)
    for (metric, called), line in zip(METRICS.items(), panels, strict=True):
        for axes, mode in zip(line, modes, strict=True):
            mine = sorted((row for row in rows if row["mode"] == mode), key=lambda row: row[metric])
            for place, row in enumerate(mine):
                low, high = row[f"diff_{metric}_lo"], row[f"diff_{metric}_hi"]
                axes.plot([low, high], [place, place], color="C0", linewidth=2)
                axes.plot(row[f"diff_{metric}"], place, "o", color="C0", markersize=4)
            axes.axvline(0, color="0.5", linewidth=0.8)
            axes.set_yticks(range(len(mine)), [named(row) for row in mine], fontsize=7)
            axes.set_title(f"{mode}: ours minus it, {called}", fontsize=9)
            axes.set_xscale("symlog", linthresh=0.01)
            axes.grid(alpha=0.3)
    figure.savefig(file)


def main() -> None:
    """Print the tables of a result and draw its plot."""
    rows = json.loads(Path(sys.argv[1]).read_text().strip().splitlines()[-1])["methods"]
    for mode in dict.fromkeys(row["mode"] for row in rows):
        print(f"\n### {mode}\n\n{table(rows, mode)}")
    print(f"\n{catalogue(rows)}")
    plot(rows, Path(sys.argv[2]))


if __name__ == "__main__":
    main()
