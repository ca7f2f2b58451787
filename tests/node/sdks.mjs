// Calls through the official Node SDKs, several in one process; prints what each SDK gave as one JSON line.
//
//   node sdks.mjs BASE_URL SDK CALLS
//
// BASE_URL without /v1. SDK: openai-chat, openai-responses, anthropic, google, ai-chat, ai-responses.
// CALLS: JSON, a list of {"mode", "model", "headers", "key"}; modes: plain, stream, tools (streamed), json (structured
// output), cut (streamed, an error is expected), denied and denied-stream. The prompt is the mode's name.
import { z } from "zod";

const [base, name, given] = process.argv.slice(2);
const City = z.object({ name: z.string(), people: z.number() });
const parameters = { type: "object", properties: { what: { type: "string" } }, required: ["what"] };
const LOOK = { name: "look", description: "Look something up", parameters };

let sent = 0;
const original = globalThis.fetch;
globalThis.fetch = (...call) => {
  sent += 1;
  return original(...call);
};

const streams = (mode) => ["stream", "tools", "cut", "denied-stream"].includes(mode);
const parsed = (text) => (text ? JSON.parse(text) : {});

async function openaiChat({ mode, model, headers, key }, seen) {
  const { default: OpenAI } = await import("openai");
  const { zodResponseFormat } = await import("openai/helpers/zod");
  seen.base = OpenAI.APIError;
  const client = new OpenAI({ baseURL: `${base}/v1`, apiKey: key, defaultHeaders: headers });
  const asked = { model, messages: [{ role: "user", content: mode }] };
  if (mode === "json") {
    const reply = await client.chat.completions.parse({ ...asked, response_format: zodResponseFormat(City, "city") });
    seen.object = reply.choices[0].message.parsed;
    return;
  }
  const tools = mode === "tools" ? { tools: [{ type: "function", function: LOOK }] } : {};
  if (!streams(mode)) {
    const reply = await client.chat.completions.create({ ...asked, ...tools });
    seen.text = reply.choices[0].message.content;
    seen.finish = reply.choices[0].finish_reason;
    seen.tokens = [reply.usage.prompt_tokens, reply.usage.completion_tokens];
    return;
  }
  const stream = client.chat.completions.stream({ ...asked, ...tools, stream_options: { include_usage: true } });
  stream.on("content", (delta) => (seen.text += delta));
  const reply = await stream.finalChatCompletion();
  seen.finish = reply.choices[0].finish_reason;
  seen.tokens = [reply.usage.prompt_tokens, reply.usage.completion_tokens];
  seen.calls = (reply.choices[0].message.tool_calls ?? []).map((c) => [c.function.name, parsed(c.function.arguments)]);
}

async function openaiResponses({ mode, model, headers, key }, seen) {
  const { default: OpenAI } = await import("openai");
  const { zodTextFormat } = await import("openai/helpers/zod");
  seen.base = OpenAI.APIError;
  const client = new OpenAI({ baseURL: `${base}/v1`, apiKey: key, defaultHeaders: headers });
  const asked = { model, input: mode, store: false };
  if (mode === "json") {
    const reply = await client.responses.parse({ ...asked, text: { format: zodTextFormat(City, "city") } });
    seen.object = reply.output_parsed;
    return;
  }
  const tools = mode === "tools" ? { tools: [{ type: "function", strict: false, ...LOOK }] } : {};
  let reply;
  if (streams(mode)) {
    for await (const event of await client.responses.create({ ...asked, ...tools, stream: true })) {
      if (event.type === "response.output_text.delta") seen.text += event.delta;
      if (event.response) reply = event.response;
    }
  } else {
    reply = await client.responses.create({ ...asked, ...tools });
    seen.text = reply.output_text;
  }
  seen.finish = reply.status;
  seen.tokens = [reply.usage.input_tokens, reply.usage.output_tokens];
  const calls = reply.output.filter((item) => item.type === "function_call");
  seen.calls = calls.map((call) => [call.name, parsed(call.arguments)]);
  // This SDK gives `response.failed` as an event: the client's own code must look at it.
  if (reply.status === "failed") seen.error = { name: "response.failed", ...reply.error };
}

async function anthropic({ mode, model, headers, key }, seen) {
  const { default: Anthropic } = await import("@anthropic-ai/sdk");
  const { zodOutputFormat } = await import("@anthropic-ai/sdk/helpers/zod");
  seen.base = Anthropic.APIError;
  const client = new Anthropic({ baseURL: base, apiKey: key, defaultHeaders: headers });
  const asked = { model, max_tokens: 4000, messages: [{ role: "user", content: mode }] };
  if (mode === "json") {
    const reply = await client.messages.parse({ ...asked, output_config: { format: zodOutputFormat(City) } });
    seen.object = reply.parsed_output;
    return;
  }
  const offered = { name: "look", description: LOOK.description, input_schema: parameters };
  const tools = mode === "tools" ? { tools: [offered] } : {};
  let reply;
  if (streams(mode)) {
    const stream = client.messages.stream({ ...asked, ...tools });
    stream.on("text", (delta) => (seen.text += delta));
    reply = await stream.finalMessage();
  } else {
    reply = await client.messages.create({ ...asked, ...tools });
    seen.text = reply.content.map((block) => block.text ?? "").join("");
  }
  seen.finish = reply.stop_reason;
  seen.tokens = [reply.usage.input_tokens, reply.usage.output_tokens];
  const calls = reply.content.filter((block) => block.type === "tool_use");
  seen.calls = calls.map((call) => [call.name, call.input]);
}

async function google({ mode, model, headers, key }, seen) {
  const { GoogleGenAI, ApiError } = await import("@google/genai");
  seen.base = ApiError;
  const client = new GoogleGenAI({ apiKey: key, httpOptions: { baseUrl: base, headers } });
  const config = {};
  if (mode === "json") {
    config.responseMimeType = "application/json";
    config.responseJsonSchema = z.toJSONSchema(City);
  }
  if (mode === "tools") {
    const declared = { name: "look", description: LOOK.description, parametersJsonSchema: parameters };
    config.tools = [{ functionDeclarations: [declared] }];
  }
  const asked = { model, contents: mode, config };
  const replies = streams(mode)
    ? await client.models.generateContentStream(asked)
    : [await client.models.generateContent(asked)];
  for await (const reply of replies) {
    for (const part of reply.candidates?.[0]?.content?.parts ?? []) {
      seen.text += part.text ?? "";
      if (part.functionCall) seen.calls.push([part.functionCall.name, part.functionCall.args]);
    }
    seen.finish = reply.candidates?.[0]?.finishReason ?? seen.finish;
    const used = reply.usageMetadata;
    if (used) seen.tokens = [used.promptTokenCount, used.candidatesTokenCount ?? 0];
  }
  if (mode === "json") seen.object = parsed(seen.text);
}

async function aiSdk(provider, { mode, model }, seen) {
  const { APICallError, Output, generateText, jsonSchema, streamText, tool } = await import("ai");
  seen.base = APICallError;
  const asked = { model: provider(model), prompt: mode };
  if (mode === "tools") {
    asked.tools = { look: tool({ description: LOOK.description, inputSchema: jsonSchema(parameters) }) };
  }
  if (mode === "json") {
    const reply = await generateText({ ...asked, output: Output.object({ schema: City }) });
    seen.object = reply.output;
    return;
  }
  if (!streams(mode)) {
    const reply = await generateText(asked);
    seen.text = reply.text;
    seen.finish = reply.finishReason;
    seen.tokens = [reply.usage.inputTokens, reply.usage.outputTokens];
    return;
  }
  for await (const part of streamText({ ...asked, onError: () => {} }).fullStream) {
    if (part.type === "text-delta") seen.text += part.text;
    if (part.type === "tool-call") seen.calls.push([part.toolName, part.input]);
    if (part.type === "error") throw part.error;
    if (part.type === "finish") {
      seen.finish = part.finishReason;
      seen.tokens = [part.totalUsage.inputTokens, part.totalUsage.outputTokens];
    }
  }
}

async function aiChat(call, seen) {
  const { createOpenAICompatible } = await import("@ai-sdk/openai-compatible");
  const settings = { name: "bursar", includeUsage: true, supportsStructuredOutputs: true };
  const { key: apiKey, headers } = call;
  await aiSdk(createOpenAICompatible({ ...settings, baseURL: `${base}/v1`, apiKey, headers }), call, seen);
}

async function aiResponses(call, seen) {
  const { createOpenAI } = await import("@ai-sdk/openai");
  const { key: apiKey, headers } = call;
  await aiSdk(createOpenAI({ baseURL: `${base}/v1`, apiKey, headers }), call, seen);
}

const SDKS = {
  "openai-chat": openaiChat,
  "openai-responses": openaiResponses,
  anthropic,
  google,
  "ai-chat": aiChat,
  "ai-responses": aiResponses,
};

function told(error, base) {
  const own = base !== undefined && error instanceof base;
  const status = error.status ?? error.statusCode ?? null;
  const shown = typeof error === "string" ? error : (error.message ?? JSON.stringify(error));
  return { name: error.constructor.name, status, message: shown, own };
}

const results = [];
for (const call of JSON.parse(given)) {
  const seen = { mode: call.mode, text: "", calls: [], finish: null, tokens: null, object: null, error: null };
  sent = 0;
  try {
    await SDKS[name]({ key: "none", headers: {}, ...call }, seen);
  } catch (error) {
    seen.error = told(error, seen.base);
  }
  delete seen.base;
  results.push({ ...seen, sent });
}
console.log(JSON.stringify(results));
