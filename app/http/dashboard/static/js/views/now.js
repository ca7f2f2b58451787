// Now: what runs and what it costs against its cap, what was spent, cut and denied, and how providers are.

import { get } from "../api.js";
import { basics, chart, legend, seriesColour, timeAxis, valueAxis } from "../charts.js";
import { fill, h, setText } from "../dom.js";
import { NONE, count, decimalsFor, keyName, moment, ms, percent, span, usd } from "../format.js";
import { watch } from "../live.js";
import { RANGES, callLink, choice, fault, mark, meter, outcomeMark, pageHead, reading, sheet, stats, taskLink } from "../parts.js";
import { makeTable } from "../table.js";
import { outcome, scopeKind } from "../words.js";

const REFRESH_S = 15;
const REST = "…";

export async function now(page, _, { onLeave, every }) {
  let range = 86_400;
  let group = "key";
  let figures = null;
  let latest = null;

  const facts = stats({
    flight: "In flight",
    today: "Spent today",
    held: "Held now",
    cut: "Cut at a cap",
    denied: "Denied",
    overhead: "Own overhead",
  });
  const calls = makeTable(CALLS);
  const stopped = makeTable(STOPPED);
  const health = makeTable(HEALTH);
  const gateways = makeTable(GATEWAYS);
  const fleet = sheet("Gateways", { flush: true }, gateways.element).element;
  fleet.hidden = true;
  const total = h("p", {});
  const spending = sheet("Spending", {
    aside: choice("Group spending by", [["key", "Key"], ["task", "Task"], ["model", "Model"]], group, (value) => {
      group = value;
      draw();
    }),
    size: "two-thirds",
  });
  const endings = sheet("How calls ended", { size: "third" });
  const trouble = h("div", {});

  fill(
    page,
    pageHead("Now", null, choice("Time range", RANGES, range, (value) => {
      range = value;
      load();
    })),
    trouble,
    facts.element,
    h("div", { class: "grid" }, [
      sheet("Calls under way", { flush: true, aside: h("p", { id: "elsewhere" }) }, calls.element).element,
      fleet,
      spending.element,
      endings.element,
      sheet("Cut and denied", { flush: true, size: "half" }, stopped.element).element,
      sheet("Providers", { flush: true, size: "half" }, health.element).element,
    ]),
  );
  spending.show(reading());
  endings.show(reading());

  function draw() {
    if (figures === null) return;
    const { totals } = figures;
    setText(total, `${usd(totals.cost_usd)} for ${count(totals.calls)} calls`);
    fill(spending.body, total, spendChart(figures, group));
    fill(endings.body, endingsOf(figures.outcomes));
    stopped.update(figures.stopped);
    facts.set("cut", count(totals.cut), `in ${rangeName(range)}`);
    facts.set("denied", count(totals.denied), `in ${rangeName(range)}`);
    const own = totals.overhead_ms;
    facts.set("overhead", ms(own?.p50), own ? `median, p99 ${ms(own.p99)}` : "no calls yet");
    drawHealth();
  }

  function drawHealth() {
    if (latest === null) return;
    const known = new Map((figures?.models ?? []).map((one) => [`${one.model} ${one.provider}`, one]));
    const rows = latest.circuits.map((circuit) => ({ ...circuit, of_processes: latest.workers, of: known.get(`${circuit.model} ${circuit.provider}`) ?? null }));
    const callsOf = (row) => row.of?.calls ?? 0;
    health.update(rows.sort((one, other) => (one.state === "closed") - (other.state === "closed") || callsOf(other) - callsOf(one)));
  }

  function live(moment_) {
    latest = moment_;
    const { in_flight: all, calls: shown, workers, gateways: known } = moment_;
    const several = known.length > 1;
    calls.update(several ? shown : shown.map((call) => ({ ...call, gateway: null })));
    fleet.hidden = !several;
    gateways.update(known);
    setText(document.getElementById("elsewhere"), all > shown.length ? `the ${shown.length} oldest of ${count(all)}` : "");
    facts.set("flight", count(all), whereRun(workers, known, moment_.draining));
    const everybody = moment_.everybody;
    if (everybody === null) facts.set("today", NONE, "the ledger does not answer");
    else {
      const cap = everybody.limit_usd ?? null;
      facts.set("today", usd(everybody.spent_usd ?? 0), cap === null ? "no cap for everybody" : meter(everybody.spent_usd, cap, everybody.reserved_usd), cap === null ? "" : `of ${usd(cap)}`);
      facts.set("held", usd(everybody.reserved_usd ?? 0), "for running calls");
    }
    fill(trouble, troubles(moment_));
    drawHealth();
  }

  async function load() {
    try {
      figures = await get(`overview?since=${range}`);
      draw();
    } catch (error) {
      if (error.status === 401 || error.status === 403) throw error;
      fill(figures === null ? spending.body : trouble, fault(error)); // what is known stays
    }
  }

  onLeave(watch(live));
  every(REFRESH_S, load);
  await load();
}

function rangeName(range) {
  return { 3600: "the last hour", 86_400: "24 hours", 604_800: "7 days", 2_592_000: "30 days" }[range];
}

function whereRun(workers, known, draining) {
  if (known.length > 1) return workers > known.length ? `in ${known.length} gateways, ${workers} workers` : `in ${known.length} gateways`;
  if (draining) return "draining";
  return workers > 1 ? `in ${workers} workers` : "";
}

function troubles(moment_) {
  const told = [];
  if (!moment_.ledger_up) told.push("The ledger does not answer: what the policy says for that case applies.");
  if (moment_.policy.problems > 0) told.push("The policy on disk has problems, and the last good one is in force: see Policy.");
  if (moment_.draining) told.push("This gateway is draining: calls under way finish, new ones go elsewhere.");
  return told.map((text) => h("p", { class: "fault" }, text));
}

const CALLS = {
  caption: "Calls under way",
  empty: "No call is under way. New ones appear here by themselves.",
  rowKey: (row) => row.request_id,
  columns: [
    { label: "Task or call", head: true, class: "name", sign: (r) => [r.request_id, r.gateway], cell: (r) => [r.task_id === null ? callLink(r.request_id) : taskLink(r.key, r.task_id), r.gateway === null ? null : h("span", { class: "sub" }, `at ${r.gateway}`)] },
    { label: "Key", sign: (r) => r.key, cell: (r) => keyName(r.key) },
    { label: "Model", class: "name", sign: (r) => [r.model, r.requested_model], cell: (r) => [r.model ?? "being decided", h("span", { class: "sub" }, r.model === r.requested_model ? r.provider : `asked for ${r.requested_model}`)] },
    { label: "For", right: true, class: "nowrap", sign: (r) => Math.round(r.age_s), cell: (r) => `${Math.round(r.age_s)} s` },
    { label: "Output", right: true, sign: (r) => r.output_tokens, cell: (r) => count(r.output_tokens) },
    { label: "Cost so far", right: true, class: "nowrap", sign: (r) => r.running_usd, cell: (r) => usd(r.running_usd, 5) },
    { label: "Cap", right: true, class: "nowrap", sign: (r) => [r.cap_usd === null ? null : usd(r.cap_usd, 3), r.scope], cell: (r) => (r.cap_usd === null ? "none" : [usd(r.cap_usd, 3), h("span", { class: "sub" }, scopeKind(r.scope))]) },
    { label: "Used", class: "used", sign: (r) => [r.running_usd, r.cap_usd], cell: (r) => meter(r.running_usd, r.cap_usd) },
  ],
};

const GATEWAYS = {
  caption: "The gateways that share this ledger",
  empty: "",
  rowKey: (row) => row.id,
  columns: [
    { label: "Gateway", head: true, class: "name", sign: (r) => r.name, cell: (r) => r.name },
    { label: "State", class: "nowrap", sign: (r) => r.draining, cell: (r) => (r.draining ? mark("draining", "warn") : mark("serving", "good")) },
    { label: "Workers", right: true, sign: (r) => r.workers, cell: (r) => count(r.workers) },
    { label: "In flight", right: true, sign: (r) => r.in_flight, cell: (r) => count(r.in_flight) },
  ],
};

const STOPPED = {
  caption: "The latest calls that a cap cut or denied",
  most: 6,
  empty: "No call was cut or denied in this time.",
  rowKey: (row) => row.request_id,
  columns: [
    { label: "When", head: true, class: "nowrap", sign: (r) => r.request_id, cell: (r) => callLink(r.request_id, moment(r.created_s)) },
    { label: "What", sign: (r) => r.outcome, cell: (r) => outcomeMark(r.outcome) },
    { label: "Task", class: "name", sign: (r) => r.task_id, cell: (r) => (r.task_id === null ? h("span", { class: "faint" }, "none") : taskLink(r.key, r.task_id)) },
    { label: "Cap", sign: (r) => r.request_id, cell: (r) => scopeKind(r.cut_scope ?? r.denied_scope ?? "") },
    { label: "Cost", right: true, sign: (r) => r.cost_usd, cell: (r) => usd(r.cost_usd) },
  ],
};

const CIRCUITS = { closed: ["healthy", "good"], half_open: ["trying again", "warn"], open: ["left out", "bad"] };

/** Why it is left out, for how long, and in how many of several processes: each has circuits of its own. */
function circuitNotes({ why, again_s: again, processes, of_processes: all }) {
  const notes = why ? [why] : [];
  if (again) notes.push(`for ${Math.ceil(again)} s more`);
  if (processes > 0 && all > 1) notes.push(`in ${processes} of ${all} workers`);
  return notes;
}

function rate(tokens) {
  return `${tokens < 10 ? tokens.toFixed(1) : count(tokens)} tokens/s`;
}

const HEALTH = {
  caption: "Providers and their circuits, with how calls went in the chosen time",
  most: 12,
  empty: "The policy lists no models.",
  rowKey: (row) => `${row.model} ${row.provider}`,
  columns: [
    { label: "Model", head: true, class: "name", sign: (r) => r.model, cell: (r) => [r.model, h("span", { class: "sub" }, r.provider)] },
    { label: "Circuit", class: "wrap", sign: (r) => [r.state, r.why, r.failures, Math.ceil(r.again_s ?? 0), r.processes, r.of_processes], cell: (r) => [mark(...CIRCUITS[r.state]), ...circuitNotes(r).map((note) => h("span", { class: "sub" }, note))] },
    { label: "Calls", right: true, class: "nowrap", sign: (r) => [r.of?.calls, r.of?.failed], cell: ({ of }) => [count(of?.calls ?? 0), of ? h("span", { class: "sub" }, `${percent(of.failed / of.calls, 1)} failed`) : null] },
    { label: "First token", right: true, class: "nowrap", sign: (r) => [r.of?.ttft_ms, r.of?.tokens_per_s], cell: ({ of }) => [ms(of?.ttft_ms), of?.tokens_per_s ? h("span", { class: "sub" }, rate(of.tokens_per_s)) : null] },
  ],
};

function seriesName(name, group) {
  if (name === REST) return "all others";
  if (name === "") return group === "task" ? "no task" : "nobody was asked";
  return group === "key" ? keyName(name) : name;
}

export function spendChart({ spend, since_s, until_s, step_s }, group) {
  const { series } = spend[group];
  if (series.length === 0) return h("p", { class: "empty" }, "Nothing was spent in this time.");
  const names = series.map((one) => seriesName(one.name, group));
  const decimals = decimalsFor(series.map((one) => one.usd));
  const moments = [];
  for (let at = Math.floor(since_s / step_s) * step_s; at < until_s; at += step_s) moments.push(at);
  const config = () => ({
    type: "bar",
    data: {
      datasets: series.map((one, index) => ({
        label: names[index],
        data: filled(moments, one.points),
        backgroundColor: seriesColour(index),
        barPercentage: 1,
        categoryPercentage: 0.86,
        borderRadius: 1,
      })),
    },
    options: basics({
      interaction: { mode: "x", intersect: false },
      scales: {
        x: { ...timeAxis(moments[0] - step_s / 2, moments.at(-1) + step_s / 2), stacked: true },
        y: { ...valueAxis((value) => usd(value)), stacked: true },
      },
      plugins: {
        tooltip: {
          ...basics().plugins.tooltip,
          filter: (item) => item.raw.y > 0,
          callbacks: {
            title: (items) => (items.length ? `${moment(items[0].raw.x)}, ${span(step_s)}` : ""),
            label: (item) => ` ${item.dataset.label}: ${usd(item.raw.y)}`,
          },
        },
      },
    }),
  });
  const most = names[0];
  return [
    legend(names),
    chart({
      title: `Spending by ${group}`,
      says: `Stacked bars, one for each ${span(step_s)}. ${most} spent most, ${usd(series[0].usd)}.`,
      config,
      table: {
        columns: [
          { label: group === "key" ? "Key" : group === "task" ? "Task" : "Model", head: true, class: "name", cell: (r) => r.label },
          { label: "Calls", right: true, cell: (r) => count(r.calls) },
          { label: "Spent", right: true, cell: (r) => usd(r.usd, decimals) },
        ],
        rows: series.map((one, index) => ({ ...one, label: names[index] })),
      },
    }),
  ];
}

function filled(moments, points) {
  const known = new Map(points);
  return moments.map((at) => ({ x: at, y: known.get(at) ?? 0 }));
}

export function endingsOf(outcomes) {
  if (outcomes.length === 0) return h("p", { class: "empty" }, "No call ended in this time.");
  const all = outcomes.reduce((sum, one) => sum + one.calls, 0);
  return h(
    "ul",
    { class: "bars" },
    outcomes.map((one) => {
      const [words, kind] = outcome(one.outcome);
      return h(
        "li",
        { class: kind || null },
        h("span", {}, words),
        h("span", { class: "figure" }, count(one.calls), h("span", { class: "faint" }, ` ${percent(one.calls / all, one.calls / all < 0.1 ? 1 : 0)}`)),
        h("span", { class: "bar", vars: { "--share": one.calls / outcomes[0].calls } }),
      );
    }),
  );
}

