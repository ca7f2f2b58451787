// Tables that are brought up to date in place, so that focus, selection and screen readers stay where they are.

import { fill, h, setText } from "./dom.js";

/** There rows are blocks (parts.css), so fewer are shown at first. */
const PHONE = "(max-width: 40rem)";

/**
 * `columns`: {label, cell(row) -> node or text, sign(row): what the cell depends on, right, head, wide}. The cell of
 * `head` is the row's header. `rowKey(row)` names a row. More rows than `most` are shown when they are asked for.
 */
export function makeTable({ caption, columns, rowKey, empty, most = Infinity }) {
  // The roles are said again because a phone shows rows as blocks (parts.css), and blocks are no table by themselves.
  const body = h("tbody", { role: "rowgroup" });
  const known = new Map();
  const table = h(
    "table",
    { role: "table" },
    h("caption", { class: "unseen" }, caption),
    h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, columns.map(heading))),
    body,
  );
  const scroll = h("div", { class: "scroll" }, table);
  reachable(scroll, table, `${caption}, table`);
  const nothing = h("p", { class: "empty" }, "Reading…");
  const place = h("div", {}, nothing);

  let limit = matchMedia(PHONE).matches ? Math.ceil(most / 2) : most;
  let all = [];
  const more = h("button", { type: "button", class: "quiet more", on: { click: showAll } });

  function showAll() {
    const first = limit;
    limit = Infinity;
    update(all);
    body.children[first]?.querySelector("a, button")?.focus();
  }

  function update(given) {
    all = given;
    const rows = given.slice(0, limit);
    if (rows.length === 0) {
      known.clear();
      setText(nothing, empty ?? "Nothing yet.");
      fill(place, nothing);
      return;
    }
    const seen = new Set();
    const order = rows.map((row, index) => {
      const key = String(rowKey ? rowKey(row) : index);
      seen.add(key);
      let line = known.get(key);
      if (line === undefined) {
        line = newLine(columns);
        known.set(key, line);
      }
      renew(line, columns, row);
      return line.element;
    });
    for (const key of known.keys()) if (!seen.has(key)) known.delete(key);
    if (order.length !== body.children.length || order.some((element, at) => body.children[at] !== element)) {
      place_(body, order);
    }
    if (place.firstChild !== scroll) fill(place, scroll);
    more.textContent = `Show all ${given.length}`;
    if (rows.length === given.length) more.remove();
    else if (!more.isConnected) place.append(more);
  }

  return { element: place, update };
}

/** What is wider than its place can be scrolled by keyboard, and only then is a place to stop at. */
function reachable(scroll, table, label) {
  const observer = new ResizeObserver(() => {
    if (scroll.scrollWidth > scroll.clientWidth) {
      scroll.setAttribute("tabindex", "0");
      scroll.setAttribute("role", "region");
      scroll.setAttribute("aria-label", label);
    } else for (const name of ["tabindex", "role", "aria-label"]) scroll.removeAttribute(name);
  });
  observer.observe(scroll);
  observer.observe(table);
}

function heading(column) {
  return h("th", { scope: "col", role: "columnheader", class: column.right ? "right" : null }, column.label);
}

/** Move as few elements as may be: one that is moved loses its focus. */
function place_(body, order) {
  const wanted = new Set(order);
  for (const element of [...body.children]) if (!wanted.has(element)) element.remove();
  order.forEach((element, at) => {
    if (body.children[at] !== element) body.insertBefore(element, body.children[at] ?? null);
  });
}

function newLine(columns) {
  const cells = columns.map((column) => {
    const name = [column.right ? "right" : null, column.class].filter(Boolean).join(" ") || null;
    const attributes = column.head ? { scope: "row", role: "rowheader" } : { role: "cell", "data-label": column.label };
    return { element: h(column.head ? "th" : "td", { ...attributes, class: name }), sign: null };
  });
  return { element: h("tr", { role: "row" }, cells.map((cell) => cell.element)), cells };
}

function renew(line, columns, row) {
  columns.forEach((column, at) => {
    const cell = line.cells[at];
    const sign = JSON.stringify(column.sign ? column.sign(row) : row);
    if (sign === cell.sign) return;
    cell.sign = sign;
    fill(cell.element, column.cell(row));
  });
}

/** A table that is made once. */
export function tableOf(options, rows) {
  const made = makeTable(options);
  made.update(rows);
  return made.element;
}
