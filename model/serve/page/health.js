// The tab Health: what is served and since when, its figures, codebooks, the stream, dead letters, parity, DAG runs.
import { ask, empty, h, percent, span, table, tiles, words } from "./dom.js";
import { lines } from "./charts.js";

const SECTIONS = [
  ["Versions", versions],
  ["Promotions", promotions],
  ["The gate", gate],
  ["Against other methods", methods],
  ["Losses", losses],
  ["Calibration", calibration],
  ["Codebooks", codebooks],
  ["The stream", stream],
  ["Dead letters", letters],
  ["DAG runs", dags],
  ["Health report", daily],
  ["Software", software],
];
const short = (when) => (when ? String(when).slice(0, 19).replace("T", " ") : "–");
const range = (low, high) => (low == null || high == null ? "–" : `${low.toFixed(3)} to ${high.toFixed(3)}`);
const figure = (value) => (value == null ? "–" : value.toFixed(4));

export async function show(content) {
  content.replaceChildren(empty("Looking at versions, figures and the stream ..."));
  const facts = await ask("/inspect/v1/health");
  const parts = SECTIONS.map(([name, draw]) => {
    const place = h("section", { id: name.toLowerCase().replaceAll(" ", "-") }, h("h2", {}, name));
    place.append(...[draw(facts)].flat());
    return place;
  });
  content.replaceChildren(parts[0], parity(), ...parts.slice(1));
}

/** What draw makes of a section, or in words that it is empty or away. */
function told(section, nothing, draw) {
  if (section?.away) return h("p", { className: "bad" }, section.away);
  if (section == null || section.length === 0) return empty(nothing);
  return draw(section);
}

function versions({ service, versions: found }) {
  return [
    told(service, "No service.", (one) =>
      tiles([
        [one.model_version, "bundle that answers"],
        [one.swaps, "bundles since this process began"],
        [span(one.freshness.age_s), "age of the watermark"],
      ]),
    ),
    ...(service?.workers ?? [])
      .filter((one) => one.refused)
      .slice(0, 1)
      .map(({ refused }) => h("p", { className: "bad" }, `Bundle ${refused.version} is refused: ${refused.reason}.`)),
    told(found, "Nothing is published yet.", (kinds) =>
      table(
        ["what", "current", "published"],
        Object.entries(kinds).map(([kind, one]) =>
          kind === "history"
            ? ["history", one ?? "never compacted", ""]
            : [kind, one.current ?? "none", one.all.join(", ") || "none"],
        ),
      ),
    ),
  ].filter(Boolean);
}

function promotions({ promotions: found }) {
  return told(found, "Nothing was ever promoted: `seminar promote VERSION`, or the DAG ctr.", (rows) => {
    const mine = (row, mode) => row.methods?.find((one) => one.name === "seminar" && one.mode === mode);
    const cells = rows.map((row) => {
      const one = mine(row, "recommendation"),
        search = mine(row, "search");
      return [
        short(row.time),
        row.bundle,
        row.former ?? "none",
        row.reason,
        figure(one?.gauc),
        range(one?.gauc_lo, one?.gauc_hi),
        figure(search?.gauc),
        figure(row.metrics?.logloss),
        figure(row.metrics?.codes_recall),
        figure(row.metrics?.predicted_to_observed),
      ];
    });
    return table(
      [
        "when (UTC)",
        "bundle",
        "before",
        "why",
        ["GAUC", "number"],
        "95 %",
        ["GAUC, search", "number"],
        ["log loss", "number"],
        ["recall of codes", "number"],
        ["predicted / observed", "number"],
      ],
      cells,
    );
  });
}

function gate({ reports }) {
  return told(reports.release, "The gate has not judged a bundle through a DAG yet.", (one) =>
    table(
      ["check", ["value", "number"], "limit", ""],
      one.checks.map((check) => [
        check.name,
        figure(check.value),
        `at ${check.at} ${words(check.limit)}`,
        check.applies ? judged(check.passed, check.passed ? "passed" : check.why || "failed") : h("span", { className: "faint" }, check.why),
      ]),
    ),
  );
}

function methods({ reports }) {
  return told(
    reports.evaluation?.away ? reports.evaluation : reports.evaluation?.methods,
    "No evaluation has been written yet.",
    (rows) =>
      table(
        ["method", "mode", ["GAUC", "number"], "95 %", ["NDCG@10", "number"], "95 %", ["log loss", "number"]],
        rows.map((one) => [
          one.name,
          one.mode,
          figure(one.gauc),
          range(one.gauc_lo, one.gauc_hi),
          figure(one.ndcg10),
          range(one.ndcg10_lo, one.ndcg10_hi),
          figure(one.logloss),
        ]),
      ),
  );
}

function losses({ reports }) {
  const found = [
    ...Object.entries(reports.psu?.losses ?? {}),
    ...Object.entries(reports.ctr ?? {}).map(([name, one]) => [`${name}, log loss`, one?.losses]),
  ];
  const series = found
    .filter(([, values]) => values?.length)
    .map(([name, values]) => ({ name, points: values.map((value, i) => [i + 1, value]) }));
  if (!series.length) return empty("No losses are kept: they come with the DAGs psu and ctr.");
  return h(
    "div",
    { className: "grid" },
    series.map((one) =>
      h(
        "div",
        {},
        h("h3", {}, one.name.replace("_", " ")),
        lines({ x: "epoch", y: "mean loss", series: [one], whole: true }),
      ),
    ),
  );
}

function calibration({ reports }) {
  const found = Object.entries(reports.evaluation?.calibration ?? {}).filter(
    ([name, one]) => one && (name === "seminar" || name === "din_full"),
  );
  const series = found.map(([name, one]) => ({
    name,
    points: one.deciles
      .filter((bin) => bin.n)
      .map((bin) => [bin.predicted, bin.observed])
      .sort((a, b) => a[0] - b[0]),
  }));
  if (!series.length) return empty("Calibration is measured on impressions: none were shown, or no DAG has evaluated yet.");
  return [
    lines({ x: "predicted rate", y: "observed rate", series, diagonal: true }),
    table(
      ["method", ["predicted / observed", "number"], ["slope of log-odds", "number"]],
      found.map(([name, one]) => [name, figure(one.predicted_to_observed), figure(one.slope)]),
    ),
  ];
}

function codebooks({ reports, codes }) {
  const sizes = told(
    reports.codebooks?.away ? reports.codebooks : reports.codebooks?.recall,
    "No codebooks were built by a DAG yet.",
    (rows) =>
      table(
        [
          ["bytes, item", "number"],
          ["bytes, query", "number"],
          ["bits", "number"],
          "rotation",
          ["recall, scan alone", "number"],
          ["recall, reranked", "number"],
          ["recall, cells", "number"],
        ],
        rows.map((one) => [
          one.item_bytes,
          one.query_bytes,
          one.bits,
          one.opq ? "learned" : "none",
          figure(one.recall_scan),
          figure(one.recall),
          figure(one.recall_cells),
        ]),
      ),
  );
  const used = told(codes, "No bundle is served: its codes cannot be looked at.", (sides) => [
    h(
      "p",
      {},
      "Codes of the bundle that is served: error as a share of the variance, centroids that any entity uses, and how evenly (1: all alike).",
    ),
    table(
      ["side", ["entities", "number"], ["bytes", "number"], ["error", "number"], ["used", "number"], ["evenness", "number"]],
      Object.entries(sides).map(([name, one]) => [
        name,
        one.n,
        one.bytes,
        percent(one.error, 1),
        percent(one.used, 1),
        one.evenness.toFixed(3),
      ]),
    ),
    lines({
      x: "centroids of all sub-quantisers, the most used first (share)",
      y: "entities",
      series: Object.entries(sides).map(([name, one]) => ({ name, points: thinned(one.by_use) })),
    }),
  ]);
  return [sizes, used].flat();
}

const thinned = (values) =>
  Array.from({ length: 100 }, (_, i) => [i / 99, values[Math.round((i / 99) * (values.length - 1))]]);

function stream({ stream: found }) {
  return told(found, "This process was started without a look at the stream.", (one) => [
    tiles([
      [one.lag, "messages behind"],
      [one.events_per_s, "events a second"],
      [span(one.freshness_s), "age of the oldest watermark"],
      [one.pending_erasures, "erasures to finish"],
    ]),
    h(
      "p",
      {},
      `Broker: ${one.broker}. Online store: ${one.store}. Compaction: ${one.compaction?.version ?? one.compaction?.problem ?? "never"}.`,
    ),
    told(one.partitions, "No consumer has applied a partition yet.", (rows) =>
      table(
        ["partition", ["offset", "number"], ["lag", "number"], ["events/s", "number"], "age of the watermark", "member"],
        rows.map((row) => [row.partition, row.offset, row.lag, row.events_per_s, span(row.age_s), row.instance]),
      ),
    ),
  ]);
}

function letters({ letters: found }) {
  return told(found, "This process was started without a look at dead letters.", (one) => [
    ...(one.missing
      ? [h("p", { className: "faint" }, `Of imports only, those of the stream are in Kafka. Broker: ${one.missing}.`)]
      : []),
    ...(one.count
      ? [
          h("p", {}, `${words(one.count)} messages were refused. By reason:`),
          table(
            ["field", "reason", ["how many", "number"]],
            one.reasons.map((row) => [row.field, row.reason, row.count]),
          ),
          h("h3", {}, "The newest"),
          table(
            ["origin", "field", "value", "reason"],
            one.newest.slice(0, 50).map((row) => [row.origin, row.field, row.value.slice(0, 80), row.reason]),
          ),
        ]
      : [empty(one.missing ? "None of imports." : "None: every message was a valid event.")]),
  ]);
}

function parity() {
  const view = h("div", {}, h("p", { className: "faint" }, "Online and history have not been compared in this view."));
  const compare = async () => {
    view.replaceChildren(empty("Comparing ..."));
    try {
      const found = await ask("/inspect/v1/parity", { sample: 50 });
      view.replaceChildren(
        h(
          "p",
          { className: found.faults ? "bad" : "good" },
          found.faults ? `${words(found.faults)} faults: \`seminar history parity --repair\`.` : "They agree.",
        ),
        h(
          "p",
          {},
          `${words(found.users)} users, ${words(found.equal)} equal; ${words(found.missing)} records missing online, ${words(found.extra)} missing in history, ${words(found.lag)} not applied yet; ${words(found.entities.items)} items and ${words(found.entities.queries)} queries compared.`,
        ),
      );
    } catch (error) {
      view.replaceChildren(h("p", { className: "bad" }, error.message));
    }
  };
  return h(
    "section",
    { id: "parity" },
    h("h2", {}, "Parity"),
    h("button", { type: "button", onclick: compare }, "Compare 50 users by chance"),
    view,
  );
}

function dags({ dags: found, waiting, alerts }) {
  return [
    told(found, "No DAG has run here yet: `seminar airflow` shows how to start them.", (rows) =>
      table(
        ["DAG", "state", "began (UTC)", "took", ["tasks", "number"], "what failed"],
        rows.map((run) => [
          run.dag,
          judged(run.state === "success", run.state),
          short(run.begun),
          span(run.seconds),
          run.count,
          run.failed.join("; "),
        ]),
      ),
    ),
    waiting?.length
      ? h("p", { className: "bad" }, `Dates that failed their checks and wait for somebody: ${waiting.join(", ")}.`)
      : null,
    alerts?.length ? h("h3", {}, "Last alerts") : null,
    alerts?.length
      ? table(
          ["when (UTC)", "DAG", "task", "error"],
          alerts.map((one) => [short(one.time), one.dag, one.task, one.error]),
        )
      : null,
  ].filter(Boolean);
}

const judged = (good, said) => h("span", { className: good ? "good" : "bad" }, said);

function daily({ reports }) {
  return told(reports.health, "The DAG health has written no report yet.", (one) => [
    h(
      "p",
      {},
      judged(one.passed, one.passed ? "Every check passed." : "A check failed."),
      ` Looked at ${short(one.looked)} UTC.`,
    ),
    table(
      ["section", "check", ["value", "number"], "limit", ""],
      Object.entries(one.sections).flatMap(([name, section]) =>
        section.checks.map((check) => [
          name,
          check.name,
          check.value,
          `at ${check.at} ${words(check.limit)}`,
          check.why
            ? h("span", { className: "faint" }, `not applicable: ${check.why}`)
            : judged(check.passed, check.passed ? "passed" : "failed"),
        ]),
      ),
    ),
  ]);
}

function software({ software: found }) {
  return told(found, "Unknown.", (one) => table(["package", "version"], Object.entries(one)));
}
