// A user's behaviours over time: how many in each of the bins of what is visible, zoomed from years to minutes.
import { h, date, span, words } from "./dom.js";
import { axis, bars, colour, plot, utc } from "./charts.js";

const BINS = 240;
const SHORTEST = 60_000;
const KINDS = [
  ["searches", "one"],
  ["browses after a search", "two"],
  ["browses without a search", "three"],
];

/** The first place in sorted `times` that is not before `time`. */
export function place(times, time) {
  let low = 0,
    high = times.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (times[middle] < time) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Counts of each kind in equal bins of [from, to]: [middles, kind 1, kind 2, kind 3]. */
export function binned({ time, kind }, from, to) {
  const width = (to - from) / BINS;
  const counts = KINDS.map(() => new Array(BINS).fill(0));
  for (let i = place(time, from), end = place(time, to + 1); i < end; i++)
    counts[kind[i] - 1][Math.min(BINS - 1, Math.floor((time[i] - from) / width))]++;
  return [Array.from({ length: BINS }, (_, i) => from + (i + 0.5) * width), ...counts];
}

/** The chart of a timeline (columns `time`, `kind`); onRange(from, to) is told what is visible, at once and after each change.
    below: what stands right under the chart. */
export function timeline(found, onRange, ...below) {
  const first = found.time[0],
    last = found.time.at(-1);
  const margin = Math.max(SHORTEST, (last - first) * 0.01);
  const whole = [first - margin, last + margin];
  let [from, to] = whole;
  let counts = binned(found, from, to);

  // Stacked: each kind is drawn over the sum of those before it, the tallest first.
  const stacked = () => {
    const [x, one, two, three] = counts;
    return [x, three.map((n, i) => n + two[i] + one[i]), two.map((n, i) => n + one[i]), one];
  };
  const series = () =>
    [...KINDS.keys()].reverse().map((k) => ({
      label: KINDS[k][0],
      stroke: colour(KINDS[k][1]),
      fill: colour(KINDS[k][1]),
      width: 0,
      paths: bars([1, 80]),
      points: { show: false },
      value: (_, __, ___, index) => (index === null ? "–" : words(counts[k + 1][index])),
    }));
  const options = () => ({
    ...utc,
    scales: { x: { range: () => [from, to] } },
    axes: [axis(""), axis("behaviours", { size: 56 })],
    series: [{ label: "around (UTC)", value: (_, ms) => date(ms) }, ...series()],
    cursor: { drag: { x: true, y: false, setScale: false } },
    hooks: {
      setSelect: [
        (chart) => {
          if (chart.select.width > 4)
            zoom(chart.posToVal(chart.select.left, "x"), chart.posToVal(chart.select.left + chart.select.width, "x"));
          chart.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
        },
      ],
    },
  });
  const said = h("p", { className: "range", "aria-live": "polite" });
  const holder = h("div", {
    tabIndex: 0,
    role: "group",
    "aria-label": "Timeline: arrows move it, plus and minus zoom, 0 shows all",
  });

  function zoom(low, high) {
    const middle = (low + high) / 2,
      half = Math.max(SHORTEST, high - low) / 2;
    from = Math.max(whole[0], middle - half);
    to = Math.min(whole[1], middle + half);
    if (to - from < SHORTEST) [from, to] = whole;
    counts = binned(found, from, to);
    holder.chart?.setData(stacked());
    tell();
  }
  function tell() {
    const sums = counts.slice(1).map((column) => column.reduce((a, b) => a + b, 0));
    const parts = KINDS.map(([name], k) => `${words(sums[k])} ${name}`).join(", ");
    said.textContent = `${date(from)} to ${date(to)} UTC (${span((to - from) / 1000)}): ${words(sums.reduce((a, b) => a + b, 0))} behaviours (${parts}).`;
    onRange(from, to);
  }
  const by = (factor, shift = 0) => {
    const half = ((to - from) / 2) * factor,
      middle = (from + to) / 2 + shift * (to - from);
    zoom(middle - half, middle + half);
  };
  const keys = { ArrowLeft: [1, -0.25], ArrowRight: [1, 0.25], "+": [0.5], "=": [0.5], "-": [2] };
  holder.addEventListener("keydown", (event) => {
    if (event.key === "0" || event.key === "Home") zoom(...whole);
    else if (keys[event.key]) by(...keys[event.key]);
    else return;
    event.preventDefault();
  });
  holder.addEventListener(
    "wheel",
    (event) => {
      if (!event.ctrlKey && !event.shiftKey) return; // the page scrolls
      event.preventDefault();
      by(event.deltaY > 0 ? 1.25 : 0.8);
    },
    { passive: false },
  );
  const button = (name, act) => h("button", { type: "button", onclick: act }, name);
  const tools = h(
    "div",
    { className: "tools" },
    button("All", () => zoom(...whole)),
    button("Zoom in", () => by(0.5)),
    button("Zoom out", () => by(2)),
    button("Earlier", () => by(1, -0.5)),
    button("Later", () => by(1, 0.5)),
    [
      ["Last year", 365],
      ["Last 30 days", 30],
      ["Last day", 1],
    ].map(([name, days]) => button(name, () => zoom(last - days * 86_400_000, last + 1000))),
    button("Last 10 minutes", () => zoom(last - 600_000, last + 1000)),
  );
  plot(holder, options, stacked);
  tell();
  const view = h(
    "div",
    { className: "timeline" },
    tools,
    holder,
    below,
    said,
    h(
      "p",
      { className: "faint" },
      "Drag over the chart to zoom in, turn the wheel with Shift held, or use the buttons or the keys: arrows, + and -, 0 for all.",
    ),
  );
  return Object.assign(view, { zoom, range: () => [from, to] });
}
