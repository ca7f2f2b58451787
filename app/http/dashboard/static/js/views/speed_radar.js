// Speed Radar: the median time to success of each model, clipped so that one very slow model does not hide the rest.

import { basics, chart, spanTicks, valueAxis } from "../charts.js";
import { h } from "../dom.js";
import { count, listed, ms, short } from "../format.js";
import { colour } from "../theme.js";

const LEAST_SPOKES = 3;
const MOST_SPOKES = 16;
const LONGEST_NAME = 24;
const SIGN_PX = 7;
/** Of the figure's width, how much a label may take: what labels take is taken from the radar itself. */
const LABEL_SHARE = 0.24;

export function radarFigure({ rows, clip_ms, least_runs, few }) {
  const notes = [];
  const drawn = spokes(rows);
  if (drawn.length < rows.length) notes.push(`Drawn are the ${MOST_SPOKES} with the most runs of ${count(rows.length)} models; the figures have all.`);
  const outliers = rows.filter((row) => row.outlier);
  if (outliers.length) notes.push(`Beyond the edge at ${ms(clip_ms)}: ${listed(outliers.map((row) => `${row.model}, ${ms(row.ms)}`), "; ")}.`);
  if (few.length) notes.push(`Not shown, with fewer than ${least_runs} runs or no success: ${listed(few.map((one) => `${one.model} (${count(one.runs)})`))}.`);
  const told = notes.map((text) => h("p", { class: "note" }, text));
  if (rows.length === 0) return [h("p", { class: "empty" }, `No model has ${least_runs} runs with a success yet.`), told];
  const config = () => (drawn.length < LEAST_SPOKES ? bars(drawn) : radar(drawn, clip_ms));
  return [
    chart({
      title: "Speed Radar",
      says: `${rows[0].model} is fastest, ${ms(rows[0].ms)}; ${rows.at(-1).model} slowest, ${ms(rows.at(-1).ms)}.`,
      config,
      size: "tall",
      table: {
        columns: [
          { label: "Model", head: true, class: "name", cell: (r) => r.model },
          { label: "To success", right: true, cell: (r) => ms(r.ms) },
          { label: "Shown at", right: true, cell: (r) => ms(r.shown_ms) },
          { label: "Passed", right: true, cell: (r) => count(r.passed) },
          { label: "Runs", right: true, cell: (r) => count(r.runs) },
        ],
        rows,
      },
    }),
    numbered(drawn) ? spokeNames(drawn) : null,
    told,
  ].filter(Boolean);
}

/** Names that two lines cannot hold are told below, by number. */
function numbered(rows) {
  return rows.length >= LEAST_SPOKES && rows.some((row) => row.model.length > LONGEST_NAME);
}

function spokeNames(rows) {
  return h(
    "ol",
    { class: "spokes" },
    rows.map((row, at) => h("li", {}, h("span", { class: "number" }, String(at + 1)), h("span", {}, row.model), h("span", { class: "figure" }, ms(row.ms)))),
  );
}

/** Those with the most runs, in the order of their times: the labels of more would lie on each other. */
function spokes(rows) {
  const kept = new Set([...rows].sort((one, other) => other.runs - one.runs).slice(0, MOST_SPOKES));
  return rows.filter((row) => kept.has(row));
}

function tooltip(rows) {
  return {
    ...basics().plugins.tooltip,
    callbacks: {
      title: ([item]) => rows[item.dataIndex].model,
      label: ({ dataIndex }) => ` ${ms(rows[dataIndex].ms)} in ${count(rows[dataIndex].passed)} of ${count(rows[dataIndex].runs)} runs${rows[dataIndex].outlier ? ", clipped" : ""}`,
    },
  };
}

function dataset(rows) {
  const points = rows.map((row) => (row.outlier ? colour("bad") : colour("accent")));
  return {
    label: "time to success",
    data: rows.map((row) => row.shown_ms),
    borderColor: colour("accent"),
    backgroundColor: `${colour("accent")}26`,
    borderWidth: 2,
    pointRadius: 4,
    pointHoverRadius: 6,
    pointBackgroundColor: points,
    pointBorderColor: points,
  };
}

function radar(rows, clip) {
  return {
    type: "radar",
    data: { labels: rows.map(numbered(rows) ? numberOf : nameOf), datasets: [dataset(rows)] },
    options: basics({
      scales: {
        r: {
          beginAtZero: true,
          max: rows.some((row) => row.outlier) ? clip : undefined,
          angleLines: { color: colour("line") },
          grid: { color: colour("line") },
          pointLabels: { color: colour("ink"), font: { size: 12, weight: 500 }, callback: labelOf },
          ticks: { callback: (value) => (value === 0 ? "" : ms(value)), backdropColor: "transparent", stepSize: step(rows) },
        },
      },
      plugins: { tooltip: tooltip(rows) },
    }),
  };
}

function numberOf(row, at) {
  return row.outlier ? `${at + 1} ▸` : String(at + 1);
}

function nameOf(row) {
  return row.outlier ? `${row.model} ▸` : row.model;
}

/** A label in one line or two, as long as there is room for it beside the figure. */
function labelOf(name) {
  const most = Math.max(Math.floor((this.chart.width * LABEL_SHARE) / SIGN_PX), 8);
  const end = Math.max(...[..."-/_: "].map((sign) => name.lastIndexOf(sign, most - 1)));
  return name.length <= most || end < 1 ? short(name, most) : [name.slice(0, end + 1), short(name.slice(end + 1), most)];
}

/** Four rings or five, at whole seconds, minutes or hours. */
function step(rows) {
  const most = Math.max(...rows.map((row) => row.shown_ms)) / 1000;
  return (spanTicks(most / 5, Infinity)[0] ?? most / 5) * 1000;
}

/** Two models make no radar. */
function bars(rows) {
  return {
    type: "bar",
    data: {
      labels: rows.map((row) => row.model),
      datasets: [{ ...dataset(rows), backgroundColor: rows.map((row) => colour(row.outlier ? "bad" : "accent")), borderWidth: 0, barThickness: 28 }],
    },
    options: basics({
      indexAxis: "y",
      scales: {
        x: valueAxis((value) => ms(value)),
        y: { grid: { display: false }, ticks: { callback(value) { return labelOf.call(this, this.getLabelForValue(value)); } } },
      },
      plugins: { tooltip: tooltip(rows) },
    }),
  };
}
