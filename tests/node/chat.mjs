// One chat call through the official openai SDK; prints what the SDK gave as one JSON line.
//
//   node chat.mjs BASE_URL MODE [JSON]
//
// MODE: plain, stream, stream-usage, tools (streamed), cut (streamed, an error is expected), denied (not streamed).
// JSON: {"model", "content", "api_key", "max_retries", "body": {...}, "headers": {...}}, all optional.
import OpenAI from "openai";

const [baseURL, mode, given] = process.argv.slice(2);
const modes = ["plain", "stream", "stream-usage", "tools", "cut", "denied"];
if (!baseURL || !modes.includes(mode)) {
  console.error(`usage: node chat.mjs BASE_URL ${modes.join("|")} [JSON]`);
  process.exit(2);
}
const options = given ? JSON.parse(given) : {};

let attempts = 0;
const client = new OpenAI({
  baseURL,
  apiKey: options.api_key ?? "none",
  maxRetries: options.max_retries ?? 2,
  timeout: 20_000,
  defaultHeaders: options.headers ?? {},
  fetch: (url, init) => {
    attempts += 1;
    return fetch(url, init);
  },
});

const LOOK = {
  type: "function",
  function: {
    name: "look",
    description: "Look something up",
    parameters: { type: "object", properties: { what: { type: "string" } }, required: ["what"] },
  },
};

const body = {
  model: options.model ?? "auto",
  messages: [{ role: "user", content: options.content ?? "Say hello." }],
  ...(mode === "tools" ? { tools: [LOOK] } : {}),
  ...(["stream-usage", "cut"].includes(mode) ? { stream_options: { include_usage: true } } : {}),
  ...options.body,
};
const streams = !["plain", "denied"].includes(mode);

const seen = {
  mode, text: "", reasoning: "", refusal: "", tool_calls: [], finish_reason: null, usage: null, chunks: 0,
  model: null, headers: {}, error: null, attempts: 0,
};

const ours = (headers) => Object.fromEntries([...(headers ?? [])].filter(([name]) => name.startsWith("x-")));

function addChoice(choice, said) {
  seen.text += said?.content ?? "";
  seen.reasoning += said?.reasoning_content ?? "";
  seen.refusal += said?.refusal ?? "";
  for (const part of said?.tool_calls ?? []) {
    const call = (seen.tool_calls[part.index ?? seen.tool_calls.length] ??= { id: null, name: null, arguments: "" });
    call.id ??= part.id ?? null;
    call.name ??= part.function?.name ?? null;
    call.arguments += part.function?.arguments ?? "";
  }
  seen.finish_reason = choice.finish_reason ?? seen.finish_reason;
}

try {
  const { data, response } = await client.chat.completions.create({ ...body, stream: streams }).withResponse();
  seen.headers = ours(response.headers);
  if (streams) {
    for await (const chunk of data) {
      seen.chunks += 1;
      seen.model = chunk.model ?? seen.model;
      seen.usage = chunk.usage ?? seen.usage;
      for (const choice of chunk.choices ?? []) addChoice(choice, choice.delta);
    }
  } else {
    seen.model = data.model;
    seen.usage = data.usage ?? null;
    for (const choice of data.choices) addChoice(choice, choice.message);
  }
} catch (error) {
  seen.error = {
    name: error.constructor.name,
    status: error.status ?? null,
    code: error.code ?? null,
    type: error.type ?? null,
    message: error.message,
    api_error: error instanceof OpenAI.APIError,
    headers: ours(error.headers),
  };
}
seen.attempts = attempts;
console.log(JSON.stringify(seen));
