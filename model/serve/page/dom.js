// Elements, words and requests. Data become text nodes only, never markup.

/** An element: h("p", {class: "faint"}, "text", otherElement). A property that is a function listens: {onclick: ...}. */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (name in element && name !== "list") element[name] = value;
    else if (value !== null && value !== undefined) element.setAttribute(name === "className" ? "class" : name, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

export const empty = (words) => h("p", { className: "empty" }, words);

/** A table: columns are names, or [name, "number"]; cells are text or elements. */
export function table(columns, rows) {
  const kinds = columns.map((column) => (Array.isArray(column) ? "number" : ""));
  const head = columns.map((column, i) => h("th", { className: kinds[i], scope: "col" }, String([column].flat()[0])));
  const body = rows.map((row) =>
    h(
      "tr",
      {},
      row.map((cell, i) => h("td", { className: kinds[i] }, cell instanceof Node ? cell : words(cell))),
    ),
  );
  return h(
    "div",
    { className: "scroll", tabIndex: 0 },
    h("table", {}, h("thead", {}, h("tr", {}, head)), h("tbody", {}, body)),
  );
}

export const tiles = (pairs) =>
  h(
    "div",
    { className: "tiles" },
    pairs.map(([value, name]) => h("div", { className: "tile" }, h("b", {}, words(value)), h("span", {}, name))),
  );

/** A value for people. */
export function words(value) {
  if (value === null || value === undefined) return "–";
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value === "number")
    return Number.isInteger(value) ? value.toLocaleString("en") : String(Number(value.toPrecision(4)));
  return String(value);
}

export const percent = (rate, digits = 2) =>
  rate === null || rate === undefined ? "–" : `${(100 * rate).toFixed(digits)} %`;

/** ms since 1970 as UTC, to the second. */
export const date = (ms) =>
  ms === null || ms === undefined ? "–" : new Date(ms).toISOString().slice(0, 19).replace("T", " ");

/** Seconds as the largest unit that fits. */
export function span(seconds) {
  if (seconds === null || seconds === undefined) return "never";
  for (const [name, size] of [
    ["years", 31557600],
    ["days", 86400],
    ["hours", 3600],
    ["minutes", 60],
  ])
    if (Math.abs(seconds) >= 2 * size) return `${Math.round(seconds / size).toLocaleString("en")} ${name}`;
  return `${Math.round(seconds)} s`;
}

const KEY = "seminar-key";
export const setKey = (key) => sessionStorage.setItem(KEY, key);

/** JSON of a route; an Error with the service's sentence where it refuses, `status` with it. */
export async function ask(path, parameters = {}, body = null) {
  const headers = { Accept: "application/json" };
  const key = sessionStorage.getItem(KEY);
  if (key) headers.Authorization = `Bearer ${key}`;
  if (body) Object.assign(headers, { "Content-Type": "application/json", "X-Deadline-Ms": "30000" });
  const query = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value !== null && value !== ""));
  let response;
  try {
    response = await fetch(`${path}?${query}`, {
      headers,
      method: body ? "POST" : "GET",
      body: body && JSON.stringify(body),
    });
  } catch {
    throw new Error("The service does not answer: is `seminar serve` running?");
  }
  if (response.ok) return response.json();
  const refusal = await response.json().then(
    (answer) => answer.error,
    () => null,
  );
  const said = refusal
    ? `${refusal.field} "${refusal.value}" ${refusal.problem}; ${refusal.remedy}.`
    : `The service answered ${response.status}.`;
  throw Object.assign(new Error(said), { status: response.status });
}
