from pathlib import Path
from typing import Any

from benchmarks.harness.suite_report import plot, table


def a_row(name: str, init: str, gauc: float, mode: str = "search") -> dict[str, Any]:
    row: dict[str, Any] = {"name": name, "init": init, "mode": mode}
    for metric in ("gauc", "ndcg10"):
        row |= {metric: gauc, f"{metric}_lo": gauc - 0.01, f"{metric}_hi": gauc + 0.01}
        row |= {f"diff_{metric}": 0.8 - gauc, f"diff_{metric}_lo": 0.79 - gauc, f"diff_{metric}_hi": 0.81 - gauc}
    return row


def test_the_best_comes_first_and_ours_is_compared_with_each(tmp_path: Path) -> None:
    rows = [a_row("seminar", "psu", 0.8), a_row("twin", "scratch", 0.85), a_row("trees", "scratch", 0.7)]
    first, second, last = table([*rows, a_row("twin", "psu", 0.9, "recommendation")], "search").splitlines()[2:]
    assert first == (
        "| twin, from scratch | 0.8500 (0.840 to 0.860) | 0.8500 (0.840 to 0.860) "
        "| -0.0500 (-0.0600 to -0.0400) | -0.0500 (-0.0600 to -0.0400) |"
    )
    assert second.startswith("| seminar, restored | 0.8000")
    assert last.startswith("| trees | ")
    plot(rows, tmp_path / "peers.png")
    assert (tmp_path / "peers.png").stat().st_size > 1000
