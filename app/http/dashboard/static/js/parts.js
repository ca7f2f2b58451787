// The parts that pages are built of.

import { fill, h, newId } from "./dom.js";
import { NONE, percent, usd } from "./format.js";
import { outcome } from "./words.js";

/** A sheet with a heading. `aside`: what stands beside the heading; `flush`: a table that goes to the edges. */
export function sheet(title, { aside = null, note = null, flush = false, size = "" } = {}, ...children) {
  const id = newId("sheet");
  const body = h("div", { class: flush ? "flush" : "body" }, children);
  const heading = h("div", {}, h("h2", { id }, title), note ? h("p", {}, note) : null);
  const element = h("section", { class: `sheet ${size}`.trim(), "aria-labelledby": id }, h("header", {}, heading, aside), body);
  return { element, body, show: (...what) => fill(body, ...what) };
}

export function pageHead(title, note, ...aside) {
  return h("div", { class: "head" }, h("div", {}, h("h1", { tabindex: "-1" }, title), note ? h("p", {}, note) : null), aside);
}

export function mark(text, kind = "") {
  return h("span", { class: `mark ${kind}`.trim() }, text);
}

export function outcomeMark(name) {
  return mark(...outcome(name));
}

/** One of a few, as buttons. `options`: [value, label]. */
export function choice(label, options, chosen, onChoose) {
  const buttons = options.map(([value, text]) =>
    h("button", { type: "button", "aria-pressed": String(value === chosen), on: { click: () => choose(value) } }, text),
  );
  function choose(value) {
    options.forEach(([other], at) => buttons[at].setAttribute("aria-pressed", String(other === value)));
    onChoose(value);
  }
  return h("div", { class: "choice", role: "group", "aria-label": label }, buttons);
}

export const RANGES = [
  [3600, "1 h"],
  [86_400, "24 h"],
  [7 * 86_400, "7 days"],
  [30 * 86_400, "30 days"],
];

/** How much of a limit is used: a bar with its words for those who do not see it. `write`: how an amount is written. */
export function meter(spent, limit, held = 0, write = usd) {
  if (limit === null || limit === undefined) return h("span", { class: "faint" }, "no limit");
  const share = limit > 0 ? Math.min(spent / limit, 1) : 1;
  const all = limit > 0 ? Math.min((spent + held) / limit, 1) : 1;
  const state = share >= 1 ? " over" : all >= 0.8 ? " near" : "";
  const words = `${write(spent)} of ${write(limit)} used, ${percent(all)}${held > 0 ? ", with what is held" : ""}`;
  return h(
    "span",
    { class: `meter${state}`, role: "img", "aria-label": words },
    held > 0 ? h("span", { class: "held", vars: { "--share": all } }) : null,
    h("span", { vars: { "--share": share } }),
  );
}

/** A value of more signs than this is a name, and would not fit in the size of a figure. */
const LONG = 11;

/** Facts in a row; each {label, value, aside} can be set again by its name. */
export function stats(names) {
  const cells = new Map();
  const list = h(
    "dl",
    { class: "stats" },
    Object.entries(names).map(([name, label]) => {
      const value = h("dd", {}, NONE);
      const aside = h("dd", { class: "aside" });
      cells.set(name, { value, aside });
      return h("div", {}, h("dt", {}, label), value, aside);
    }),
  );
  return {
    element: list,
    set(name, value, ...aside) {
      const cell = cells.get(name);
      if (cell.value.textContent !== value) cell.value.textContent = value;
      cell.value.classList.toggle("long", value.length > LONG);
      const sign = aside.map((part) => (part instanceof Node ? part.outerHTML : String(part))).join("|");
      if (cell.sign !== sign) fill(cell.aside, aside);
      cell.sign = sign;
    },
  };
}

export function reading() {
  return h("p", { class: "empty" }, "Reading…");
}

export function fault(error) {
  return h("p", { class: "fault", role: "alert" }, error.message);
}

export function callLink(id, text = null) {
  return h("a", { href: `#/why/${encodeURIComponent(id)}`, class: text ? null : "mono" }, text ?? shortId(id));
}

export function taskLink(key, task) {
  return h("a", { href: `#/why/task/${encodeURIComponent(key)}/${encodeURIComponent(task)}` }, task);
}

export function shortId(id) {
  return id.length > 16 ? `${id.slice(0, 10)}…${id.slice(-4)}` : id;
}
