from pathlib import Path
from typing import Any

from benchmarks.harness.suite_report import catalogue, plot, table


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


def test_what_was_ranked_among_all_items_has_a_table() -> None:
    rows = [a_row(name, "psu", 0.8) for name in ("twin", "seminar", "eta")]
    for row, value in zip(rows, (0.1, 0.2), strict=False):
        row |= {f"catalogue_ndcg10{end}": value + more for end, more in (("", 0.0), ("_lo", -0.01), ("_hi", 0.01))}
        row |= {
            f"diff_catalogue_ndcg10{end}": 0.2 - value + more for end, more in (("", 0.0), ("_lo", -0.01), ("_hi", 0.01))
        }
    assert catalogue(rows).splitlines()[2:] == [
        "| seminar, restored | 0.2000 (0.190 to 0.210) | +0.0000 (-0.0100 to +0.0100) |",
        "| twin, restored | 0.1000 (0.090 to 0.110) | +0.1000 (+0.0900 to +0.1100) |",
    ]
    assert catalogue(rows[2:]) == ""
