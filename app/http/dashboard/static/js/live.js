// What goes on now: one stream for the whole page, open while somebody looks at it.

import { Refused, events } from "./api.js";
import { setText } from "./dom.js";

const listeners = new Set();
let latest = null;
let running = null;

/** Be told each moment, the latest at once; returns how to stop. */
export function watch(listener) {
  listeners.add(listener);
  if (latest !== null) listener(latest);
  return () => listeners.delete(listener);
}

export function show(state, text) {
  document.getElementById("state").dataset.state = state;
  setText(document.getElementById("state-text"), text);
}

/** Follow the gateway until `stop`; a hidden page does not watch. */
export function start() {
  stop();
  running = new AbortController();
  follow(running.signal);
}

export function stop() {
  running?.abort();
  running = null;
}

async function follow(signal) {
  let wait = 1;
  while (!signal.aborted) {
    try {
      for await (const moment of events("live", signal)) {
        latest = moment;
        wait = 1;
        show(moment.draining ? "draining" : "live", moment.draining ? "draining" : "live");
        for (const listener of listeners) listener(moment);
      }
      show("lost", "connection ended");
    } catch (error) {
      if (signal.aborted) return;
      show("lost", error instanceof Refused ? error.message : "no connection");
      if (error instanceof Refused && error.status < 500) return;
    }
    await new Promise((resolve) => setTimeout(resolve, wait * 1000));
    wait = Math.min(wait * 2, 15);
  }
}

document.addEventListener("visibilitychange", () => {
  if (running === null && !document.hidden && latest !== null) start();
  else if (document.hidden) {
    stop();
    show("idle", "paused");
  }
});
