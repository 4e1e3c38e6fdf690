// The tab Score: candidates ranked for a user, and for one of them what attention took, without it, and under exact search.
import { ask, date, empty, h, percent, table, words } from "./dom.js";
import { axis, bars, colour, plot, utc } from "./charts.js";
import { timeline } from "./timeline.js";
import { picker } from "./user.js";

const MODALITIES = [
  ["id", "two"],
  ["attribute", "four"],
  ["text", "five"],
  ["image", "three"],
  ["query", "one"],
];

export async function show(content, user) {
  const results = h("div"),
    why = h("div");
  const field = (name, label, more = {}) => h("label", {}, label, h("input", { name, ...more }));
  const candidates = h("textarea", { name: "candidates", required: true, spellcheck: false });
  const finding = h("div"),
    catalogue = h("input", { type: "search", "aria-label": "Words of the catalogue" });
  const form = h(
    "form",
    {
      onsubmit: (event) => {
        event.preventDefault();
        rank(asked(form), results, why).catch((error) =>
          results.replaceChildren(h("p", { className: "bad", role: "alert" }, error.message)),
        );
      },
    },
    picker(user),
    field("query", "Query (may be empty)", { maxLength: 1000 }),
    field("time", "Shown at (UTC; empty: now)", {
      placeholder: "2017-11-27T00:00:00Z",
      pattern: "\\d{4}-\\d\\d-\\d\\d([T ].*)?",
    }),
    h("label", {}, "Candidates, an item id a line", candidates),
    h("button", { className: "main" }, "Rank"),
  );
  const add = (items) => {
    const known = new Set(lines(candidates.value));
    candidates.value = [...known, ...items.map((one) => one.item).filter((item) => !known.has(item))].join("\n");
  };
  const find = async (given, most) => ask("/inspect/v1/items", { words: given, limit: most });
  const tools = h(
    "div",
    { className: "tools" },
    h("button", { type: "button", onclick: async () => add((await find("", 20)).items) }, "Add 20 popular items"),
    h(
      "button",
      { type: "button", onclick: async () => add((await find(form.elements.query.value, 20)).items) },
      "Add 20 that match the query",
    ),
    catalogue,
    h(
      "button",
      { type: "button", onclick: async () => listed(finding, await find(catalogue.value, 30), add) },
      "Search the catalogue",
    ),
  );
  content.replaceChildren(h("h2", {}, "Score"), form, tools, finding, results, why);
  if (!user) return void results.replaceChildren(empty("Pick a user, then candidates: nothing is ranked yet."));
  const found = await ask("/inspect/v1/timeline", { user });
  const last = found.time.at(-1);
  // Of a data set of long ago, now is years later: its own last moment says more.
  if (last && found.age_s > 365 * 86_400)
    form.elements.time.value = new Date(last + 3_600_000).toISOString().slice(0, 19) + "Z";
}

const lines = (text) =>
  text
    .split("\n") // an id may hold commas
    .map((line) => line.trim())
    .filter(Boolean);

function asked(form) {
  const body = { user: form.elements.user.value, candidates: lines(form.elements.candidates.value) };
  if (form.elements.query.value.trim()) body.query = form.elements.query.value;
  if (form.elements.time.value)
    body.time = form.elements.time.value
      .replace(" ", "T")
      .replace(/^(.{10})$/, "$1T00:00")
      .replace(/(T[\d:.]+)$/, "$1Z");
  return body;
}

function listed(place, found, add) {
  if (!found.items.length)
    return place.replaceChildren(
      empty(found.of ? "No item has all these words." : "The catalogue is empty: no item event has come."),
    );
  const rows = found.items.map((one) => [
    h("button", { type: "button", onclick: () => add([one]), "aria-label": `Add ${one.item}` }, "Add"),
    one.item,
    one.title,
    one.category,
    one.brand,
  ]);
  place.replaceChildren(
    h(
      "p",
      { className: "faint" },
      `The first ${words(rows.length)} of ${words(found.found)} that match, of ${words(found.of)} items.`,
    ),
    table(["", "item", "title", "category", "brand"], rows),
  );
}

async function rank(body, results, why) {
  why.replaceChildren();
  results.replaceChildren(empty("Ranking ..."));
  const [answer, titles] = await Promise.all([ask("/v1/score", {}, body), named(body.candidates)]);
  const scores = [...answer.scores].sort((a, b) => (b.rate ?? -1) - (a.rate ?? -1));
  const best = scores[0]?.rate || 1;
  const rows = scores.map((one, i) => [
    i + 1,
    one.item,
    titles.get(one.item) ?? "",
    one.rate === null
      ? h("span", { className: "bad" }, one.reason ?? "not scored")
      : h("span", {}, h("meter", { max: best, value: one.rate }), ` ${percent(one.rate)}`),
    one.score === null ? "" : one.score.toFixed(2),
    one.rate === null
      ? ""
      : h(
          "button",
          {
            type: "button",
            className: "link",
            onclick: () =>
              explain(body, one.item, titles.get(one.item), why).catch((error) =>
                why.replaceChildren(h("p", { className: "bad", role: "alert" }, error.message)),
              ),
          },
          `why ${one.item}`,
        ),
  ]);
  results.replaceChildren(
    h("h3", {}, "Ranked"),
    h(
      "p",
      {},
      `Model ${answer.model_version}, ${words(answer.sequence.length)} behaviours, ${words(answer.milliseconds.total)} ms.`,
    ),
    ...answer.degraded.map((reason) => h("p", { className: "bad" }, `Degraded: ${reason}.`)),
    table([["rank", "number"], "item", "title", "click-through rate", ["score", "number"], ""], rows),
  );
}

/** Titles by item key, of those that the catalogue finds by their keys' own rows. */
async function named(items) {
  const found = await ask("/inspect/v1/named", {}, items);
  return new Map(Object.entries(found));
}

async function explain(body, item, title, why) {
  why.replaceChildren(empty("Asking for the explanation ..."));
  const one = { time: new Date().toISOString(), ...body, candidates: [item], explain: [item] }; // of one moment, to compare
  const [answer, exact, found] = await Promise.all([
    ask("/v1/score", {}, one),
    ask("/v1/score", {}, { ...one, method: "exact" }),
    ask("/inspect/v1/timeline", { user: body.user }),
  ]);
  const [mine] = answer.explanations,
    [theirs] = exact.explanations;
  const same = overlap(mine.behaviours, theirs.behaviours);
  why.replaceChildren(
    h("h3", {}, `Why ${title ?? item}`),
    table(
      ["", "click-through rate"],
      [
        ["as served", percent(mine.rate, 3)],
        ["without the behaviours that attention took", percent(mine.rate_without, 3)],
        ["under exact search", percent(theirs.rate, 3)],
      ],
    ),
    h(
      "p",
      {},
      `${words(mine.retrieved)} behaviours were retrieved; the ${words(mine.behaviours.length)} heaviest hold ${percent(mine.attention_shown, 1)} of all attention, ` +
        `the other retrieved ones ${percent(Math.max(0, mine.attention_total - mine.attention_shown), 1)}; the rest says that nothing in the past speaks for it. ` +
        `Exact search has ${words(same)} of these ${words(mine.behaviours.length)} among its heaviest.`,
    ),
  );
  if (mine.error) why.append(h("p", { className: "bad" }, mine.error));
  if (!mine.behaviours.length) return void why.append(empty("Nothing of the past was retrieved."));
  const holder = weights(mine.behaviours);
  if (found.length)
    why.append(timeline(found, (from, to) => holder.zoom(from, to), h("h3", {}, "Attention by behaviour"), holder));
  why.append(
    table(
      ["attention", "when (UTC)", "kind", "what", "by modality"],
      mine.behaviours.map((b) => [
        percent(b.attention),
        date(Date.parse(b.time)),
        b.kind,
        b.kind === "search"
          ? b.query
          : `${b.title ?? b.item ?? "an item no longer known"}${b.query ? `, found by "${b.query}"` : ""}`,
        Object.entries(b.modalities)
          .sort((x, y) => y[1] - x[1])
          .map(([name, share]) => `${name} ${percent(share, 0)}`)
          .join(", ") || "not told by this bundle",
      ]),
    ),
  );
}

const overlap = (a, b) => {
  const key = (x) => `${x.time} ${x.kind} ${x.item} ${x.query}`;
  const known = new Set(b.map(key));
  return a.filter((x) => known.has(key(x))).length;
};

/** Stems of attention at the times of behaviours, stacked by modality; `zoom(from, to)` follows the timeline above. */
function weights(behaviours) {
  const rows = [...behaviours].sort((a, b) => Date.parse(a.time) - Date.parse(b.time));
  const used = MODALITIES.filter(([name]) => rows.some((b) => b.modalities[name] > 0));
  const shown = used.length ? used : [["attention", "accent"]];
  const part = (b, name) => 100 * b.attention * (used.length ? (b.modalities[name] ?? 0) : 1);
  const heights = shown.map((_, k) =>
    rows.map((b) => shown.slice(0, k + 1).reduce((sum, [name]) => sum + part(b, name), 0)),
  );
  let range = null;
  const options = () => ({
    ...utc,
    scales: { x: { range: (_, low, high) => range ?? [low, high] }, y: { range: (_, __, high) => [0, high || 1] } },
    axes: [axis(""), axis("attention, %", { size: 56 })],
    series: [
      { label: "at (UTC)", value: (_, ms) => date(ms) },
      ...[...shown.keys()].reverse().map((k) => ({
        label: shown[k][0],
        stroke: colour(shown[k][1]),
        fill: colour(shown[k][1]),
        width: 0,
        paths: bars([0.001, 5, 5]),
        points: { show: false },
        value: (_, __, ___, i) => (i === null ? "–" : `${part(rows[i], shown[k][0]).toFixed(2)} %`),
      })),
    ],
  });
  const data = () => [rows.map((b) => Date.parse(b.time)), ...[...heights].reverse()];
  const holder = plot(
    h("div", { role: "img", "aria-label": `Attention to ${rows.length} behaviours, by modality` }),
    options,
    data,
  );
  holder.zoom = (from, to) => {
    range = [from, to];
    holder.chart?.setData(data());
  };
  return holder;
}
