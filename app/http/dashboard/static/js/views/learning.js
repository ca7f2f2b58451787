// Learning: whether predictions hold, what drifts, what was published, what exploring costs, how splits compare.

import { basics, chart, legend, seriesColour, timeAxis, valueAxis } from "../charts.js";
import { fill, h } from "../dom.js";
import { NONE, count, moment, ms, percent, usd } from "../format.js";
import { mark, sheet } from "../parts.js";
import { rangedView } from "../ranged.js";
import { tableOf } from "../table.js";
import { colour } from "../theme.js";

export function learning(page, _, { every }) {
  return rangedView(page, every, {
    title: "Learning",
    note: "What the routers believed, and what came of it.",
    ask: "learning",
    range_s: 30 * 86_400,
    sign: (figures) => ({ ...figures, since_s: 0, until_s: 0 }),
    draw,
  });
}

/** The view's sheets; the report has the same. */
export function draw(body, figures) {
  fill(body, [
    sheet("Calibration", { size: "half", note: `${count(figures.judged)} of ${count(figures.runs)} runs were judged by somebody` }, calibrationFigure(figures.calibration)).element,
    h("div", { class: "half stack" }, [
      sheet("A/B splits", { flush: true, note: "a task keeps its side, so runs are compared" }, splitsTable(figures.splits)).element,
      sheet("Exploration", { note: "calls sent elsewhere to learn from them" }, explorationFigure(figures)).element,
      sheet("Drift alarms", { flush: true, note: "models that became worse at a kind of work" }, driftTable(figures.drift ?? null)).element,
    ]),
    sheet("Snapshots", { flush: true, note: "what the learner published, the latest first" }, snapshotsTable(figures.snapshots ?? null)).element,
  ]);
}

function calibrationFigure(routers) {
  if (routers.length === 0) return h("p", { class: "empty" }, "Nothing yet: no run that a router decided has been judged. Say how runs went with POST /v1/feedback.");
  const names = routers.map((one) => one.router);
  const rows = routers.flatMap((one) => one.bins.map((bin) => ({ ...bin, router: one.router })));
  return [
    legend(names),
    chart({
      title: "Calibration diagram",
      says: routers.map((one) => `${one.router}: ${percent(one.observed)} succeeded where ${percent(one.predicted)} was predicted, expected calibration error ${percent(one.error, 1)}, in ${count(one.runs)} runs`).join(". "),
      config: () => diagram(routers),
      size: "tall",
      table: {
        columns: [
          { label: "Router and bin", head: true, class: "name", cell: (r) => [r.router, h("span", { class: "sub" }, `${percent(r.from)} to ${percent(r.to)}`)] },
          { label: "Predicted", right: true, cell: (r) => percent(r.predicted, 1) },
          { label: "Observed", right: true, cell: (r) => percent(r.observed, 1) },
          { label: "95 % interval", right: true, class: "nowrap", cell: (r) => `${percent(r.low)} to ${percent(r.high)}` },
          { label: "Runs", right: true, cell: (r) => count(r.runs) },
        ],
        rows,
      },
    }),
    h("ul", { class: "lines" }, routers.map((one) => h("li", { class: "note" }, `${one.router}: error ${percent(one.error, 1)}, Brier ${one.brier.toFixed(3)}, ${count(one.runs)} runs.`))),
    h("p", { class: "note" }, "On the diagonal predictions hold. Bars are 95 % intervals; a run's prediction is the mean of its calls'."),
  ];
}

/** Draws the interval of each point of the datasets that have them. */
const intervals = {
  id: "intervals",
  afterDatasetsDraw({ ctx, scales: { x, y }, data }) {
    ctx.save();
    ctx.lineWidth = 1.5;
    for (const { data: points, borderColor } of data.datasets) {
      for (const point of points) {
        if (point.bin === undefined) continue;
        ctx.strokeStyle = borderColor;
        ctx.beginPath();
        ctx.moveTo(x.getPixelForValue(point.x), y.getPixelForValue(point.bin.low));
        ctx.lineTo(x.getPixelForValue(point.x), y.getPixelForValue(point.bin.high));
        ctx.stroke();
      }
    }
    ctx.restore();
  },
};

function diagram(routers) {
  const share = (title) => ({ type: "linear", min: 0, max: 1, title: { display: true, text: title }, grid: { color: colour("line") }, border: { display: false }, ticks: { callback: (value) => percent(value), stepSize: 0.2 } });
  return {
    type: "scatter",
    plugins: [intervals],
    data: {
      datasets: [
        ...routers.map((one, at) => ({
          label: one.router,
          data: one.bins.map((bin) => ({ x: bin.predicted, y: bin.observed, bin })),
          borderColor: seriesColour(at),
          backgroundColor: seriesColour(at),
          clip: false,
          pointRadius: ({ raw }) => (raw?.bin ? Math.min(3 + Math.sqrt(raw.bin.runs) / 2, 10) : 0),
        })),
        { type: "line", label: "holds", data: [{ x: 0, y: 0 }, { x: 1, y: 1 }], borderColor: colour("strong-line"), borderDash: [4, 4], borderWidth: 1, pointRadius: 0, pointHitRadius: 0 },
      ],
    },
    options: basics({
      scales: { x: share("Predicted success"), y: share("Observed success") },
      plugins: {
        tooltip: {
          ...basics().plugins.tooltip,
          filter: ({ raw }) => raw.bin !== undefined,
          callbacks: { label: ({ dataset, raw: { bin } }) => ` ${dataset.label}: predicted ${percent(bin.predicted)}, observed ${percent(bin.observed)} (${percent(bin.low)} to ${percent(bin.high)}) in ${count(bin.runs)} runs` },
        },
      },
    }),
  };
}

function splitsTable(splits) {
  return tableOf(
    {
      caption: "Sides of split routes",
      empty: "No route splits its traffic. In the policy, split: {learned: 0.9, heuristic: 0.1} in a route compares two routers.",
      rowKey: (r) => `${r.route} ${r.router}`,
      columns: [
        { label: "Router", head: true, class: "name", cell: (r) => [r.router, h("span", { class: "sub" }, `${r.route}, ${percent(r.share)} of its tasks`)] },
        { label: "Runs", right: true, cell: (r) => count(r.runs) },
        { label: "Success", right: true, class: "nowrap", cell: (r) => (r.success_rate === null ? NONE : [percent(r.success_rate), h("span", { class: "sub" }, `${percent(r.low)} to ${percent(r.high)}`)]) },
        { label: "Cost each", right: true, class: "nowrap", cell: (r) => usd(r.cost_per_success_usd) },
        { label: "To success", right: true, class: "nowrap", cell: (r) => ms(r.to_success_ms) },
      ],
    },
    splits,
  );
}

function explorationFigure({ exploration, since_s, until_s }) {
  if (exploration.calls === 0) return h("p", { class: "empty" }, exploration.drawn ? `${count(exploration.drawn)} calls were drawn, and all went where they would have gone anyhow.` : "Nothing yet: no call of this time was sent elsewhere to learn from it.");
  const from = Math.max(since_s, exploration.days[0][0] - 43_200);
  return [
    h("p", { class: "lead" }, `${usd(exploration.usd)} of the ${usd(exploration.of_usd)} spent, in ${count(exploration.calls)} of ${count(exploration.of_calls)} calls; ${count(exploration.drawn)} were drawn by lot.`),
    chart({
      title: "Spent on exploration by day",
      says: `${usd(exploration.usd)} in all.`,
      size: "low",
      config: () => ({
        type: "bar",
        data: { datasets: [{ label: "spent", data: exploration.days.map(([day, amount]) => ({ x: day + 43_200, y: amount })), backgroundColor: colour("accent"), barThickness: "flex", maxBarThickness: 28, borderRadius: 2 }] },
        options: basics({ scales: { x: timeAxis(from, Math.max(until_s, exploration.days.at(-1)[0] + 86_400)), y: valueAxis((value) => usd(value)) }, plugins: { tooltip: { ...basics().plugins.tooltip, callbacks: { title: (items) => moment(items[0].raw.x - 43_200), label: ({ raw }) => ` ${usd(raw.y)}` } } } }),
      }),
      table: {
        columns: [
          { label: "Model", head: true, class: "name", cell: (r) => [r.model, h("span", { class: "sub" }, `instead of ${r.instead_of}`)] },
          { label: "Calls", right: true, cell: (r) => count(r.calls) },
          { label: "Spent", right: true, cell: (r) => usd(r.usd) },
        ],
        rows: exploration.models,
      },
    }),
  ];
}

const CAUSES = {
  model: ["kept from it", "bad"],
  provider: ["kept from it", "bad"],
  traffic: ["still asked", "warn"],
};

function driftTable(drift) {
  if (drift === null) return h("p", { class: "empty" }, "Nothing yet: no learner has looked for drift here.");
  return tableOf(
    {
      caption: "Drift alarms",
      empty: "No alarm: models do as they did.",
      columns: [
        { label: "Model", head: true, class: "name", cell: (r) => [r.model, h("span", { class: "sub" }, `${r.task_type.replaceAll("_", " ")}, since ${moment(r.since_s)}`)] },
        { label: "Success", right: true, class: "nowrap", cell: (r) => [percent(Math.max(r.level - r.drop, 0)), h("span", { class: "sub" }, `${percent(r.level)} before`)] },
        { label: "Shown by repeats", right: true, class: "nowrap", cell: (r) => percent(r.paired ?? 0) },
        { label: "What is done", class: "nowrap", cell: (r) => [mark(...(CAUSES[r.cause] ?? [r.cause, ""])), h("span", { class: "sub" }, { model: "laid to the model", provider: "laid to its provider", traffic: "the work got harder for all" }[r.cause] ?? r.cause)] },
      ],
    },
    drift,
  );
}

const STATUS = { published: "", postponed: "", refused: "warn", rolled_back: "bad" };

function snapshotsTable(snapshots) {
  return tableOf(
    {
      caption: "Snapshots",
      empty: "Nothing yet: the weights that ship with the gateway decide alone.",
      most: 12,
      columns: [
        { label: "Snapshot", head: true, cell: (r) => `#${r.number}` },
        { label: "Made", class: "nowrap", cell: (r) => moment(r.created_s) },
        { label: "Status", class: "nowrap", cell: (r) => (r.in_force ? mark("in force", "good") : mark(r.status.replaceAll("_", " "), STATUS[r.status])) },
        { label: "Labels learned", right: true, cell: (r) => count(r.labels) },
        { label: "Held-out loss", right: true, class: "nowrap", cell: (r) => (r.trial.loss === null ? NONE : [r.trial.loss.toFixed(4), h("span", { class: "sub" }, r.trial.before === null ? "" : `${r.trial.before.toFixed(4)} before, ${count(r.trial.labels)} labels`)]) },
        { label: "Why", class: "name", cell: (r) => r.why },
      ],
    },
    snapshots ?? [],
  );
}
