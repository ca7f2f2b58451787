// How values are written.

const WHOLE = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const COMPACT = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const CLOCK = new Intl.DateTimeFormat("en", { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const SECONDS = new Intl.DateTimeFormat("en", { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const DAY = new Intl.DateTimeFormat("en", { day: "numeric", month: "short" });
export const NONE = "–";

/** How many decimals tell these amounts apart, from 2 to 6. */
export function decimalsFor(values) {
  const least = Math.min(...values.filter((value) => value > 0).map(Number));
  if (!Number.isFinite(least)) return 2;
  return Math.min(Math.max(2, 2 - Math.floor(Math.log10(least)) - 1), 6);
}

/** Dollars, with as many decimals as the amount needs, or as a column has; what these cannot show is no zero. */
export function usd(value, decimals = null) {
  if (value === null || value === undefined) return NONE;
  if (decimals !== null && value > 0 && value < 0.5 * 10 ** -decimals) return `< $${(10 ** -decimals).toFixed(decimals)}`;
  const digits = decimals ?? (value === 0 ? 2 : Math.abs(value) >= 1000 ? 0 : decimalsFor([Math.abs(value)]));
  return `$${value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits })}`;
}

export function count(value) {
  if (value === null || value === undefined) return NONE;
  return value >= 100_000 ? COMPACT.format(value) : WHOLE.format(value);
}

export function percent(share, decimals = 0) {
  if (share === null || share === undefined || Number.isNaN(share)) return NONE;
  return `${(share * 100).toFixed(decimals)}%`;
}

/** A duration in milliseconds. */
export function ms(value) {
  if (value === null || value === undefined) return NONE;
  if (value === 0) return "0 ms";
  if (value < 1) return `${value.toFixed(2)} ms`;
  if (value < 10) return `${value.toFixed(1)} ms`;
  if (value < 1000) return `${value.toFixed(0)} ms`;
  return span(value / 1000);
}

/** A duration in seconds. */
export function span(seconds) {
  if (seconds === null || seconds === undefined) return NONE;
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 100) return `${seconds.toFixed(0)} s`;
  if (seconds < 600) return `${Number((seconds / 60).toFixed(1))} min`; // 1.8 min are not 2
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 36 * 3600) return `${(seconds / 3600).toFixed(seconds < 36_000 ? 1 : 0)} h`;
  return `${Math.round(seconds / 86_400)} days`;
}

const LISTED = 8;

/** A name in so many signs: models of one family differ at the end, and what is left out is in the middle. */
export function short(name, most) {
  if (name.length <= most) return name;
  const end = Math.ceil((most - 1) / 2);
  return `${name.slice(0, most - 1 - end)}…${name.slice(-end)}`;
}

/** The first of many, and how many more there are. */
export function listed(texts, between = ", ") {
  const rest = texts.length - LISTED;
  return rest > 0 ? `${texts.slice(0, LISTED).join(between)}${between}and ${count(rest)} more` : texts.join(between);
}

/** A moment (Unix time), as short as it can be told. */
export function moment(seconds, now = Date.now() / 1000) {
  if (seconds === null || seconds === undefined) return NONE;
  const then = new Date(seconds * 1000);
  const today = new Date(now * 1000).toDateString() === then.toDateString();
  return today ? SECONDS.format(then) : `${DAY.format(then)}, ${CLOCK.format(then)}`;
}

export function ago(seconds, now = Date.now() / 1000) {
  if (seconds === null || seconds === undefined) return NONE;
  return now - seconds < 2 ? "just now" : `${span(now - seconds)} ago`;
}

/** A tick of a time axis whose ticks are so many seconds apart: midnight is told as the day that begins. */
export function tick(seconds, step) {
  const then = new Date(seconds * 1000);
  if (step >= 86_400 || (then.getHours() === 0 && then.getMinutes() === 0 && step >= 300)) return DAY.format(then);
  return (step < 60 ? SECONDS : CLOCK).format(then);
}

/** The key's name, as people say it. */
export function keyName(key) {
  return key === "-" ? "anyone here" : key;
}
