// Every call to the gateway: same origin, the login in a header, a time limit, errors as they come.

import { session } from "./session.js";

const PATIENCE_MS = 20_000;

/** What the gateway answered instead of what was asked for. */
export class ApiError extends Error {
  constructor(status, type, message, requestId, retryAfter) {
    super(
      message +
        (retryAfter ? ` (try again in ${retryAfter} s)` : "") +
        (requestId ? ` — request ${requestId}` : ""),
    );
    this.status = status;
    this.type = type;
    this.requestId = requestId;
    this.headers = null;
  }
}

/**
 * Calls the gateway and returns the raw answer.
 * @param {object} [options] method, body (texts and bytes as they are, an object becomes JSON), headers, signal,
 *   patience (ms, for the whole answer), idle (ms): patience ends with the answer's headers, and from then on
 *   this is the longest pause between two pieces of it
 */
export async function reach(path, { method = "GET", body, headers = {}, patience = PATIENCE_MS, idle, signal } = {}) {
  const limit = new Limit(patience);
  const token = session.token();
  let answer;
  try {
    answer = await fetch(path, {
      method,
      body: body === undefined || typeof body === "string" || ArrayBuffer.isView(body) ? body : JSON.stringify(body),
      headers: {
        ...(body === undefined ? {} : { "Content-Type": "application/json" }),
        ...(token ? { Authorization: `Bearer ${token}` } : {}),
        ...headers,
      },
      cache: "no-store",
      credentials: "omit",
      redirect: "error",
      signal: signal ? AbortSignal.any([signal, limit.signal]) : limit.signal,
    });
  } catch (error) {
    if (signal?.aborted || limit.signal.aborted) throw error;
    limit.stop();
    throw new ApiError(0, "unreachable", "the gateway cannot be reached");
  }
  if (answer.status === 401 && token) session.expired();
  if (!answer.ok) throw await fault(answer);
  if (!idle) return answer;
  return new Response(paced(answer.body, limit, idle), { status: answer.status, headers: answer.headers });
}

/** Ends what takes too long, with an error that says so. */
class Limit {
  #halt = new AbortController();
  #timer;

  constructor(wait) {
    this.restart(wait);
  }

  get signal() {
    return this.#halt.signal;
  }

  restart(wait) {
    this.stop();
    this.#timer = setTimeout(() => this.#halt.abort(new ApiError(0, "unreachable", "the gateway took too long")), wait);
  }

  stop() {
    clearTimeout(this.#timer);
  }
}

/** The body as it comes; each piece gives the next one as long again. */
function paced(body, limit, idle) {
  const reader = body.getReader();
  limit.restart(idle);
  return new ReadableStream({
    async pull(out) {
      try {
        const { done, value } = await reader.read();
        if (done) {
          limit.stop();
          out.close();
          return;
        }
        limit.restart(idle);
        out.enqueue(value);
      } catch (error) {
        limit.stop();
        throw limit.signal.aborted ? limit.signal.reason : error;
      }
    },
    cancel(reason) {
      limit.stop();
      return reader.cancel(reason);
    },
  });
}

/** Calls the gateway and returns what the JSON says. */
export async function call(path, options) {
  const answer = await reach(path, options);
  return answer.json();
}

async function fault(answer) {
  const request = answer.headers.get("x-request-id");
  let found = {};
  try {
    found = (await answer.json()).error ?? {};
  } catch {
    // Not ours: a proxy answered in HTML.
  }
  const message = found.message ?? `the gateway answered ${answer.status}`;
  const made = new ApiError(answer.status, found.type ?? "error", message, request, answer.headers.get("retry-after"));
  made.headers = answer.headers;
  return made;
}

/** A path with a query; what is empty is left out. */
export function query(path, values) {
  const text = new URLSearchParams(Object.entries(values).filter(([, value]) => value !== "" && value !== undefined && value !== null));
  return text.size ? `${path}?${text}` : path;
}
