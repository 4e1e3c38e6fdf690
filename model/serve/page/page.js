// Which view is shown: #/user/<id>, #/score/<id>, #/health. A refusal is shown in words; 401 and 403 ask for a key.
import { h, setKey } from "./dom.js";
import * as health from "./health.js";
import * as score from "./score.js";
import * as user from "./user.js";

const VIEWS = { user, score, health };
const content = document.getElementById("content");
const trouble = document.getElementById("trouble");
const key = document.getElementById("key");

async function show() {
  const [, name = "user", ...rest] = location.hash.split("/");
  const view = VIEWS[name] ?? user;
  for (const link of document.querySelectorAll("nav a")) {
    if (VIEWS[link.hash.slice(2)] === view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  trouble.hidden = true;
  const place = h("div");
  content.replaceChildren(place);
  try {
    await view.show(place, decodeURIComponent(rest.join("/")));
  } catch (error) {
    if (!place.isConnected) return;
    if (error.status === 401 || error.status === 403) key.hidden = false;
    trouble.textContent = error.message;
    trouble.hidden = false;
    place.querySelectorAll(".empty").forEach((element) => element.remove());
    if (!error.status) console.warn(error.message);
  }
}

key.addEventListener("submit", (event) => {
  event.preventDefault();
  setKey(key.elements.key.value);
  key.hidden = true;
  show();
});
addEventListener("hashchange", show);
show();
