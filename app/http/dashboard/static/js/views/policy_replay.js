// What a draft would have made of the past: recorded decisions, made again.

import { send } from "../api.js";
import { fill, h } from "../dom.js";
import { NONE, count, percent, usd } from "../format.js";
import { fault, mark, sheet } from "../parts.js";
import { tableOf } from "../table.js";

/** The sheet, and `use(draft)`: the draft to replay, null where it is not good. */
export function replaySheet() {
  const place = h("div", { class: "replay" });
  const button = h("button", { type: "button", class: "plain", disabled: true, on: { click: () => run() } }, "Replay the last 7 days");
  const made = sheet("Replay", { aside: button, note: "what the draft would have cost and scored on recorded traffic" }, place);
  let draft = null;

  function use(given) {
    draft = given;
    button.disabled = draft === null;
    fill(place, h("p", { class: "empty" }, draft === null ? "Check a good draft first." : "The draft is good: it can be replayed."));
  }

  async function run() {
    button.disabled = true;
    fill(place, h("p", { class: "empty" }, "Replaying recorded decisions; this may take a minute."));
    try {
      fill(place, told(await send("POST", "policy/replay", draft)));
    } catch (error) {
      fill(place, fault(error));
    }
    button.disabled = draft === null;
  }

  use(null);
  return { element: made.element, use };
}

function told({ all, missing, left_out, unread }) {
  const rows = [
    { what: "Dollars per decision", of: all.cost_usd, write: (value) => usd(value) },
    { what: "Success", of: all.success, write: (value) => percent(value, 1) },
  ];
  const left = Object.entries(left_out).map(([why, decisions]) => `${count(decisions)} ${why}`);
  return [
    h("p", {}, `${count(all.decisions)} decisions made again.`, left.length ? ` Left out: ${left.join("; ")}.` : "", unread ? ` ${count(unread)} were read by other weights.` : ""),
    tableOf({ caption: "What the draft would have come to", columns: ESTIMATES }, rows),
    Object.keys(all.models).length ? tableOf({ caption: "Where decisions went and would go", columns: MODELS }, Object.entries(all.models)) : null,
    missing.length ? h("p", { class: "note" }, `It would send work where it could never have gone: ${missing.map((one) => `${one.model} for ${one.task_type} (${percent(one.share, 1)})`).join(", ")}.`) : null,
    h("p", { class: "note" }, "Doubly robust estimates with 95 % intervals, from decisions that went the same way by chance. Caps, retries and providers' health are not replayed."),
  ];
}

const within = (estimate, write) => (estimate.value === null ? NONE : [write(estimate.value), estimate.low === null ? null : h("span", { class: "sub" }, `${write(estimate.low)} to ${write(estimate.high)}`)]);

const ESTIMATES = [
  { label: "Measure", head: true, cell: (r) => [r.what, r.of.refusal ? h("span", { class: "sub" }, mark("not estimated", "warn"), ` ${r.of.refusal}`) : null] },
  { label: "Recorded", right: true, class: "nowrap", cell: (r) => within(r.of.recorded, r.write) },
  { label: "Would be", right: true, class: "nowrap", cell: (r) => within(r.of.dr, r.write) },
  { label: "Change", right: true, class: "nowrap", cell: (r) => within(r.of.change, r.write) },
  { label: "Stands on", right: true, cell: (r) => `${count(r.of.known)} known, worth ${count(Math.round(r.of.ess))}` },
];

const MODELS = [
  { label: "Model", head: true, class: "name", cell: ([name]) => name },
  { label: "Recorded", right: true, cell: ([, shares]) => percent(shares.recorded, 1) },
  { label: "Would be", right: true, cell: ([, shares]) => percent(shares.would, 1) },
];
