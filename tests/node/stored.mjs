// Conversations that the gateway stores, through the official Node SDKs; prints what each gave as one JSON line.
//
//   node stored.mjs BASE_URL MODELS
//
// BASE_URL without /v1; MODELS: JSON, a list. Each model is asked by the openai SDK (previous_response_id, retrieve,
// input items, delete) and by the AI SDK as it is without options: two turns, the first with tool calls in two steps.
import { createOpenAI } from "@ai-sdk/openai";
import { generateText, isStepCount, jsonSchema, streamText, tool } from "ai";
import OpenAI from "openai";

const [base, given] = process.argv.slice(2);
const settings = { baseURL: `${base}/v1`, apiKey: "none" };
const parameters = { type: "object", properties: { what: { type: "string" } }, required: ["what"] };
const look = tool({
  description: "Look something up",
  inputSchema: jsonSchema(parameters),
  execute: async ({ what }) => `found ${what}`,
});

async function openai(model) {
  const client = new OpenAI(settings);
  const first = await client.responses.create({ model, input: "One" });
  let second;
  const asked = { model, input: "Two", previous_response_id: first.id, stream: true };
  for await (const event of await client.responses.create(asked)) second = event.response ?? second;
  const listed = [];
  for await (const item of client.responses.inputItems.list(second.id, { order: "asc", limit: 1 })) listed.push(item);
  const read = await client.responses.retrieve(first.id);
  await client.responses.delete(first.id);
  const gone = await client.responses.retrieve(first.id).then(
    () => null,
    (error) => ({ status: error.status, own: error instanceof OpenAI.NotFoundError }),
  );
  return {
    texts: listed.map((item) => item.content[0].text),
    previous: second.previous_response_id === first.id,
    read: read.output_text === first.output_text,
    gone,
  };
}

async function ai(model) {
  const provider = createOpenAI(settings);
  const asked = { model: provider(model), tools: { look }, stopWhen: isStepCount(5), maxRetries: 0 };
  const messages = [{ role: "user", content: "Look twice" }];
  const first = await generateText({ ...asked, messages });
  messages.push(...(first.responseMessages ?? first.response.messages), { role: "user", content: "And now?" });
  const second = streamText({ ...asked, messages });
  let said = "";
  for await (const part of second.fullStream) {
    if (part.type === "error") throw part.error;
    if (part.type === "text-delta") said += part.text;
  }
  return { texts: [first.text, said], steps: [first.steps.length, (await second.steps).length] };
}

const results = {};
for (const model of JSON.parse(given)) results[model] = { openai: await openai(model), ai: await ai(model) };
console.log(JSON.stringify(results));
