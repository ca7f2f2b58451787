// One task: its calls on a line, its money on the way to its cap, its family.

import { Refused, get, query } from "../api.js";
import { basics, chart, timeAxis, valueAxis } from "../charts.js";
import { fill, h } from "../dom.js";
import { NONE, count, keyName, moment, ms, span, usd } from "../format.js";
import { callLink, mark, meter, outcomeMark, pageHead, sheet, stats, taskLink } from "../parts.js";
import { makeTable, tableOf } from "../table.js";
import { colour } from "../theme.js";

const YEAR_S = 365 * 86_400;

export async function taskPage(page, key, task, { every }) {
  const name = query({ key });
  let before = null;

  async function load() {
    const [state, { calls }] = await Promise.all([
      stateOf(`/v1/tasks/${encodeURIComponent(task)}?${name}`),
      get(`calls?${query({ since: YEAR_S, key, task, limit: 200 })}`),
    ]);
    const sign = JSON.stringify([state && { ...state, as_of: null }, calls.length]);
    if (sign !== before) draw(page, key, task, state, calls.reverse());
    before = sign;
  }

  await load();
  every(5, load);
}

/** Null where the ledger has forgotten the task, and only its calls are left. */
async function stateOf(path) {
  try {
    return await get(path);
  } catch (error) {
    if (error instanceof Refused && error.status === 404) return null;
    throw error;
  }
}

function draw(page, key, task, state, calls) {
  const spent = state?.spent_usd ?? calls.reduce((sum, call) => sum + (call.cost_usd ?? 0), 0);
  const facts = stats({ spent: "Spent", held: "Held now", left: "Left", calls: "Calls", tokens: "Tokens", state: "State" });
  facts.set("spent", usd(spent), state?.limit_usd === null || !state ? "no cap" : meter(state.spent_usd, state.limit_usd, state.reserved_usd), state?.limit_usd ? `of ${usd(state.limit_usd)}` : "");
  facts.set("held", usd(state?.reserved_usd ?? 0));
  facts.set("left", usd(state?.remaining_usd ?? null));
  facts.set("calls", count(state?.calls ?? calls.length), limitOf(state, "max_calls", count));
  facts.set("tokens", count(state?.tokens ?? null), limitOf(state, "max_tokens", count));
  facts.set("state", state?.exhausted ? "cut" : (state?.state ?? "over"), state?.cost_killed_at_usd ? `cut at ${usd(state.cost_killed_at_usd)}` : "");
  fill(
    page,
    h("p", { class: "back" }, h("a", { href: "#/why" }, "All calls")),
    pageHead(h("span", {}, "Task ", h("span", { class: "taskname" }, task)), `Key ${keyName(key)}${state?.began_at ? `, began ${moment(Date.parse(state.began_at) / 1000)}` : ""}`, state?.exhausted ? mark("cut at its cap", "bad") : null),
    facts.element,
    h("div", { class: "grid" }, [
      budget(state, calls).element,
      family(state, key)?.element,
      state && Object.keys(state.models ?? {}).length > 0 ? models(state).element : null,
      sheet("Calls, in their order", { flush: true }, callsTable(calls)).element,
    ].filter(Boolean)),
  );
}

function limitOf(state, name, write) {
  const limit = state?.limits?.[name]?.binding;
  return limit === undefined ? "" : `of ${write(limit)}`;
}

function budget(state, calls) {
  if (calls.length === 0) return sheet("The way to the cap", {}, h("p", { class: "empty" }, "No call of this task has ended yet."));
  let sum = 0;
  const points = calls.map((call) => ({ x: call.created_s + (call.duration_ms ?? 0) / 1000, y: (sum += call.cost_usd ?? 0), call }));
  const limit = state?.limit_usd ?? null;
  const from = calls[0].created_s;
  const until = Math.max(points.at(-1).x, from + 1);
  const config = () => ({
    type: "line",
    data: {
      datasets: [
        { label: "spent", data: [{ x: from, y: 0 }, ...points], stepped: true, borderColor: colour("accent"), backgroundColor: colour("accent"), borderWidth: 2, borderJoinStyle: "round", pointRadius: 2.5, clip: false, fill: false },
        ...(limit === null ? [] : [{ label: "cap", data: [{ x: from, y: limit }, { x: until, y: limit }], borderColor: colour("bad"), borderDash: [5, 4], borderWidth: 1.5, pointRadius: 0 }]),
      ],
    },
    options: basics({
      scales: { x: timeAxis(from, until), y: valueAxis((value) => usd(value)) },
      plugins: { tooltip: { ...basics().plugins.tooltip, callbacks: { title: (items) => moment(items[0].raw.x), label: (item) => ` ${item.dataset.label} ${usd(item.raw.y)}` } } },
    }),
  });
  return sheet(
    "The way to the cap",
    { note: limit === null ? "no cap is set for this task" : `the dashed line is its cap, ${usd(limit)}` },
    chart({ title: "Money spent by the task, call by call", says: `${usd(sum)} after ${calls.length} calls${limit === null ? "" : `, of ${usd(limit)}`}.`, config, size: "low" }),
  );
}

function family(state, key) {
  if (!state || (!state.parent && state.children.length === 0)) return null;
  const link = (task) => taskLink(key, task);
  return sheet("Family", {}, h("dl", { class: "facts" }, [
    state.parent ? h("div", {}, h("dt", {}, "Parent"), h("dd", {}, link(state.parent))) : null,
    state.root && state.root !== state.parent ? h("div", {}, h("dt", {}, "Root"), h("dd", {}, link(state.root))) : null,
    state.children.length ? h("div", {}, h("dt", {}, "Children"), h("dd", {}, h("ul", {}, state.children.map((child) => h("li", {}, link(child)))))) : null,
  ].filter(Boolean)));
}

function models(state) {
  const columns = [
    { label: "Model", head: true, class: "name", cell: ([name]) => name },
    { label: "Calls", right: true, cell: ([, part]) => count(part.calls) },
    { label: "Spent", right: true, cell: ([, part]) => usd(part.spent_usd) },
    { label: "Its cap in this task", right: true, cell: ([, part]) => usd(part.limit_usd) },
    { label: "Used", class: "used", cell: ([, part]) => meter(part.spent_usd, part.limit_usd, part.reserved_usd) },
  ];
  return sheet("Models", { flush: true }, tableOf({ caption: "Spending by model", columns }, Object.entries(state.models)));
}

function callsTable(calls) {
  const began = calls[0]?.created_s ?? 0;
  const whole = Math.max(...calls.map((call) => call.created_s + (call.duration_ms ?? 0) / 1000 - began), 0.001);
  const lane = (call) => {
    const from = (call.created_s - began) / whole;
    return h("span", { class: "lane", "aria-hidden": "true", vars: { "--from": from, "--to": Math.min(from + (call.duration_ms ?? 0) / 1000 / whole, 1) } }, h("span", {}));
  };
  const table = makeTable({
    caption: "Calls of this task",
    empty: "No call of this task is on record.",
    rowKey: (call) => call.request_id,
    columns: [
      { label: "After", head: true, class: "nowrap", cell: (r) => callLink(r.request_id, span(r.created_s - began)) },
      { label: "Ended", class: "nowrap", cell: (r) => outcomeMark(r.outcome) },
      { label: "Model", class: "name", cell: (r) => r.model ?? NONE },
      { label: "In the task's time", class: "lanes", cell: lane },
      { label: "Took", right: true, class: "nowrap", cell: (r) => ms(r.duration_ms) },
      { label: "Tokens out", right: true, cell: (r) => count(r.output_tokens ?? 0) },
      { label: "Cost", right: true, class: "nowrap", cell: (r) => usd(r.cost_usd, 5) },
    ],
  });
  table.update(calls);
  return table.element;
}
