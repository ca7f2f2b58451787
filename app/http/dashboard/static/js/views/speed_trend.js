// The trend of each model: success rate, time to success or cost of a success, over time.

import { basics, chart, legend, logAxis, seriesColour, spanTicks, timeAxis, valueAxis } from "../charts.js";
import { count, moment, ms, percent, usd } from "../format.js";

const MOST = 8;

export const MEASURES = {
  ms: { label: "Time to success", write: ms, of: (point) => point.ms },
  success_rate: { label: "Success rate", write: (value) => percent(value), of: (point) => point.success_rate },
  usd: { label: "Cost of a success", write: (value) => usd(value), of: (point) => point.usd },
};

/** `slower`: models to point out. */
export function trendFigure({ step_s, models }, measure, slower) {
  const { label, write, of } = MEASURES[measure];
  const shown = models.filter((one) => one.points.some((point) => of(point) !== null)).slice(0, MOST);
  const names = shown.map((one) => (slower.has(one.model) ? `${one.model} (slower)` : one.model));
  const moments = shown.flatMap((one) => one.points.map((point) => point.at_s));
  if (moments.length === 0) return [];
  const values = shown.flatMap((one) => one.points.map(of)).filter((value) => value !== null);
  const [from, until] = [Math.min(...moments), Math.max(...moments) + step_s];
  const config = () => ({
    type: "line",
    data: {
      datasets: shown.map((one, at) => ({
        label: names[at],
        data: one.points.map((point) => ({ x: point.at_s + step_s / 2, y: of(point), point })),
        borderColor: seriesColour(at),
        backgroundColor: seriesColour(at),
        borderWidth: slower.has(one.model) ? 3 : 1.75,
        borderJoinStyle: "round",
        pointRadius: 3,
        spanGaps: true,
      })),
    },
    options: basics({
      scales: {
        x: timeAxis(from, until),
        y: measure === "ms" ? logAxis(values, write, msTicks) : valueAxis(write, measure === "success_rate" ? { max: 1 } : {}),
      },
      plugins: {
        tooltip: {
          ...basics().plugins.tooltip,
          callbacks: {
            title: (items) => `from ${moment(items[0].raw.point.at_s)}`,
            label: ({ dataset, raw }) => ` ${dataset.label}: ${write(raw.y)} in ${count(raw.point.runs)} runs`,
          },
        },
      },
    }),
  });
  const columns = [
    { label: "Model", head: true, class: "name", cell: (r) => r.model },
    { label: "From", class: "nowrap", cell: (r) => moment(r.at_s) },
    { label, right: true, cell: (r) => write(of(r)) },
    { label: "Runs", right: true, cell: (r) => count(r.runs) },
  ];
  const rows = shown.flatMap((one) => one.points.map((point) => ({ ...point, model: one.model })));
  return [
    legend(names),
    chart({ title: `${label} by model`, says: `${shown.length} models, ${moment(from)} to ${moment(until)}.`, config, table: { columns, rows, most: 30 } }),
  ];
}

function msTicks(least, most) {
  return spanTicks(least / 1000, most / 1000).map((seconds) => seconds * 1000);
}
