// The stock `openai` package against a running gateway; prints what it got as one line of JSON.
import OpenAI from "openai";

const { DARKBLOOM_URL, DARKBLOOM_API_KEY } = process.env;
const client = new OpenAI({
  baseURL: `${DARKBLOOM_URL}/v1`,
  apiKey: DARKBLOOM_API_KEY,
  maxRetries: 0,
});
const model = "tiny";
const messages = [{ role: "user", content: "hi" }];
const parameters = { type: "object", properties: { at: { type: "string" } } };
const tools = [{ type: "function", function: { name: "look", parameters } }];
const got = {};

got.models = (await client.models.list()).data.map((one) => one.id);
got.model = (await client.models.retrieve(model)).id;

const chat = await client.chat.completions.create({ model, messages });
got.chat = [chat.object, chat.choices[0].message.content, chat.usage.completion_tokens];

got.streamed = "";
const stream = await client.chat.completions.create({
  model,
  messages,
  stream: true,
  stream_options: { include_usage: true },
});
for await (const chunk of stream) {
  got.streamed += chunk.choices[0]?.delta?.content ?? "";
  if (chunk.usage) got.tokens = chunk.usage.completion_tokens;
}

const called = await client.chat.completions.create({ model, messages, tools });
got.called = called.choices[0].message.tool_calls.map((call) => [
  call.function.name,
  JSON.parse(call.function.arguments || "{}"),
]);
got.reason = called.choices[0].finish_reason;

// The package's own assembly of a stream with calls, and the answer to them.
const runner = client.chat.completions.stream({ model, messages, tools });
const assembled = await runner.finalChatCompletion();
got.assembled = assembled.choices[0].message.tool_calls[0].function.arguments;
const again = await client.chat.completions.create({
  model,
  tools,
  messages: [
    ...messages,
    called.choices[0].message,
    ...called.choices[0].message.tool_calls.map((call) => ({
      role: "tool",
      tool_call_id: call.id,
      content: "blue",
    })),
  ],
});
got.again = again.choices[0].message.content;

const response = await client.responses.create({ model, input: "hi" });
got.response = [response.status, response.output_text];
got.events = [];
for await (const event of await client.responses.create({ model, input: "hi", stream: true })) {
  got.events.push(event.type);
}

got.completion = (await client.completions.create({ model, prompt: "hi" })).choices[0].text;

try {
  await client.chat.completions.create({ model: "absent", messages });
} catch (error) {
  got.refused = [error.constructor.name, error.status, error.code, error.param];
}
console.log(JSON.stringify(got));
