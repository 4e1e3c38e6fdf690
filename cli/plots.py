"""Plots as HTML: each drawn twice, for light and for dark, as PNG data that the page carries in itself.

matplotlib is an extra: where it is missing, a sentence stands in a plot's place.
"""

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any


@dataclass(frozen=True)
class Theme:
    """Colours of one appearance; `series` are told apart by lightness as well as by hue."""

    ink: str
    faint: str
    grid: str
    paper: str
    series: tuple[str, ...]


LIGHT = Theme("#1f2430", "#6b7280", "#e3e6eb", "#ffffff", ("#2563a8", "#d9822b", "#3f8f5f", "#8a5aa8", "#8b8f98"))
DARK = Theme("#e6e8ec", "#9aa1ad", "#333944", "#171a20", ("#7fb2ea", "#f0aa63", "#80c79c", "#c29be0", "#a5aab4"))

PIXELS = 112
"""Pixels of the page to an inch of a plot; drawn finer, for dense screens."""

Draw = Callable[[Any, Theme], None]


def picture(draw: Draw, alt: str, width: float = 7.2, height: float = 3.0, panels: int = 1) -> str:
    """A `<picture>` of what `draw(axes, theme)` draws (axes: one, or a list where panels > 1), in inches."""
    try:
        dark, light = (_png(draw, theme, width, height, panels) for theme in (DARK, LIGHT))
    except ImportError:
        return '<p class="missing">No picture: matplotlib is not installed (it comes with the extra "demo").</p>'
    return (
        f'<div class="scroll"><picture><source media="(prefers-color-scheme: dark)" srcset="{dark}">'
        f'<img src="{light}" alt="{escape(alt)}" width="{width * PIXELS:.0f}"></picture></div>'
    )


def _png(draw: Draw, theme: Theme, width: float, height: float, panels: int) -> str:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, layout="constrained", facecolor=theme.paper)
    FigureCanvasAgg(figure)  # this figure only: pyplot's global state and backend stay as they are
    grid = [figure.add_subplot(1, panels, index + 1) for index in range(panels)]
    for axes in grid:
        axes.set_facecolor(theme.paper)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(theme.grid)
        axes.tick_params(colors=theme.faint, labelsize=8, length=0, which="both")
        axes.grid(color=theme.grid, linewidth=0.7)
        axes.set_axisbelow(True)
        for label in (axes.xaxis.label, axes.yaxis.label):
            label.set_color(theme.ink)
            label.set_fontsize(9)
    draw(grid if panels > 1 else grid[0], theme)
    target = io.BytesIO()
    figure.savefig(target, format="png", facecolor=theme.paper)
    return "data:image/png;base64," + base64.b64encode(target.getvalue()).decode()


def _legend(axes: Any, theme: Theme) -> None:
    axes.legend(frameon=False, fontsize=8, labelcolor=theme.ink)


def lengths(values: Sequence[int]) -> str:
    """A histogram of history lengths, in events."""

    def draw(axes: Any, theme: Theme) -> None:
        low, high = max(min(values), 1), max(*values, 2)
        edges = [low * (high * 1.001 / low) ** (step / 30) for step in range(31)] if high > 30 * low else 30
        axes.hist([max(x, 1) for x in values], bins=edges, color=theme.series[0], edgecolor=theme.paper, linewidth=0.5)
        if not isinstance(edges, int):
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
            axes.xaxis.set_minor_formatter(lambda x, _: "")
        axes.set_xlabel("events in a user's history")
        axes.set_ylabel("users")

    return picture(draw, "Histogram of history lengths")


def losses(curves: Mapping[str, Sequence[float]]) -> str:
    """One panel a curve (loss by epoch): their scales have nothing in common."""

    def draw(grid: Any, theme: Theme) -> None:
        panels = grid if isinstance(grid, list) else [grid]
        for axes, (name, values) in zip(panels, curves.items(), strict=True):
            axes.plot(range(1, len(values) + 1), values, color=theme.series[0], marker="o", markersize=3.5)
            axes.set_title(name, fontsize=9, color=theme.ink)
            axes.set_xlabel("epoch")
            axes.set_xticks(range(1, len(values) + 1, max(1, len(values) // 6)))
            axes.margins(y=0.2)
        panels[0].set_ylabel("mean loss")

    return picture(draw, "Losses by epoch: " + ", ".join(curves), height=2.5, panels=len(curves))


def recall(series: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Recall of codebooks by their size in bits, a line each way of searching."""

    def draw(axes: Any, theme: Theme) -> None:
        for index, (name, points) in enumerate(series.items()):
            axes.plot(*zip(*points, strict=True), color=theme.series[index], marker="o", markersize=5, label=name)
            for x, y in points:
                # Below and to the right: recall rises with the size, so that is where its line does not run.
                axes.annotate(f"{y:.3f}", (x, y), (7, -11), textcoords="offset points", fontsize=8, color=theme.ink)
        axes.set_xticks(sorted({x for points in series.values() for x, _ in points}))
        axes.set_xlabel("bits of codes an event (item and query)")
        axes.set_ylabel("recall against exact search")
        axes.margins(x=0.1, y=0.2)
        _legend(axes, theme)

    return picture(draw, "Recall of the codebooks by size")


def calibration(series: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Observed against predicted click rate, one point a decile of the prediction."""

    def draw(axes: Any, theme: Theme) -> None:
        top = max(max(point) for points in series.values() for point in points) * 1.08
        axes.plot([0, top], [0, top], color=theme.faint, linestyle="--", linewidth=1, label="perfect")
        for index, (name, points) in enumerate(series.items()):
            colour = theme.series[index % len(theme.series)]
            axes.plot(*zip(*points, strict=True), color=colour, marker="o", markersize=4, linewidth=1.2, label=name)
        axes.set_xlim(0, top)
        axes.set_ylim(0, top)
        axes.set_xlabel("predicted rate")
        axes.set_ylabel("observed rate")
        _legend(axes, theme)

    return picture(draw, "Calibration: observed against predicted rate by decile", width=5.4, height=4.0)


def latency(stages: Mapping[str, Mapping[str, float]]) -> str:
    """p50 and p99 of each stage, in ms."""

    def draw(axes: Any, theme: Theme) -> None:
        names = list(stages)[::-1]
        for shift, key, colour in ((0.19, "p50_ms", theme.series[0]), (-0.19, "p99_ms", theme.series[1])):
            values = [stages[name].get(key) or 0.0 for name in names]
            places = [index + shift for index in range(len(names))]
            axes.barh(places, values, height=0.34, color=colour, label=key.removesuffix("_ms"))
        axes.set_yticks(range(len(names)), names)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("ms")
        _legend(axes, theme)

    return picture(draw, "Latency by stage", height=0.9 + 0.42 * len(stages))
