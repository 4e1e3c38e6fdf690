"""Tables and a plot of what `seminar bench search --json` printed.

seminar bench search --json | tail -1 > search.json
python -m benchmarks.harness.search_report search.json docs/images/search.png
"""

import json
import sys
from pathlib import Path
from typing import Any

Case = dict[str, Any]


def table(cases: list[Case], keys: str, dim: int) -> str:
    """Markdown: milliseconds (recall) by method, a row a size."""
    mine = [case for case in cases if (case["keys"], case["dim"]) == (keys, dim)]
    methods = list(dict.fromkeys(case["method"] for case in mine))
    sizes = list(dict.fromkeys((case["length"], case["candidates"]) for case in mine))
    lines = [f"| length x candidates | {' | '.join(methods)} | ours vs exact fp32 | vs fastest exact |"]
    lines.append("|" + "---|" * (len(methods) + 3))
    for size in sizes:
        found = {case["method"]: case for case in mine if (case["length"], case["candidates"]) == size}
        cells = [f"{found[m]['ms']:.3g} ({found[m]['recall']:.3f})" for m in methods]
        ratios = [f"{found['ours'][name]:.1f}" for name in ("speedup_vs_exact", "speedup_vs_fastest_exact")]
        lines.append(f"| {size[0]:,} x {size[1]} | {' | '.join(cells + ratios)} |")
    return "\n".join(lines)


def plot(cases: list[Case], file: Path) -> None:
    """Recall against time at 10,000 and 100,000 x 100, one point a method; its size is the bytes of an item beside fp32."""
    from matplotlib.figure import Figure

    wanted = [("hard", 256, 10_000), ("hard", 256, 100_000), ("trained", 64, 100_000)]
    figure = Figure((10, 3.4), dpi=80, layout="constrained")
    for axes, (keys, dim, length) in zip(figure.subplots(1, 3), wanted, strict=True):
        for case in cases:
            if (case["keys"], case["dim"], case["length"], case["candidates"]) == (keys, dim, length, 100):
                axes.scatter(case["ms"], case["recall"], 20 + case["bytes_per_item"], alpha=0.7)
                axes.annotate(case["method"], (case["ms"], case["recall"]), (0, 5), textcoords="offset points", fontsize=6)
        axes.set_xscale("log")
        axes.set_title(f"{keys} keys, {dim} dims, {length:,} x 100", fontsize=9)
        axes.set_xlabel("ms")
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("recall@100")
    figure.savefig(file)


def main() -> None:
    """Print the tables of a result and draw its plot."""
    cases = json.loads(Path(sys.argv[1]).read_text().strip().splitlines()[-1])["cases"]
    for keys, dim in dict.fromkeys((case["keys"], case["dim"]) for case in cases):
        print(f"\n### {keys} keys, {dim} dims\n\n{table(cases, keys, dim)}")
    plot(cases, Path(sys.argv[2]))


if __name__ == "__main__":
    main()
