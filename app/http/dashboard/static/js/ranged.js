// A view of figures over a time that can be chosen: asked for again every half minute, drawn again where they changed.

import { get } from "./api.js";
import { fill, h } from "./dom.js";
import { RANGES, choice, fault, pageHead, reading, sheet } from "./parts.js";

const EVERY_S = 30;

/** `ask`: the question of the API; `range_s`: the time shown first; `sign(figures)`: what makes them worth drawing anew. */
export async function rangedView(page, every, { title, note, ask, range_s, sign, draw }) {
  let range = range_s;
  const trouble = h("div", {});
  const body = h("div", { class: "grid" }, sheet(title, {}, reading()).element);
  const ranges = choice("Time range", RANGES.slice(1), range, (value) => {
    range = value;
    load();
  });
  fill(page, pageHead(title, note, ranges), trouble, body);
  let before = null;

  async function load() {
    try {
      const figures = await get(`${ask}?since=${range}`);
      const now = JSON.stringify([range, sign(figures)]);
      if (now !== before) draw(body, figures);
      before = now;
      fill(trouble);
    } catch (error) {
      if (error.status === 401 || error.status === 403) throw error;
      fill(trouble, fault(error));
    }
  }

  every(EVERY_S, load);
  await load();
}
