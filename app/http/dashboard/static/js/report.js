// The report: the figures in the page, drawn as the dashboard draws them.

import { h } from "./dom.js";
import { count, moment, ms, percent, span, usd } from "./format.js";
import { choice, outcomeMark, pageHead, sheet, stats } from "./parts.js";
import { tableOf } from "./table.js";
import { themeButton } from "./theme.js";
import { WINDOWS, burnChart, forecast, ownerName } from "./views/budgets.js";
import { draw as drawLearning } from "./views/learning.js";
import { endingsOf, spendChart } from "./views/now.js";
import { draw as drawSpeed } from "./views/speed.js";
import { scopeKind } from "./words.js";

const figures = JSON.parse(document.getElementById("figures").textContent);
const main = document.getElementById("main");

function chapter(title, draw) {
  const body = h("div", { class: "grid" });
  main.append(h("h2", { class: "chapter" }, title), body);
  draw(body);
}

function totals({ totals: all }) {
  const facts = stats({ spent: "Spent", calls: "Calls", cut: "Cut at a cap", denied: "Denied", first: "First token", overhead: "Own overhead" });
  facts.set("spent", usd(all.cost_usd), all.unknown_cost ? `${count(all.unknown_cost)} calls of unknown cost` : "");
  facts.set("calls", count(all.calls));
  facts.set("cut", count(all.cut));
  facts.set("denied", count(all.denied));
  facts.set("first", ms(all.ttft_ms?.p50), all.ttft_ms ? `median, p99 ${ms(all.ttft_ms.p99)}` : "");
  facts.set("overhead", ms(all.overhead_ms?.p50), all.overhead_ms ? `median, p99 ${ms(all.overhead_ms.p99)}` : "");
  return facts.element;
}

function spending(body) {
  const { overview } = figures;
  const made = sheet("Over time, by", {
    size: "two-thirds",
    aside: choice("Group spending by", [["key", "Key"], ["task", "Task"], ["model", "Model"]], "key", (group) => made.show(spendChart(overview, group))),
  });
  made.show(spendChart(overview, "key"));
  body.append(
    made.element,
    sheet("How calls ended", { size: "third" }, endingsOf(overview.outcomes)).element,
    sheet("Models", { flush: true, size: "half" }, tableOf({ caption: "Models", columns: MODELS, empty: "No provider was asked." }, overview.models)).element,
    sheet("Cut and denied", { flush: true, size: "half" }, tableOf({ caption: "The latest calls that a cap cut or denied", columns: STOPPED, empty: "None.", most: 12 }, overview.stopped)).element,
  );
}

const MODELS = [
  { label: "Model", head: true, class: "name", cell: (r) => [r.model, h("span", { class: "sub" }, r.provider)] },
  { label: "Calls", right: true, class: "nowrap", cell: (r) => [count(r.calls), h("span", { class: "sub" }, `${percent(r.failed / r.calls, 1)} failed`)] },
  { label: "Spent", right: true, cell: (r) => usd(r.cost_usd) },
  { label: "First token", right: true, class: "nowrap", cell: (r) => [ms(r.ttft_ms), r.tokens_per_s ? h("span", { class: "sub" }, `${count(r.tokens_per_s)} tokens/s`) : null] },
];

const STOPPED = [
  { label: "When", head: true, class: "nowrap", cell: (r) => moment(r.created_s) },
  { label: "What", class: "nowrap", cell: (r) => outcomeMark(r.outcome) },
  { label: "Task", class: "name", cell: (r) => r.task_id ?? "none" },
  { label: "Whose cap", cell: (r) => scopeKind(r.cut_scope ?? r.denied_scope ?? "") },
  { label: "Cost", right: true, cell: (r) => usd(r.cost_usd) },
];

function budgets(body) {
  const { budgets: found } = figures;
  if (found === null) {
    body.append(sheet("Budgets", {}, h("p", { class: "empty" }, "There is no ledger yet: nothing was spent.")).element);
    return;
  }
  const rows = found.windows.filter((row) => row.limit_usd !== null || row.spent_usd > 0);
  body.append(sheet("As they stood", { flush: true }, tableOf({ caption: "Windows of everybody, of teams and of keys", columns: BUDGETS, empty: "Nothing was spent, and no window has a limit." }, rows)).element);
  for (const row of rows.filter((one) => one.points)) {
    body.append(sheet(`${ownerName(row)}, ${WINDOWS[row.window]}`, { size: "half" }, burnChart(row, row.points, row.since_s, found.as_of_s)).element);
  }
}

const BUDGETS = [
  { label: "Whose", head: true, class: "name", cell: (r) => [ownerName(r), h("span", { class: "sub" }, WINDOWS[r.window])] },
  { label: "Spent", right: true, class: "nowrap", cell: (r) => usd(r.spent_usd, 4) },
  { label: "Limit", right: true, class: "nowrap", cell: (r) => (r.limit_usd === null ? "none" : usd(r.limit_usd, 2)) },
  { label: "Calls", right: true, cell: (r) => count(r.calls) },
  { label: "Forecast", class: "name", cell: forecast },
];

const range = `${moment(figures.since_s)} to ${moment(figures.made_s)}, ${span(figures.made_s - figures.since_s)}`;
themeButton(document.getElementById("theme"));
main.append(pageHead("Report", `${range}. Made ${new Date(figures.made_s * 1000).toLocaleString("en")}.`), totals(figures.overview));
chapter("Spending", spending);
chapter("Speed", (body) => drawSpeed(body, figures.speed));
chapter("Learning", (body) => drawLearning(body, figures.learning));
chapter("Budgets", budgets);
