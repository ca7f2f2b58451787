// How full the present minute is, for everybody, teams and keys whose calls or tokens are limited by it.

import { h } from "../dom.js";
import { count } from "../format.js";
import { meter } from "../parts.js";

/** The share of the limit that is nearest to being reached. */
function fullest(row) {
  return Math.max(shareOf(row.calls, row.max_calls), shareOf(row.tokens, row.max_tokens));
}

function shareOf(used, limit) {
  if (limit === null) return 0;
  return limit > 0 ? used / limit : 1;
}

/** The fullest first; of equals in the order they came in. */
export function byFullness(rates) {
  return [...rates].sort((one, other) => fullest(other) - fullest(one));
}

/** "minute until 17:45:00", which is the same for all. */
export function untilWhen([first]) {
  return first ? `until ${new Date(first.refills_s * 1000).toLocaleTimeString("en", { hourCycle: "h23" })}, then from 0 again` : "";
}

function used(amount, limit) {
  if (limit === null) return [count(amount), h("span", { class: "sub" }, "no limit")];
  return [`${count(amount)} of ${count(limit)}`, meter(amount, limit, 0, count)];
}

/** `owner`: the name of whose a row is. */
export function ratesTable(owner) {
  return {
    caption: "Rates: what this minute has used of its limits",
    most: 9,
    rowKey: (row) => `${row.team ?? ""} ${row.key ?? ""}`,
    columns: [
      { label: "Whose", head: true, class: "name", sign: owner, cell: owner },
      { label: "Calls", class: "rate", sign: (r) => [r.calls, r.max_calls], cell: (r) => used(r.calls, r.max_calls) },
      { label: "Tokens", class: "rate", sign: (r) => [r.tokens, r.max_tokens], cell: (r) => used(r.tokens, r.max_tokens) },
    ],
  };
}
