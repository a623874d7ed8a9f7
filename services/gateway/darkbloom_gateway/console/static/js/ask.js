// One chat completion, streamed: openly over TLS, or sealed to the gateway.

import { ApiError, reach } from "./api.js";
import { seal, MEDIA_TYPE } from "./sealed.js";
import { session } from "./session.js";
import { events } from "./stream.js";

export const CHAT = "/v1/chat/completions";
const PATIENCE_MS = 600_000;
// The gateway writes something into a silent stream every 15 s.
const IDLE_MS = 120_000;

/**
 * Asks and reports as the answer comes.
 * @param {object} wanted body (object), sealed, route, signal
 * @param {(part: {text?: string, reasoning?: string}) => void} onPart
 * @returns {Promise<{headers: Headers, body: string, usage, receipt, finish}>}
 */
export async function ask({ body, sealed, route, signal }, onPart) {
  const text = JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true } });
  const envelope = sealed ? await seal(CHAT, session.token() ?? "", text) : null;
  const answer = await reach(CHAT, {
    method: "POST",
    body: envelope ? envelope.body : text,
    headers: { ...(envelope ? { "Content-Type": MEDIA_TYPE } : {}), ...(route ? { "X-Darkbloom-Route": route } : {}) },
    patience: PATIENCE_MS,
    idle: IDLE_MS,
    signal,
  });
  const result = { headers: answer.headers, body: text, usage: null, receipt: null, finish: null };
  let done = false;
  for await (const data of lines(answer, envelope)) {
    if (data === "[DONE]") {
      done = true;
      continue;
    }
    take(JSON.parse(data), result, onPart);
  }
  if (!done || (envelope && !envelope.complete)) throw new Error("the answer was cut off");
  return result;
}

async function* lines(answer, envelope) {
  for await (const data of events(answer.body)) {
    if (!envelope) {
      yield data;
      continue;
    }
    // Inside each box is one whole event, its `data: ` and the blank line included.
    for (const line of envelope.open(data, answer.status).split("\n")) {
      if (line.startsWith("data: ")) yield line.slice(6);
    }
  }
}

function take(event, result, onPart) {
  if (event.error) throw new ApiError(200, event.error.type, event.error.message, result.headers.get("x-request-id"));
  const chosen = event.choices?.[0];
  if (chosen?.delta?.content) onPart({ text: chosen.delta.content });
  const thought = chosen?.delta?.reasoning_content ?? chosen?.delta?.reasoning;
  if (thought) onPart({ reasoning: thought });
  result.finish = chosen?.finish_reason ?? result.finish;
  result.usage = event.usage ?? result.usage;
  result.receipt = event.receipt ?? result.receipt;
}
