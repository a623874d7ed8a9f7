// The stock `@anthropic-ai/sdk` package against a running gateway; prints one line of JSON.
import Anthropic from "@anthropic-ai/sdk";

const { DARKBLOOM_URL, DARKBLOOM_API_KEY } = process.env;
const client = new Anthropic({
  baseURL: DARKBLOOM_URL,
  apiKey: DARKBLOOM_API_KEY,
  maxRetries: 0,
});
const ask = { model: "tiny", max_tokens: 64, messages: [{ role: "user", content: "hi" }] };
const tools = [{ name: "look", input_schema: { type: "object" } }];
const got = {};

const message = await client.messages.create(ask);
got.message = [message.type, message.content[0].text, message.stop_reason];

got.streamed = "";
const stream = client.messages.stream(ask).on("text", (text) => (got.streamed += text));
const final = await stream.finalMessage();
got.usage = [final.usage.input_tokens, final.usage.output_tokens];

const called = await client.messages.create({ ...ask, tools });
got.called = called.content.map((block) => [block.type, block.name ?? null, block.input ?? null]);
got.reason = called.stop_reason;
const assembled = await client.messages.stream({ ...ask, tools }).finalMessage();
got.assembled = assembled.content.filter((block) => block.type === "tool_use")[0].input;

got.tokens = (await client.messages.countTokens({ model: ask.model, messages: ask.messages }))
  .input_tokens;

try {
  await client.messages.create({ ...ask, model: "absent" });
} catch (error) {
  got.refused = [error.constructor.name, error.status, error.error.error.type];
}
console.log(JSON.stringify(got));
