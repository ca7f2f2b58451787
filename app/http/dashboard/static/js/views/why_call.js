// One call: the route, the money, the timeline, the end.

import { get } from "../api.js";
import { fill, h } from "../dom.js";
import { NONE, count, keyName, moment, ms, percent, usd } from "../format.js";
import { mark, meter, outcomeMark, pageHead, sheet, stats, taskLink } from "../parts.js";
import { tableOf } from "../table.js";
import { outcome, scopeKind, scopeName } from "../words.js";

export async function callPage(page, id) {
  const record = await get(`record/${encodeURIComponent(id)}`);
  const { timings, usage } = record;
  const facts = stats({ cost: "Cost", took: "Took", first: "First token", tokens: "Tokens in / out", model: "Model" });
  facts.set("cost", usd(record.cost_usd), record.provenance);
  facts.set("took", ms(timings.duration_ms), `${ms(timings.overhead_ms)} of it our own`);
  facts.set("first", ms(timings.ttft_ms), speed(record));
  facts.set("tokens", `${count(usage.input_tokens ?? 0)} / ${count(usage.output_tokens ?? 0)}`, extraTokens(usage));
  facts.set("model", record.model ?? NONE, record.provider ?? "no provider was asked");
  fill(
    page,
    h("p", { class: "back" }, h("a", { href: "#/why" }, "All calls")),
    pageHead("Why this call", h("span", {}, h("span", { class: "mono" }, record.request_id), ` · ${moment(record.created_s)}`), outcomeMark(record.outcome)),
    story(record),
    facts.element,
    h("div", { class: "grid" }, [
      route(record).element,
      timeline(record).element,
      money(record).element,
      attempts(record).element,
      context(record).element,
    ]),
  );
}

/** What happened, in a sentence. */
function story(record) {
  const parts = [];
  if (record.cut) {
    const killed = record.cut.killed_at_usd;
    parts.push(`Cut by the ${record.cut.scope}'s cap${killed === undefined ? "" : ` at ${usd(Number(killed))}`}: ${CUT_BY[record.cut.by] ?? record.cut.by}.`);
    if (record.cut.in_tool_call) parts.push("It was in the middle of a tool call, which nobody executes.");
  }
  if (record.denied_scope) parts.push(`Denied by the ${record.denied_scope}'s cap, before a provider was asked.`);
  if (record.error) parts.push(record.error);
  return parts.length ? h("p", { class: record.outcome === "completed" ? "note lead" : "fault" }, parts.join(" ")) : null;
}

const CUT_BY = { meter: "the meter saw the running cost reach it", clamp: "the output limit that the cap affords was reached" };

function speed({ usage, timings }) {
  const generated = timings.duration_ms - (timings.ttft_ms ?? 0);
  return usage.output_tokens && timings.ttft_ms !== null && generated > 0 ? `${count((usage.output_tokens * 1000) / generated)} tokens/s after it` : "";
}

function extraTokens(usage) {
  const parts = [];
  if (usage.cache_read_tokens) parts.push(`${count(usage.cache_read_tokens)} from cache`);
  if (usage.reasoning_tokens) parts.push(`${count(usage.reasoning_tokens)} reasoning`);
  return parts.join(", ");
}

function route({ decision, cached }) {
  if (cached) return sheet("Route", {}, h("p", { class: "empty" }, "Nothing was asked: the policy's cache gave the reply of ", h("a", { href: `#/why/${encodeURIComponent(cached.request_id)}` }, cached.request_id), `, by ${cached.model}.`));
  if (decision === null) return sheet("Route", {}, h("p", { class: "empty" }, "No decision was made: the request was refused before that."));
  const rules = [
    decision.objective ? `objective: ${decision.objective.replaceAll("_", " ")}` : "no choice: a model was named",
    decision.adequacy === null || decision.adequacy === undefined ? null : `adequate from ${percent(decision.adequacy)}`,
    decision.deferred ? "left to the heuristic" : null,
    decision.instead_of ? `sent here to learn from it, instead of to ${decision.instead_of}` : null,
    decision.propensity === null || decision.propensity === undefined ? null : `chosen with probability ${percent(decision.propensity)}`,
  ].filter(Boolean);
  const reason = decision.reason.charAt(0).toUpperCase() + decision.reason.slice(1);
  const work = decision.task_type ? `, for work of the kind ${decision.task_type.replaceAll("_", " ")}` : "";
  const note = `${reason}. Decided by ${decision.router ?? "no router"}${work}; ${rules.join(", ")}.`;
  const columns = [
    { label: "Candidate", head: true, class: "name", cell: (r) => [r.model, h("span", { class: "sub" }, `${r.provider}, tier ${r.tier}`)] },
    { label: "Verdict", cell: (r) => mark(r.verdict, r.model === decision.chosen ? "good" : "") },
    { label: "P(success)", class: "probability", cell: (r) => probability(r, decision.adequacy) },
    { label: "Confidence", right: true, cell: (r) => percent(r.confidence) },
    { label: "Expected cost", right: true, class: "nowrap", cell: (r) => [usd(r.expected_cost_usd, 5), h("span", { class: "sub" }, `${count(r.expected_output_tokens)} tokens out`)] },
    { label: "Price per 1k, in / out", right: true, class: "nowrap", cell: (r) => (r.price_usd_per_1k ? `${usd(r.price_usd_per_1k.input, 5)} / ${usd(r.price_usd_per_1k.output, 5)}` : "no price") },
  ];
  const table = tableOf({ caption: "Candidates", columns, rowKey: (r) => r.model, empty: "There was nothing to choose from." }, decision.candidates);
  const others = (decision.others ?? []).map((other) =>
    h("p", { class: "note inset" }, `${other.router} would have chosen ${other.would_choose}: ${other.reason}.`),
  );
  const said = decision.candidates.some((one) => one.p_interval) ? h("p", { class: "note inset" }, "Ranges and thin lines: where P(success) lies with 95 %, by the router's confidence. The mark is what the route calls adequate.") : null;
  return sheet("Route", { flush: true, note }, table, [said, ...others].filter(Boolean));
}

/** A probability as a bar with the line of adequacy; its interval, where the router gave one. */
function probability(candidate, adequacy) {
  const [low, high] = candidate.p_interval ?? []; // 95 %, where the router's confidence says so
  const interval = low === undefined ? "" : ` (${percent(low)} to ${percent(high)})`;
  const vars = { "--share": candidate.p_success, "--line": adequacy ?? 2, "--low": low ?? 0, "--high": high ?? 0 };
  return [
    h("span", { class: "figure" }, percent(candidate.p_success, 1), h("span", { class: "faint" }, interval)),
    h("span", { class: "chance", "aria-hidden": "true", vars }, h("span", { class: "of" }), low === undefined ? null : h("span", { class: "range" }), adequacy ? h("span", { class: "line" }) : null),
  ];
}

function timeline({ timings, attempts: tried }) {
  const whole = timings.duration_ms || 1;
  const steps = [["our own work", 0, timings.overhead_ms ?? 0, "own"]];
  if (timings.ttft_ms !== null) {
    steps.push(["waiting for the first token", timings.overhead_ms ?? 0, timings.ttft_ms, "wait"]);
    steps.push(["generating", timings.ttft_ms, whole, "run"]);
  } else steps.push(["waiting for the answer", timings.overhead_ms ?? 0, whole, "run"]);
  const rows = steps.filter(([, from, to]) => to > from);
  return sheet(
    "Timeline",
    { size: "half", note: tried.length > 1 ? `${tried.length} attempts; the first token is the last one's` : null },
    h(
      "ol",
      { class: "timeline" },
      rows.map(([name, from, to, kind]) =>
        h("li", { class: kind, vars: { "--from": from / whole, "--to": Math.min(to / whole, 1) } }, h("span", {}, name), h("span", { class: "figure" }, ms(to - from)), h("span", { class: "lane", "aria-hidden": "true" }, h("span", {}))),
      ),
    ),
  );
}

function money(record) {
  const columns = [
    { label: "Cap", head: true, class: "name", cell: (r) => [scopeName(r.name ?? r.scope), r.by ? h("span", { class: "sub" }, `by the ${r.by}`) : null] },
    { label: "Limit", right: true, cell: (r) => usd(r.limit_usd) },
    { label: "Spent by now", right: true, cell: (r) => usd(record.caps_now?.[r.name]?.spent_usd) },
    { label: "Used", class: "used", cell: (r) => (record.caps_now?.[r.name] ? meter(record.caps_now[r.name].spent_usd, r.limit_usd, record.caps_now[r.name].reserved_usd) : NONE) },
  ];
  return sheet("Caps that bound it", { flush: true, size: "half" }, tableOf({ caption: "Caps", columns, empty: "No cap applied." }, record.caps));
}

function attempts(record) {
  const columns = [
    { label: "Attempt", head: true, class: "name", cell: (r) => [r.model, h("span", { class: "sub" }, `${r.provider}${r.status ? `, HTTP ${r.status}` : ""}, ${r.mode}`)] },
    { label: "Ended", cell: (r) => [outcomeMark(r.outcome), r.error ? h("span", { class: "sub" }, r.error) : null, r.cause ? h("span", { class: "sub" }, r.cause) : null] },
    { label: "Tightest cap", class: "name", cell: (r) => (r.budget?.scope ? scopeKind(r.budget.scope) : NONE) },
    { label: "Held at first", right: true, cell: (r) => usd(r.budget?.held_usd) },
    { label: "Left then", right: true, cell: (r) => usd(r.budget?.remaining_usd) },
    { label: "Charged", right: true, cell: (r) => usd(r.cost_usd) },
    { label: "Given back", right: true, cell: (r) => usd(r.budget?.refunded_usd) },
    { label: "Left after", right: true, cell: (r) => usd(r.budget?.remaining_after_usd) },
    { label: "Output limit", right: true, cell: (r) => (r.clamp_tokens === null ? "none" : count(r.clamp_tokens)) },
  ];
  const table = tableOf({ caption: "Attempts, with the budget at each moment", columns, empty: "No provider was asked." }, record.attempts);
  const denials = record.denials.map((denial) =>
    h("p", { class: "note inset" }, `${denial.model} was passed over: ${scopeKind(denial.scope)}'s cap${denial.limit_usd ? ` of ${usd(Number(denial.limit_usd))}` : ""}${denial.remaining_usd ? `, ${usd(Number(denial.remaining_usd))} left` : ""}.`),
  );
  return sheet("The money, attempt by attempt", { flush: true }, table, denials);
}

function context(record) {
  const facts = [
    ["Key", keyName(record.key)],
    ["Task", record.task_id === null ? "none: it is a task of its own" : taskLink(record.key, record.task_id)],
    ["Parent", record.parent_id],
    ["Program", record.harness || "unknown"],
    ["Asked for", record.requested_model],
    ["Stream", record.stream ? "yes" : "no"],
    ["Client's own id", record.client?.request_id],
    ["Policy", record.versions.policy],
    ["Prices", record.versions.prices],
    ["Router", record.versions.router],
    ["Outcome", outcome(record.outcome)[0]],
  ].filter(([, value]) => value !== null && value !== undefined);
  return sheet("Where it came from", {}, h("dl", { class: "facts" }, facts.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))));
}
