// Speed: who succeeds how fast and for how much, whether it got slower, and what went wrong.

import { fill, h } from "../dom.js";
import { NONE, count, moment, ms, percent, span, usd } from "../format.js";
import { mark, sheet } from "../parts.js";
import { rangedView } from "../ranged.js";
import { tableOf } from "../table.js";
import { outcome } from "../words.js";
import { frontierFigure } from "./speed_frontier.js";
import { radarFigure } from "./speed_radar.js";
import { MEASURES, trendFigure } from "./speed_trend.js";

const MOST_TOLD = 5;

export function speed(page, _, { every }) {
  return rangedView(page, every, {
    title: "Speed",
    note: "A run is a task, or a call without one. Times and costs are of runs that succeeded.",
    ask: "speed",
    range_s: 7 * 86_400,
    sign: (figures) => [figures.runs, figures.judged, figures.errors],
    draw,
  });
}

/** The view's sheets; the report has the same. */
export function draw(body, figures) {
  if (figures.runs === 0) {
    fill(body, sheet("Nothing yet", {}, h("p", { class: "empty" }, "No run ended in this time. Speed is measured on tasks and calls that went through the gateway; say how they went with POST /v1/feedback.")).element);
    return;
  }
  fill(body, [
    regressionsOf(figures),
    sheet("Speed Radar", { size: "half", note: "median time to success" }, radarFigure(figures.radar)).element,
    sheet("Cost-Speed Frontier", { size: "half", note: "cost and time of a success" }, frontierFigure(figures.frontier)).element,
    trendSheet(figures),
    sheet("Efficiency", { flush: true, note: `${count(figures.runs)} runs, ${count(figures.judged)} of them judged by somebody` }, efficiencyTable(figures)).element,
    sheet("Top error codes", { size: "half", note: "calls that did not end well" }, errorsOf(figures.errors)).element,
    sheet("By program", { size: "half", flush: true }, harnessTable(figures)).element,
  ].filter(Boolean));
}

function regressionsOf({ regressions }) {
  if (regressions.length === 0) return null;
  const items = regressions.slice(0, MOST_TOLD).map((one) =>
    h("li", {}, h("strong", {}, one.model), ` is ${percent(one.slower)} slower since ${moment(one.since_s)}: ${ms(one.now_ms)} to success in ${count(one.now_runs)} runs, ${ms(one.before_ms)} in ${count(one.before_runs)} before.`),
  );
  return h("section", { class: "alarm", "aria-label": "Speed regressions" }, h("h2", {}, regressions.length === 1 ? "A model got slower" : `${regressions.length} models got slower`), h("ul", {}, items), regressions.length > MOST_TOLD ? h("p", {}, `And ${regressions.length - MOST_TOLD} more, marked below.`) : null);
}

function trendSheet({ trend, regressions }) {
  let measure = "ms";
  const place = h("div", {});
  const show = () => fill(place, trendFigure(trend, measure, new Set(regressions.map((one) => one.model))));
  show();
  const menu = h(
    "select",
    { "aria-label": "What the trend shows", on: { change: (event) => { measure = event.target.value; show(); } } },
    Object.entries(MEASURES).map(([name, { label }]) => h("option", { value: name, selected: name === measure }, label)),
  );
  return sheet("Trend by model", { aside: menu, note: `one point for each ${span(trend.step_s)}` }, place).element;
}

function efficiencyTable({ models, regressions }) {
  const slower = new Map(regressions.map((one) => [one.model, one]));
  return tableOf(
    {
      caption: "Efficiency by model",
      most: 20,
      rowKey: (r) => r.model,
      columns: [
        { label: "Model", head: true, class: "name", cell: (r) => [r.model, slower.has(r.model) ? h("span", { class: "sub" }, mark(`${percent(slower.get(r.model).slower)} slower`, "warn")) : null] },
        ...common(),
      ],
    },
    models,
  );
}

function common() {
  const of = (read, write) => (r) => (read(r.efficiency) > 0 ? write(read(r.efficiency)) : NONE);
  return [
    { label: "Runs", right: true, cell: (r) => count(r.runs) },
    // What a provider failed, or its client broke off, counts neither way.
    { label: "Success", right: true, class: "nowrap", cell: (r) => [r.counted ? percent(r.success_rate) : NONE, r.counted && r.counted !== r.runs ? h("span", { class: "sub" }, `${count(r.passed)} of ${count(r.counted)}`) : null] },
    { label: "To success", right: true, class: "nowrap", cell: of((e) => e.median_time_to_success_ms, ms) },
    { label: "First attempt", right: true, class: "nowrap", cell: of((e) => e.median_time_to_first_attempt_ms, ms) },
    { label: "Turns", right: true, cell: of((e) => e.median_turns_to_success, (turns) => turns.toFixed(1)) },
    { label: "Tokens/s", right: true, cell: of((e) => e.median_tokens_per_sec, (rate) => rate.toFixed(rate < 10 ? 1 : 0)) },
    { label: "Cost of a success", right: true, class: "nowrap", cell: (r) => [usd(r.cost_per_success_usd), r.efficiency.p90_cost_per_success > 0 ? h("span", { class: "sub" }, `p90 ${usd(r.efficiency.p90_cost_per_success)}`) : null] },
    { label: "Score", right: true, cell: (r) => (r.passed ? r.efficiency.speed_efficiency_score.toFixed(3) : NONE) },
    { label: "Cost-killed", right: true, cell: (r) => count(r.efficiency.cost_killed_count) },
  ];
}

function harnessTable({ harnesses }) {
  const kept = common().filter((column) => ["Runs", "Success", "To success", "Score"].includes(column.label));
  return tableOf({ caption: "Efficiency by program", rowKey: (r) => r.harness, columns: [{ label: "Program", head: true, class: "name", cell: (r) => r.harness }, ...kept] }, harnesses);
}

function errorsOf(errors) {
  if (errors.length === 0) return h("p", { class: "empty" }, "Every call of this time ended well.");
  const most = errors[0].calls;
  return h(
    "ul",
    { class: "bars" },
    errors.map((one) => {
      const [words, kind] = outcome(one.outcome);
      const models = one.models.slice(0, 3).map(([model, calls]) => `${model || "nobody asked"} ${count(calls)}`);
      return h(
        "li",
        { class: kind || null },
        h("span", {}, h("code", {}, one.outcome), h("span", { class: "faint" }, ` ${words}`)),
        h("span", { class: "figure" }, count(one.calls)),
        h("span", { class: "bar", vars: { "--share": one.calls / most } }),
        h("span", { class: "sub faint" }, models.join(", "), one.models.length > 3 ? ", …" : ""),
      );
    }),
  );
}
