// The page: which view is shown, the key where one is needed, and the way from one view to another.

import { Refused, get, hasKey, rememberKey } from "./api.js";
import { sweep } from "./charts.js";
import { fill, h, say } from "./dom.js";
import * as live from "./live.js";
import { fault, pageHead } from "./parts.js";
import { themeButton } from "./theme.js";
import { budgets } from "./views/budgets.js";
import { learning } from "./views/learning.js";
import { now } from "./views/now.js";
import { policy } from "./views/policy.js";
import { speed } from "./views/speed.js";
import { why } from "./views/why.js";

const VIEWS = [
  ["now", "Now", now],
  ["speed", "Speed", speed],
  ["why", "Why", why],
  ["policy", "Policy", policy],
  ["learning", "Learning", learning],
  ["budgets", "Budgets", budgets],
];

const main = document.getElementById("main");
let leave = () => {};
let shown = null;

function navigation() {
  fill(
    document.getElementById("nav"),
    VIEWS.map(([name, title]) => h("li", {}, h("a", { href: `#/${name}`, "data-view": name }, title))),
  );
}

/** The view and its parameters in `#/why/task/alice/job%201`. */
function place() {
  const [name, ...rest] = location.hash.replace(/^#\//, "").split("/").map(decoded);
  const view = VIEWS.find(([known]) => known === name) ?? VIEWS[0];
  return [view, rest];
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

async function show() {
  const [[name, title, view], rest] = place();
  leave();
  leave = () => {};
  document.title = `${title} · Bursar`;
  for (const link of document.querySelectorAll("#nav a")) {
    if (link.dataset.view === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const here = [name, ...rest].join("/");
  const again = shown !== null && shown !== here;
  shown = here;
  const left = [];
  leave = () => left.forEach((end) => end());
  const page = h("div", { class: `view ${name}` });
  fill(main, page);
  sweep();
  try {
    await view(page, rest, { onLeave: (end) => left.push(end), every: (seconds, work) => left.push(every(seconds, work)) });
  } catch (error) {
    if (error instanceof Refused && (error.status === 401 || error.status === 403)) return signIn(error);
    if (page.querySelector("h1") === null) fill(page, pageHead(title));
    page.append(fault(error));
  }
  if (again) {
    main.querySelector("h1")?.focus({ preventScroll: true });
    window.scrollTo(0, 0);
  }
}

/** Do something now and then while the page is looked at; returns how to stop. */
function every(seconds, work) {
  const timer = setInterval(() => {
    if (!document.hidden) work();
  }, seconds * 1000);
  return () => clearInterval(timer);
}

function signIn(error) {
  leave();
  live.stop();
  live.show("idle", "not signed in");
  const tried = hasKey();
  rememberKey(null);
  const field = h("input", { type: "password", id: "key", name: "key", autocomplete: "off", required: true, spellcheck: "false" });
  const form = h(
    "form",
    { class: "signin sheet", on: { submit } },
    h("h1", { tabindex: "-1" }, "Sign in"),
    h("p", { class: "note" }, "The dashboard shows everybody's spending, so it needs an admin key of this gateway. It is kept in this tab only. No key yet? ", h("code", {}, "bursar keys new NAME --admin"), " makes one."),
    tried ? h("p", { class: "fault", role: "alert" }, error.message) : null,
    h("div", { class: "field" }, h("label", { for: "key" }, "Admin key"), field),
    h("button", { class: "main", type: "submit" }, "Open the dashboard"),
  );
  function submit(event) {
    event.preventDefault();
    rememberKey(field.value.trim());
    begin();
  }
  fill(main, form);
  field.focus();
}

async function begin() {
  let session = null;
  try {
    session = await get("session");
  } catch (error) {
    if (error instanceof Refused && (error.status === 401 || error.status === 403)) return signIn(error);
    fill(main, pageHead("Bursar"), fault(error));
    return;
  }
  document.getElementById("leave").hidden = session.open;
  live.start();
  await show();
  say(`${document.title}, ready`);
}

themeButton(document.getElementById("theme"));
document.getElementById("leave").addEventListener("click", () => {
  rememberKey(null);
  location.reload();
});
navigation();
window.addEventListener("hashchange", show);
begin();
