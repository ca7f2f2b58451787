// Charts by the vendored Chart.js, each with its words and its table: a canvas alone says nothing to many.

import { h } from "./dom.js";
import { tick } from "./format.js";
import { tableOf } from "./table.js";
import { colour, onTheme, seriesColour } from "./theme.js";

const alive = new Set();

/**
 * A figure. `config()` gives Chart.js' configuration in the colours that are on; `says` is the picture in words;
 * `table`: {columns, rows} behind it.
 */
export function chart({ title, says, config, table, size = "" }) {
  const canvas = h("canvas", { role: "img", "aria-label": `${title}. ${says}` });
  const behind = table
    ? h("details", {}, h("summary", {}, "Show the figures", h("span", { class: "unseen" }, ` of ${title}`)), tableOf({ caption: title, ...table }, table.rows))
    : null;
  const element = h("figure", { "aria-label": title }, h("div", { class: `plot ${size}`.trim() }, canvas), behind);
  const one = { canvas, config, drawn: null };
  alive.add(one);
  requestAnimationFrame(() => draw(one));
  return element;
}

function draw(one) {
  one.drawn?.destroy();
  one.drawn = null;
  if (!one.canvas.isConnected) {
    alive.delete(one);
    return;
  }
  globalThis.Chart.defaults.font.family = getComputedStyle(document.body).fontFamily;
  globalThis.Chart.defaults.font.size = 12;
  globalThis.Chart.defaults.color = colour("soft");
  globalThis.Chart.defaults.borderColor = colour("line");
  one.drawn = new globalThis.Chart(one.canvas, one.config());
}

/** Let go of charts whose page is gone. */
export function sweep() {
  for (const one of alive) {
    if (!one.canvas.isConnected) {
      one.drawn?.destroy();
      alive.delete(one);
    }
  }
}

onTheme(() => alive.forEach(draw));

/** Options that all charts share. */
export function basics(more = {}) {
  return {
    responsive: true,
    maintainAspectRatio: false,
    animation: false,
    interaction: { mode: "nearest", intersect: false },
    ...more,
    plugins: {
      legend: { display: false },
      tooltip: {
        backgroundColor: colour("ink"),
        titleColor: colour("sheet"),
        bodyColor: colour("sheet"),
        padding: 10,
        cornerRadius: 6,
        boxPadding: 4,
        usePointStyle: true,
      },
      ...more.plugins,
    },
  };
}

const DAY_S = 86_400;
const STEPS = [1, 2, 5, 10, 20, 30, 60, 120, 300, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400, 2 * 86_400, 3 * 86_400, 7 * 86_400, 14 * 86_400, 28 * 86_400];

/** A time axis in seconds, with ticks where people look for them: whole hours, midnights. */
export function timeAxis(from, until, more = {}) {
  const range = until - from;
  let step = DAY_S;
  return {
    type: "linear",
    offset: false, // bars would ask for room as wide as the ticks are apart
    min: from,
    max: until,
    grid: { display: false },
    border: { color: colour("line") },
    afterBuildTicks(axis) {
      const room = Math.max(2, Math.floor(axis.width / 80));
      step = STEPS.find((one) => range / one <= room) ?? STEPS.at(-1);
      axis.ticks = moments(from, until, step).map((value) => ({ value }));
    },
    ticks: { callback: (value) => tick(value, step), maxRotation: 0, autoSkip: false },
    ...more,
  };
}

/** Whole steps between two moments, in the time of the place; days begin at midnight, also where clocks are changed. */
function moments(from, until, step) {
  const found = [];
  if (step < DAY_S) {
    const offset = new Date(from * 1000).getTimezoneOffset() * 60;
    for (let at = Math.ceil((from - offset) / step) * step + offset; at <= until; at += step) found.push(at);
    return found;
  }
  const day = new Date(from * 1000);
  day.setHours(0, 0, 0, 0);
  if (day.getTime() < from * 1000) day.setDate(day.getDate() + 1);
  for (; day.getTime() <= until * 1000; day.setDate(day.getDate() + step / DAY_S)) found.push(day.getTime() / 1000);
  return found;
}

export function valueAxis(write, more = {}) {
  return {
    beginAtZero: true,
    border: { display: false },
    grid: { color: colour("line"), drawTicks: false },
    ticks: { callback: (value) => write(value), padding: 8, maxTicksLimit: 6 },
    ...more,
  };
}

const SPANS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 18_000, 36_000, 86_400, 172_800];

/** Durations in seconds where people look for them, between two. */
export function spanTicks(least, most) {
  return SPANS.filter((value) => value >= least && value <= most);
}

const LETTER_PX = 7;

/** Those whose labels do not run into one another, from the left. */
function apart(values, at, width) {
  let end = -Infinity;
  return values.filter((value) => {
    const [left, right] = [at(value) - width(value) / 2, at(value) + width(value) / 2];
    if (left < end + LETTER_PX) return false;
    end = right;
    return true;
  });
}

/** A logarithmic axis with the ticks that `ticks(least, most)` gives. */
export function logAxis(values, write, ticks, more = {}) {
  const [least, most] = [Math.min(...values) / 1.5, Math.max(...values) * 1.5];
  return {
    type: "logarithmic",
    min: least,
    max: most,
    grid: { color: colour("line") },
    border: { display: false },
    afterBuildTicks(scale) {
      const wanted = ticks(least, most);
      const at = (value) => (Math.log(value / least) / Math.log(most / least)) * scale.width;
      const told = scale.isHorizontal() ? apart(wanted, at, (value) => write(value).length * LETTER_PX) : wanted;
      scale.ticks = told.map((value) => ({ value }));
    },
    ticks: { callback: (value) => write(value), maxRotation: 0, padding: 6, autoSkipPadding: 12 },
    ...more,
  };
}

/** The key to the colours of a chart's series. */
export function legend(names) {
  return h(
    "ul",
    { class: "key" },
    names.map((name, at) => h("li", {}, h("span", { class: "swatch", vars: { "--swatch": `var(--c${(at % 8) + 1})` } }), name)),
  );
}

export { seriesColour };
