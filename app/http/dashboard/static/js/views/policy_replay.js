// What a draft would have made of the past: replayed on recorded decisions.

import { fill, h } from "../dom.js";
import { sheet } from "../parts.js";

/** The sheet, and `use(draft)`: the draft to replay, null where it is not good. */
export function replaySheet() {
  const made = sheet("Replay", {}, h("p", { class: "empty" }, "Check a good draft first; then it can be replayed on the traces."));
  function use(draft) {
    made.show(h("p", { class: "empty" }, draft === null ? "Only a good draft can be replayed." : "Nothing to replay with yet."));
    fill(made.body.firstChild, made.body.textContent);
  }
  return { element: made.element, use };
}
