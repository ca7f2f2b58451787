// Budgets: windows of everybody, of teams and of keys, tasks, how they burn down and when they run out.

import { get, query } from "../api.js";
import { basics, chart, timeAxis, valueAxis } from "../charts.js";
import { fill, h, setText } from "../dom.js";
import { NONE, count, moment, span, usd } from "../format.js";
import { fault, mark, meter, pageHead, reading, sheet, taskLink } from "../parts.js";
import { makeTable } from "../table.js";
import { colour } from "../theme.js";
import { byFullness, ratesTable, untilWhen } from "./budgets_rates.js";

const REFRESH_S = 10;
const MONTH_S = 30 * 86_400;

export async function budgets(page, _, { every }) {
  let chosen = null;
  let data = null;
  let drawn = false;
  const windows = makeTable(windowTable((row) => pick(row)));
  const tasks = makeTable(TASKS);
  const rates = makeTable(ratesTable(ownerName));
  const minute = h("p", {});
  const rated = sheet("Rates, this minute", { flush: true, aside: minute }, rates.element).element;
  rated.hidden = true;
  const burn = sheet("Burn-down", {}, reading());
  const pace = h("p", {});
  const trouble = h("div", {});
  fill(
    page,
    pageHead("Budgets", "What may be spent, what was, and when it runs out if it goes on like this."),
    trouble,
    h("div", { class: "grid" }, [
      sheet("Everybody, teams and keys", { flush: true, aside: pace }, windows.element).element,
      burn.element,
      rated,
      sheet("Tasks", { flush: true, note: "the latest used, each with its own cap" }, tasks.element).element,
    ]),
  );

  async function pick(row) {
    chosen = row.scope;
    windows.update(rows());
    await drawBurn(row);
  }

  // What has a limit comes first: it is what can run out.
  const rows = () =>
    data.windows
      .map((row) => ({ ...row, chosen: row.scope === chosen }))
      .sort((one, other) => (one.limit_usd === null) - (other.limit_usd === null) || rank(one) - rank(other));

  async function drawBurn(row) {
    const since = row.since_s ?? Date.now() / 1000 - 30 * 86_400;
    try {
      const { points } = await get(`burn?${query({ from: Math.floor(since), key: row.key, team: row.team })}`);
      if (chosen === row.scope) burn.show(burnChart(row, points, since, data.as_of_s));
    } catch (error) {
      burn.show(fault(error));
    }
  }

  async function load() {
    try {
      data = await get("budgets");
    } catch (error) {
      if (error.status === 401 || error.status === 403) throw error;
      fill(trouble, fault(error));
      return;
    }
    fill(trouble);
    fill(pace, data.pace === "day" ? "pace: the last 24 hours" : "pace: since each window began");
    chosen ??= (data.windows.find((row) => row.limit_usd !== null) ?? data.windows[0])?.scope ?? null;
    windows.update(rows());
    tasks.update(data.tasks);
    rated.hidden = data.rates.length === 0;
    rates.update(byFullness(data.rates));
    setText(minute, untilWhen(data.rates));
    if (drawn) return;
    drawn = true;
    const first = data.windows.find((row) => row.scope === chosen);
    if (first) await drawBurn(first);
    else burn.show(h("p", { class: "empty" }, "Nothing was spent yet, and no window has a limit."));
  }

  every(REFRESH_S, load);
  await load();
}

/** Everybody first, then teams, then keys. */
const rank = (row) => (row.key !== null ? 2 : row.team !== null ? 1 : 0);

export function ownerName(row) {
  return row.key ?? (row.team === null ? "Everybody" : `Team ${row.team}`);
}

export const WINDOWS = { hour: "this hour", day: "today", month: "this month", total: "in total" };

function windowTable(pick) {
  return {
    caption: "Windows of everybody, of teams and of keys",
    most: 9,
    empty: "Nothing was spent yet, and no window has a limit.",
    rowKey: (row) => row.scope,
    columns: [
      { label: "Whose", head: true, class: "name", sign: (r) => r.scope, cell: (r) => [ownerName(r), h("span", { class: "sub" }, WINDOWS[r.window])] },
      { label: "Spent", right: true, class: "nowrap", sign: (r) => r.spent_usd, cell: (r) => usd(r.spent_usd, 4) },
      { label: "Held", right: true, class: "nowrap", sign: (r) => r.reserved_usd, cell: (r) => usd(r.reserved_usd, 4) },
      { label: "Limit", right: true, class: "nowrap", sign: (r) => r.limit_usd, cell: (r) => (r.limit_usd === null ? h("span", { class: "faint" }, "none") : usd(r.limit_usd, 2)) },
      { label: "Used", class: "used", sign: (r) => [r.spent_usd, r.reserved_usd, r.limit_usd], cell: (r) => (r.limit_usd === null ? null : meter(r.spent_usd, r.limit_usd, r.reserved_usd)) },
      { label: "Calls", right: true, sign: (r) => [r.calls, r.running, r.max_parallel_requests], cell: calls },
      { label: "Forecast", class: "name", sign: (r) => [r.forecast.verdict, Math.round(r.forecast.at_s ?? 0)], cell: forecast },
      { label: "Burn-down", sign: (r) => [r.scope, r.chosen], cell: (r) => h("button", { type: "button", class: "quiet", "aria-pressed": String(r.chosen), "aria-label": `${r.chosen ? "shown" : "show"}: burn-down of ${ownerName(r)}, ${WINDOWS[r.window]}`, on: { click: () => pick(r) } }, r.chosen ? "shown" : "show") },
    ],
  };
}

/** All there were, and where so many may run at a time, how many do. */
function calls(row) {
  const { calls: all, running, max_parallel_requests: most } = row;
  return most === null ? count(all) : [count(all), h("span", { class: "sub" }, `${count(running)} of ${count(most)} now`)];
}

/** When it runs out, in words. */
export function forecast({ forecast: told, refills_s: refills }) {
  const soon = told.at_s === null ? "" : `in ${span(told.at_s - Date.now() / 1000)}`;
  switch (told.verdict) {
    case "spent":
      return [mark("nothing left", "bad"), refills ? h("span", { class: "sub" }, `refills ${moment(refills)}`) : null];
    case "runs_out":
      return [mark(`runs out ${soon}`, "warn"), h("span", { class: "sub" }, `${moment(told.at_s)}, at ${usd(told.per_day_usd)} a day`)];
    case "lasts":
      return [mark("lasts", "good"), h("span", { class: "sub" }, `at ${usd(told.per_day_usd)} a day, until it refills ${moment(refills)}`)];
    case "idle":
      return h("span", { class: "faint" }, "nothing is being spent");
    default:
      return h("span", { class: "faint" }, told.per_day_usd > 0 ? `${usd(told.per_day_usd)} a day, no limit` : "no limit");
  }
}

/** A task that nobody works on any more will not run out, whatever its pace was. */
function taskForecast({ state, exhausted, forecast: told, reserved_usd: held }) {
  if (exhausted || told.verdict === "spent") return mark("nothing left", "bad");
  if (state !== "open" || told.at_s === null) return "";
  const left = told.at_s - Date.now() / 1000;
  if (left < 86_400 && held > 0) return mark(`runs out in ${span(left)}`, "warn");
  return h("span", { class: "faint" }, left < MONTH_S ? `${span(left)} at its pace` : "not within a month");
}

const TASKS = {
  caption: "Tasks with their caps",
  most: 15,
  empty: "No task has been named yet: put one into X-Bursar-Task-Id, or start one with bursar run.",
  rowKey: (row) => row.scope,
  columns: [
    { label: "Task", head: true, class: "name", sign: (r) => r.scope, cell: (r) => [taskLink(r.key, r.id), h("span", { class: "sub" }, r.key === "-" ? "no key" : r.key)] },
    { label: "State", class: "nowrap", sign: (r) => [r.state, r.exhausted], cell: (r) => (r.exhausted ? mark("cut", "bad") : mark(r.state, r.state === "open" ? "good" : "warn")) },
    { label: "Spent", right: true, class: "nowrap", sign: (r) => r.spent_usd, cell: (r) => usd(r.spent_usd, 4) },
    { label: "Held", right: true, class: "nowrap", sign: (r) => r.reserved_usd, cell: (r) => usd(r.reserved_usd, 4) },
    { label: "Cap", right: true, class: "nowrap", sign: (r) => r.limit_usd, cell: (r) => (r.limit_usd === null ? h("span", { class: "faint" }, "none") : usd(r.limit_usd, 2)) },
    { label: "Used", class: "used", sign: (r) => [r.spent_usd, r.reserved_usd, r.limit_usd], cell: (r) => (r.limit_usd === null ? null : meter(r.spent_usd, r.limit_usd, r.reserved_usd)) },
    { label: "Calls", right: true, sign: (r) => r.calls, cell: (r) => count(r.calls) },
    { label: "Tokens", right: true, sign: (r) => r.tokens, cell: (r) => count(r.tokens) },
    { label: "Forecast", class: "nowrap", sign: (r) => [r.state, r.exhausted, r.forecast.verdict, Math.round((r.forecast.at_s ?? 0) / 60)], cell: taskForecast },
    { label: "Began", right: true, class: "nowrap", sign: (r) => r.began_s, cell: (r) => (r.began_s === null ? NONE : moment(r.began_s)) },
  ],
};

export function burnChart(row, points, since, now) {
  const { limit_usd: limit, forecast: told } = row;
  const title = `${ownerName(row)}, ${WINDOWS[row.window]}`;
  const spent = row.spent_usd;
  const until = row.refills_s ?? (told.at_s === null ? now : Math.min(told.at_s, now + 30 * 86_400));
  // Without a limit nothing burns down: then what was spent is shown as it grows.
  const left = (usd_) => (limit === null ? usd_ : Math.max(limit - usd_, 0));
  const past = [{ x: since, y: left(0) }, ...points.map(([at, sum]) => ({ x: at, y: left(sum) })), { x: now, y: left(spent) }];
  const ahead = [{ x: now, y: left(spent) }];
  if (limit !== null && told.at_s !== null && told.at_s < until) ahead.push({ x: told.at_s, y: 0 }, { x: until, y: 0 });
  else ahead.push({ x: until, y: left(spent + (told.per_day_usd * (until - now)) / 86_400) });
  const config = () => ({
    type: "line",
    data: {
      datasets: [
        { label: limit === null ? "spent" : "left", data: past, stepped: true, borderColor: colour("accent"), borderWidth: 2, borderJoinStyle: "round", pointRadius: 0 },
        { label: "at this pace", data: ahead, borderColor: colour("warn"), borderDash: [5, 4], borderWidth: 2, borderJoinStyle: "round", pointRadius: 0 },
      ],
    },
    options: basics({
      scales: { x: timeAxis(since, Math.max(until, now + 60)), y: valueAxis((value) => usd(value)) },
      plugins: { tooltip: { ...basics().plugins.tooltip, callbacks: { title: (items) => moment(items[0].raw.x), label: (item) => ` ${item.dataset.label} ${usd(item.raw.y)}` } } },
    }),
  });
  const says = limit === null ? `${usd(spent)} spent, no limit.` : `${usd(left(spent))} of ${usd(limit)} left.`;
  return [
    h("p", { class: "note lead" }, `${title}: ${says} `, limit === null ? null : h("span", {}, "Solid: what was left; dashed: where it goes at this pace.")),
    chart({ title: `Burn-down of ${title}`, says, config, table: { columns: [{ label: "When", head: true, cell: (r) => moment(r.x) }, { label: limit === null ? "Spent" : "Left", right: true, cell: (r) => usd(r.y) }], rows: past.filter((_, at) => at % Math.ceil(past.length / 24) === 0 || at === past.length - 1) } }),
  ];
}
