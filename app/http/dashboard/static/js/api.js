// The gateway, asked. The key lives in this tab's storage only, and travels in a header only.

const KEY = "bursar-key";

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export function rememberKey(key) {
  if (key === null) sessionStorage.removeItem(KEY);
  else sessionStorage.setItem(KEY, key);
}

export function hasKey() {
  return sessionStorage.getItem(KEY) !== null;
}

function headers(more = {}) {
  const key = sessionStorage.getItem(KEY);
  return key === null ? more : { ...more, authorization: `Bearer ${key}` };
}

async function checked(response) {
  if (response.ok) return response;
  let message = `The gateway answered ${response.status}.`;
  try {
    message = (await response.json()).error.message;
  } catch {
    // Not ours: a proxy's page, perhaps.
  }
  throw new Refused(response.status, message);
}

async function ask(url, options) {
  let response;
  try {
    response = await fetch(url, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The gateway does not answer."); // browsers say it in words of their own
  }
  return checked(response);
}

/** JSON from the dashboard's own endpoints (`overview?since=3600`) or from any path that begins with a slash. */
export async function get(path, signal = undefined) {
  const url = path.startsWith("/") ? path : `/dashboard/api/${path}`;
  return (await ask(url, { headers: headers(), cache: "no-store", signal })).json();
}

export async function send(method, path, body) {
  const options = { method, headers: headers({ "content-type": "application/json" }), body: JSON.stringify(body) };
  return (await ask(`/dashboard/api/${path}`, options)).json();
}

/** Parameters of a URL, without those that are empty. */
export function query(values) {
  const kept = Object.entries(values).filter(([, value]) => value !== null && value !== undefined && value !== "");
  return new URLSearchParams(kept).toString();
}

/** The events of a stream, until it ends. EventSource could send no key. */
export async function* events(path, signal) {
  const response = await ask(`/dashboard/api/${path}`, { headers: headers(), cache: "no-store", signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    text += value;
    const blocks = text.split("\n\n");
    text = blocks.pop();
    for (const block of blocks) {
      const data = block.split("\n").find((line) => line.startsWith("data: "));
      if (data !== undefined) yield JSON.parse(data.slice(6));
    }
  }
}
