// Why: any call or task, found and explained.

import { get, query } from "../api.js";
import { fill, h } from "../dom.js";
import { NONE, count, keyName, moment, ms, usd } from "../format.js";
import { RANGES, callLink, choice, fault, outcomeMark, pageHead, sheet, taskLink } from "../parts.js";
import { makeTable } from "../table.js";
import { outcome, outcomes } from "../words.js";
import { callPage } from "./why_call.js";
import { taskPage } from "./why_task.js";

const LIMIT = 100;

export async function why(page, [first, key, ...task], tools) {
  if (first === "task" && task.length > 0) return taskPage(page, key, task.join("/"), tools);
  if (first) return callPage(page, first);
  return list(page, tools);
}

async function list(page, { every }) {
  const asked = { since: 86_400, text: "", outcome: "" };
  const table = makeTable(CALLS);
  const told = h("p", {});
  const found = sheet("Calls", { flush: true, aside: told }, table.element);
  const text = h("input", { type: "search", id: "why-text", placeholder: "req_… or part of a task's name", autocomplete: "off", spellcheck: "false" });
  const ending = h(
    "select",
    { id: "why-outcome", on: { change: search } },
    h("option", { value: "" }, "any"),
    h("option", { value: "trouble" }, "all but completed"),
    outcomes().map((name) => h("option", { value: name }, outcome(name)[0])),
  );
  const form = h(
    "form",
    { class: "fields", role: "search", on: { submit: (event) => { event.preventDefault(); search(); } } },
    h("div", { class: "field wide" }, h("label", { for: "why-text" }, "Request or task"), text),
    h("div", { class: "field" }, h("label", { for: "why-outcome" }, "How it ended"), ending),
    h("button", { type: "submit", class: "plain" }, "Find"),
  );
  const trouble = h("div", {});
  fill(
    page,
    pageHead("Why", "Each finished call explains its route, its cost and its end.", choice("Time range", RANGES, asked.since, (value) => {
      asked.since = value;
      load();
    })),
    trouble,
    h("div", { class: "sheet finder" }, form),
    found.element,
  );

  function search() {
    asked.text = text.value.trim();
    asked.outcome = ending.value;
    if (/^req_[0-9a-f]{27}$/.test(asked.text)) location.hash = `#/why/${asked.text}`;
    else load();
  }

  async function load() {
    try {
      const { calls } = await get(`calls?${query({ ...asked, limit: LIMIT })}`);
      table.update(calls);
      fill(told, calls.length === LIMIT ? `the latest ${LIMIT}` : `${calls.length} found`);
      fill(trouble);
    } catch (error) {
      if (error.status === 401 || error.status === 403) throw error;
      fill(trouble, fault(error));
    }
  }

  every(15, load);
  await load();
}

const CALLS = {
  caption: "Finished calls, the latest first",
  most: 30,
  empty: "No finished call fits.",
  rowKey: (row) => row.request_id,
  columns: [
    { label: "When", head: true, class: "nowrap", sign: (r) => r.request_id, cell: (r) => callLink(r.request_id, moment(r.created_s)) },
    { label: "Ended", class: "nowrap", sign: (r) => r.outcome, cell: (r) => outcomeMark(r.outcome) },
    { label: "Task", class: "name", sign: (r) => r.task_id, cell: (r) => (r.task_id === null ? h("span", { class: "faint" }, "none") : taskLink(r.key, r.task_id)) },
    { label: "Key", sign: (r) => r.key, cell: (r) => keyName(r.key) },
    { label: "Model", class: "name", sign: (r) => r.model, cell: (r) => [r.model ?? NONE, h("span", { class: "sub" }, r.route ? `${r.requested_model}, ${(r.task_type ?? "").replaceAll("_", " ")}` : r.requested_model)] },
    { label: "Tokens in / out", right: true, class: "nowrap", sign: (r) => [r.input_tokens, r.output_tokens], cell: (r) => `${count(r.input_tokens ?? 0)} / ${count(r.output_tokens ?? 0)}` },
    { label: "Took", right: true, class: "nowrap", sign: (r) => r.duration_ms, cell: (r) => ms(r.duration_ms) },
    { label: "Cost", right: true, class: "nowrap", sign: (r) => r.cost_usd, cell: (r) => usd(r.cost_usd, 5) },
  ],
};
