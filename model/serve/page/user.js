// The tab User: who it is, what they did and when, and whether online and history agree.
import { ask, date, empty, h, span, table, tiles, words } from "./dom.js";
import { timeline } from "./timeline.js";

const ROWS = 100;

/** A field with suggestions of users from history; its `value` is what was typed or picked. */
export function picker(value) {
  const choices = h("datalist", { id: "users" });
  const fill = async (begins) => {
    const found = await ask("/inspect/v1/users", { begins, limit: 200 }).catch(() => ({ users: [] }));
    choices.replaceChildren(...found.users.map((one) => h("option", { value: one.user }, `${words(one.events)} events`)));
  };
  let wait;
  const field = h("input", {
    name: "user",
    value,
    required: true,
    autocomplete: "off",
    list: "users",
    maxLength: 256,
    oninput: () => {
      clearTimeout(wait);
      wait = setTimeout(() => fill(field.value), 300);
    },
  });
  fill("");
  return h("label", {}, "User", field, choices);
}

export async function show(content, user) {
  const form = h(
    "form",
    {
      onsubmit: (event) => {
        event.preventDefault();
        location.hash = `#/user/${encodeURIComponent(form.elements.user.value)}`;
      },
    },
    picker(user),
    h("button", { className: "main" }, "Show"),
  );
  const view = h("div");
  content.replaceChildren(h("h2", {}, "A user's behaviours"), form, view);
  if (!user) return void (await suggest(view));
  view.replaceChildren(empty("Reading the sequence ..."));
  const found = await ask("/inspect/v1/timeline", { user });
  if (!content.contains(view)) return;
  view.replaceChildren(
    tiles([
      [found.length, "behaviours"],
      ...Object.entries(found.counts).map(([name, count]) => [count, name]),
      [span(found.age_s), "since the last one"],
    ]),
    h("p", {}, h("a", { href: `#/score/${encodeURIComponent(user)}` }, "Score candidates for this user")),
  );
  if (!found.length)
    return void view.append(
      empty("The sequence is empty: the user was forgotten, or has only events from before the fence."),
    );
  const rows = h("div", { className: "events" });
  let turn = 0,
    wait;
  const named = async (since, until) => {
    const mine = ++turn;
    const chosen = await ask("/inspect/v1/events", {
      user,
      since: Math.max(0, Math.floor(since)),
      until: Math.ceil(until),
      limit: ROWS,
    }).catch((error) => error);
    if (mine !== turn) return;
    rows.replaceChildren(...(chosen instanceof Error ? [empty(chosen.message)] : events(chosen)));
  };
  const chart = timeline(found, (since, until) => {
    clearTimeout(wait);
    wait = setTimeout(() => named(since, until), 200);
  });
  view.append(chart, h("h3", {}, "What is visible, by name"), rows, await state(user, found));
}

async function suggest(view) {
  const found = await ask("/inspect/v1/users", { limit: 12 });
  if (!found.users.length)
    return void view.replaceChildren(empty("History has no users yet: import or consume events first."));
  const link = (one) => h("a", { href: `#/user/${encodeURIComponent(one.user)}` }, one.user);
  view.replaceChildren(
    h("p", {}, `Users with most events among ${found.whole ? "all" : "the first"} ${words(found.rows)} rows of history:`),
    table(
      ["user", ["events", "number"]],
      found.users.map((one) => [link(one), one.events]),
    ),
  );
}

function events(chosen) {
  const rows = chosen.events.map((one) => [
    date(one.time),
    one.kind,
    one.kind === "search" ? "" : (one.title ?? one.item ?? "an item no longer known"),
    one.query ?? "",
    one.dwell_s ? `${words(one.dwell_s)} s` : "",
  ]);
  if (!rows.length) return [empty("Nothing happened in this range.")];
  const more =
    chosen.found > rows.length
      ? `The newest ${words(rows.length)} of ${words(chosen.found)}; zoom in for others.`
      : `All ${words(rows.length)}.`;
  return [h("p", { className: "faint" }, more), table(["when (UTC)", "kind", "item", "query", "dwell"], rows)];
}

async function state(user, found) {
  const view = h("section", {}, h("h3", {}, "Freshness and agreement"));
  const [agreed, health] = await Promise.all([
    ask("/inspect/v1/agreement", { user }).catch((error) => ({ away: error.message })),
    ask("/v2/health/ready").catch(() => null),
  ]);
  view.append(
    h(
      "p",
      {},
      agreed.away ??
        (agreed.lag || agreed.extra
          ? `Online has ${words(agreed.online)} records, history ${words(agreed.history)}: ${words(agreed.lag)} are not online yet, ${words(agreed.extra)} are in no file of history.`
          : `Online and history hold the same ${words(agreed.online)} records.`),
    ),
  );
  const fresh = health?.freshness;
  view.append(
    h(
      "p",
      {},
      fresh?.age_s == null
        ? "No consumer has told how far the stream is applied: what is here was imported, or the service is not ready."
        : `What had arrived ${span(fresh.age_s)} ago is applied${fresh.stale ? ": the stream is stale" : ""}.`,
    ),
  );
  if (found.fence) view.append(h("p", {}, `Forgotten before ${date(found.fence)} UTC: nothing older comes back.`));
  return view;
}
