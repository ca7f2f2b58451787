// Cost-Speed Frontier: what a success costs and how long it takes, both on logarithmic axes.

import { basics, chart, legend, logAxis, seriesColour, spanTicks } from "../charts.js";
import { h } from "../dom.js";
import { count, listed, percent, short, span, usd } from "../format.js";
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
          { label: "Success", right: true, cell: (r) => `${percent(r.success_rate)} of ${count(r.counted)}` },
          { label: "Beaten by", class: "name", cell: (r) => r.dominated_by ?? "nobody: on the frontier" },
        ],
        rows: points,
      },
    }),
    h("p", { class: "note" }, "Larger: succeeds more often. The line joins those that are faster than all that are cheaper; their names are beside them, where there is room."),
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
    plugins: [names],
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
              ` ${usd(point.usd)}, ${span(point.s)}, ${percent(point.success_rate)} of ${count(point.counted)} runs`,
              point.dominated_by === null ? " on the frontier" : ` beaten by ${point.dominated_by}`,
            ],
          },
        },
      },
    }),
  };
}

const LINE_PX = 14;

/** Writes the names of those on the frontier beside them, where there is room: the others tell theirs when asked. */
const names = {
  id: "names",
  afterDatasetsDraw({ ctx, chartArea: area, data, scales: { x, y } }) {
    const all = data.datasets.flatMap(({ data: points }) => points.filter(({ point }) => point !== undefined));
    const circles = all.map((raw) => ({ at: x.getPixelForValue(raw.x), up: y.getPixelForValue(raw.y), r: radius(raw), raw }));
    const boxOf = ({ at, up, r }) => [at - r, up - r, at + r, up + r];
    const [best, others] = [true, false].map((wanted) => circles.filter(({ raw }) => (raw.point.dominated_by === null) === wanted));
    const taken = best.map(boxOf);
    ctx.save();
    ctx.font = `500 12px ${globalThis.Chart.defaults.font.family}`;
    ctx.fillStyle = colour("ink");
    ctx.strokeStyle = colour("sheet");
    ctx.lineWidth = 4;
    ctx.lineJoin = "round";
    ctx.textBaseline = "middle";
    for (const { at, up, r, raw } of best) {
      const name = short(raw.point.model.split("/").at(-1), 22);
      const wide = ctx.measureText(name).width;
      const across = Math.min(Math.max(at - wide / 2, area.left + 2), area.right - wide - 2);
      // The line comes from above and goes on to the right.
      const places = [
        [at - r - 5 - wide, up],
        [across, up + r + LINE_PX / 2 + 2],
        [at + r + 3, up + LINE_PX / 2 + 3],
        [across, up - r - LINE_PX / 2 - 2],
      ];
      const free = (avoided) => places.find(([left, middle]) => fits([left, middle - LINE_PX / 2, left + wide, middle + LINE_PX / 2], area, avoided));
      const place = free([...taken, ...others.map(boxOf)]) ?? free(taken);
      if (place === undefined) continue;
      ctx.strokeText(name, ...place);
      ctx.fillText(name, ...place);
      taken.push([place[0], place[1] - LINE_PX / 2, place[0] + wide, place[1] + LINE_PX / 2]);
    }
    ctx.restore();
  },
};

/** Whether a box [left, top, right, bottom] is inside and on none of the others. */
function fits([left, top, right, bottom], area, taken) {
  if (left < area.left || right > area.right || top < area.top || bottom > area.bottom) return false;
  return taken.every((one) => right < one[0] || left > one[2] || bottom < one[1] || top > one[3]);
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
