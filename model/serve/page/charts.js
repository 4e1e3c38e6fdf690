// Charts by uPlot, in the page's colours, as wide as their place; drawn again when the appearance changes.
import { h } from "./dom.js";
import uPlot from "./uPlot.esm.js";

const HEIGHT = 210;
const dark = matchMedia("(prefers-color-scheme: dark)");
export const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

/** uPlot in an element. options(): uPlot's, made anew for each appearance; the chart is `holder.chart`. */
export function plot(holder, options, data) {
  holder.classList.add("chart");
  const draw = () => {
    const range = holder.chart?.scales.x;
    holder.chart?.destroy();
    holder.chart = new uPlot({ width: Math.max(holder.clientWidth, 240), height: HEIGHT, ...options() }, data(), holder);
    if (range?.min != null && holder.zoom) holder.zoom(range.min, range.max);
  };
  requestAnimationFrame(draw);
  dark.addEventListener("change", () => holder.isConnected && draw());
  new ResizeObserver(() =>
    holder.chart?.setSize({ width: Math.max(holder.clientWidth, 240), height: holder.chart.height }),
  ).observe(holder);
  return holder;
}

export function axis(label, more = {}) {
  const line = { stroke: colour("line"), width: 1 };
  return {
    label: label || null,
    stroke: colour("faint"),
    grid: line,
    ticks: line,
    labelSize: 20,
    font: "12px system-ui",
    labelFont: "12px system-ui",
    ...more,
  };
}

export const utc = { ms: 1, tzDate: (ms) => uPlot.tzDate(new Date(ms), "Etc/UTC") };
export const bars = (size) => uPlot.paths.bars({ size });

const COLOURS = ["two", "one", "four", "five", "three"];

/** Lines over a number: series is [{name, points: [[x, y]]}]; whole: x has whole numbers only; diagonal: y = x beside them. */
export function lines({ x, y, series, whole = false, diagonal = false }) {
  const holder = h("div", { role: "img", "aria-label": `${y} by ${x}: ${series.map((one) => one.name).join(", ")}` });
  const places = [...new Set(series.flatMap((one) => one.points.map(([at]) => at)))].sort((a, b) => a - b);
  const columns = series.map((one) => places.map((at) => one.points.find(([place]) => place === at)?.[1] ?? null));
  if (diagonal) columns.push(places);
  const drawn = () =>
    series.map((one, i) => ({
      label: one.name,
      stroke: colour(COLOURS[i % COLOURS.length]),
      width: 2,
      spanGaps: true,
      points: { show: true, size: 6 },
    }));
  const options = () => ({
    scales: { x: { time: false, range: (_, low, high) => (low === high ? [low - 1, high + 1] : [low, high]) } },
    axes: [axis(x, whole ? { incrs: [1, 2, 5, 10, 20, 50, 100] } : {}), axis(y, { size: 56 })],
    legend: { show: series.length > 1 },
    series: [
      { label: x },
      ...drawn(),
      ...(diagonal ? [{ label: "perfect", stroke: colour("faint"), dash: [5, 5], points: { show: false } }] : []),
    ],
  });
  return plot(holder, options, () => [places, ...columns]);
}
