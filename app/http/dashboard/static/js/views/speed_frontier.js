// Cost-Speed Frontier: what a success costs and how long it takes, both on logarithmic axes.

import { basics, chart, legend, logAxis, seriesColour, spanTicks } from "../charts.js";
import { h } from "../dom.js";
import { count, listed, percent, span, usd } from "../format.js";
import { colour } from "../theme.js";

export function frontierFigure({ points, off }) {
  const aside = off.length
    ? h("p", { class: "note" }, `Not on the axes: ${listed(off.map((one) => `${one.model} in ${one.harness} (${one.why})`))}.`)
    : null;
  if (points.length === 0) return [h("p", { class: "empty" }, "No run that cost something has succeeded yet."), aside];
  const harnesses = [...new Set(points.map((point) => point.harness))].sort();
  const best = points.filter((point) => point.dominated_by === null);
  return [
    legend(harnesses),
    chart({
      title: "Cost-Speed Frontier",
      says: `${count(points.length)} models in programs; on the frontier: ${listed(best.map((one) => `${one.model} in ${one.harness}, ${usd(one.usd)} and ${span(one.s)}`), "; ")}.`,
      config: () => picture(points, best, harnesses),
      size: "tall",
      table: {
        columns: [
          { label: "Model and program", head: true, class: "name", cell: (r) => [r.model, h("span", { class: "sub" }, r.harness)] },
          { label: "Cost", right: true, cell: (r) => usd(r.usd) },
          { label: "Time", right: true, cell: (r) => span(r.s) },
          { label: "Success", right: true, cell: (r) => `${percent(r.success_rate)} of ${count(r.runs)}` },
          { label: "Beaten by", class: "name", cell: (r) => r.dominated_by ?? "nobody: on the frontier" },
        ],
        rows: points,
      },
    }),
    h("p", { class: "note" }, "Larger: succeeds more often. The line joins those that are faster than all that are cheaper."),
    aside,
  ];
}

function picture(points, best, harnesses) {
  const groups = harnesses.map((harness, at) => ({
    label: harness,
    data: points.filter((point) => point.harness === harness).map((point) => ({ x: point.usd, y: point.s, point })),
    backgroundColor: `${seriesColour(at)}cc`,
    borderColor: seriesColour(at),
    pointRadius: ({ raw }) => radius(raw),
    pointHoverRadius: ({ raw }) => radius(raw) + 2,
    order: 1,
  }));
  const line = {
    type: "line",
    label: "frontier",
    data: stairs(points, best),
    borderColor: colour("ink"),
    borderWidth: 1.5,
    borderDash: [4, 3],
    pointRadius: 0,
    pointHitRadius: 0,
    order: 2,
  };
  const [x, y] = [points.map((point) => point.usd), points.map((point) => point.s)];
  return {
    type: "scatter",
    data: { datasets: [...groups, line] },
    options: basics({
      scales: {
        x: logAxis(x, (value) => usd(value), decades, { title: { display: true, text: "Cost of a success" } }),
        y: logAxis(y, (value) => span(value), spanTicks, { title: { display: true, text: "Time to success" } }),
      },
      plugins: {
        tooltip: {
          ...basics().plugins.tooltip,
          filter: ({ raw }) => raw.point !== undefined,
          callbacks: {
            title: (items) => (items.length ? `${items[0].raw.point.model} in ${items[0].raw.point.harness}` : ""),
            label: ({ raw: { point } }) => [
              ` ${usd(point.usd)}, ${span(point.s)}, ${percent(point.success_rate)} of ${count(point.runs)} runs`,
              point.dominated_by === null ? " on the frontier" : ` beaten by ${point.dominated_by}`,
            ],
          },
        },
      },
    }),
  };
}

function radius(raw) {
  return raw?.point ? 3 + 9 * raw.point.success_rate ** 2 : 0;
}

/** From the cheapest on: along the time of the last one until the next, then down to its time. */
function stairs(points, best) {
  const steps = [];
  best.forEach((point, at) => {
    if (at > 0) steps.push({ x: point.usd, y: best[at - 1].s });
    steps.push({ x: point.usd, y: point.s });
  });
  steps.push({ x: Math.max(...points.map((point) => point.usd)) * 1.3, y: best.at(-1).s });
  return steps;
}

/** 1, 2 and 5 of each power of ten. */
function decades(least, most) {
  const found = [];
  for (let power = Math.floor(Math.log10(least)); power <= Math.ceil(Math.log10(most)); power += 1) {
    for (const step of [1, 2, 5]) if (step * 10 ** power >= least && step * 10 ** power <= most) found.push(step * 10 ** power);
  }
  return found;
}
