// End-to-end mode (docs/end-to-end.md): this page seals to the key of the machine that answers, and
// opens the answer itself. The gateway sees a model's name, sizes and counts.
//
// This code came from the gateway. Whoever does not want to trust it uses the Python client.

import { ApiError, call, query, reach } from "./api.js";
import { BROKEN, CONTENT, END, FINAL, KEEP_ALIVE, PREAMBLE, records, Session } from "./boxes.js";
import { domain, ed25519, from64, hmac, join, knowsEd25519, same, sha256, to64, toHex, unutf8, utf8 } from "./bytes.js";
import { packMap, unpack } from "./pack.js";
import { checkMachine, checkReceipt, publishedKeys } from "./verify.js";

const SEALED = "application/vnd.darkbloom.sealed";
const PATIENCE_MS = 600_000;
const IDLE_MS = 120_000;
const LIFE_MS = 300_000;
const TRIES = 3;
const OUTPUT_BOUND = 4096;
const BYTES_ALLOWANCE = 256;
const GONE = 410;
const OFFER_ID = /^off_[0-9a-f]{48}$/;

/** Asks end to end; as `ask`, and the result says what was checked before anything was sealed. */
export async function askEndToEnd({ body, signal, route }, onPart) {
  if (!(await knowsEd25519())) throw new Error("this browser cannot check Ed25519, so it cannot verify an offer; nothing was sent");
  const tried = { exclude: [], sealed: 0 };
  let refused = null;
  for (let tries = 1; ; tries += 1) {
    try {
      return await attempt({ body, signal, route, tried }, onPart);
    } catch (error) {
      if (error instanceof RefusedError) refused ??= error;
      // A gateway that has nobody else to offer does not make the refusal its own.
      if (!error.again || tries === TRIES) throw refused && error.unsealed ? refused : error;
      if (error.provider) tried.exclude.push(error.provider);
    }
  }
}

/** An offer that is not sealed under; another machine may do. */
class RefusedError extends Error {
  constructor(what, provider) {
    super(`refused before anything was sealed: ${what}`);
    this.again = this.unsealed = true;
    this.provider = provider;
  }
}

async function attempt({ body, signal, route, tried }, onPart) {
  const routing = route ? { "X-Darkbloom-Route": route } : {};
  const bytes = utf8(JSON.stringify(body.messages)).length;
  const prompt = Math.max(16, Math.ceil(bytes / 3));
  const bound = 256 + bytes + 16 * body.messages.length;
  const nonce = random32();
  const asked = { model: body.model, nonce: to64(nonce), prompt_tokens: prompt, prompt_bound: Math.min(bound, 8 * prompt + 4096), output_bound: OUTPUT_BOUND, body_bytes: bytes + 4096, exclude: tried.exclude };
  const answer = await offerOf(asked, routing, signal);
  const offered = await verified(answer, asked).catch(async (error) => {
    await decline(answer);
    throw error;
  });
  const { offer, verdict } = offered;

  tried.sealed += 1;
  const sealedTo = tried.sealed;
  const session = new Session(from64(verdict.encryption_key), offer.request_id, offer.attempt_id);
  const receiptKey = random32();
  const request = utf8(canonical({ max_tokens: offer.output_bound, messages: body.messages, model: offer.build }));
  const header = packMap({
    not_after_ms: Date.now() + LIFE_MS,
    prompt_bound: offer.prompt_bound,
    output_bound: offer.output_bound,
    receipt_key: receiptKey,
    verdict_id: verdict.verdict_id,
    sealed_to: sealedTo,
    edge_nonce: nonce,
    end_to_end: true,
  });
  const sealed = session.seal(header, request);
  const response = await posted(join(session.senderKey, sealed), offer, signal);
  const digests = new Digests(receiptKey);
  const result = { headers: response.headers, body: unutf8(request), usage: null, receipt: null, finish: null, before: offered.claims };
  const state = { first: true, finished: false, relayed: [], chunks: 0, counts: [0, 0, 0, 0], bytes: 0, ended: false };
  for await (const record of records(response.body)) {
    if (record.kind === KEEP_ALIVE) continue;
    if (record.kind === BROKEN) throw errorOf(JSON.parse(unutf8(record.payload)), response);
    if (record.kind === END) {
      result.receipt = { ...JSON.parse(unutf8(record.payload)), receipt_key: to64(receiptKey) };
      state.ended = true;
      continue;
    }
    state.relayed.push(record.payload);
    take(session.open(record.payload), record, { state, nonce, offer, digests, result }, onPart);
  }
  if (!state.ended || !state.finished) throw new Error("the answer was cut off");
  await prove(result.receipt, { offer, verdict, nonce, request, sealed, state, digests, result, sealedTo });
  const fault = (await checkReceipt(result.receipt, offered.keys, result.body, digests.content)).find((one) => one.holds === false);
  if (fault) throw new Error(`${fault.name}: ${fault.detail}; do not rely on this answer`);
  return result;
}

async function offerOf(asked, headers, signal) {
  try {
    return await call("/v1/offers", { method: "POST", headers, signal, patience: 60_000, body: asked });
  } catch (error) {
    error.unsealed = true;
    throw error;
  }
}

/** Gives the place and the hold of an offer back; what it says of itself is enough for that. */
async function decline(answer) {
  try {
    const { offer_id } = JSON.parse(unutf8(from64(answer.offer.document)));
    if (OFFER_ID.test(offer_id)) await reach("/v1/offers/decline", { method: "POST", headers: { "X-Darkbloom-Offer": offer_id }, patience: 5_000 });
  } catch {
    // Unreadable, or over already: the gateway ends it by itself.
  }
}

/** What an offer changes of what was asked; empty where it changes nothing. */
function changed(offer, asked) {
  if (offer.requested_model !== asked.model) return "it is for another model";
  if (offer.prompt_bound !== asked.prompt_bound) return "it changes the prompt's bound";
  if (!(offer.output_bound <= asked.output_bound)) return "it allows a longer answer";
  if (!(offer.body_bytes >= asked.body_bytes)) return "it takes fewer bytes";
  return "";
}

/** Verifies an offer before anything is sealed; throws where something does not hold. */
async function verified(answer, asked) {
  const keys = await publishedKeys();
  const [offerBytes, verdictBytes] = [from64(answer.offer.document), from64(answer.verdict.document)];
  const offer = JSON.parse(unutf8(offerBytes));
  const verdict = JSON.parse(unutf8(verdictBytes));
  let provider = null;
  const refuse = (what) => {
    throw new RefusedError(what, provider);
  };
  const gatewayKey = keys.receipt.get(answer.offer.key_id);
  if (!gatewayKey || !(await ed25519(gatewayKey, from64(answer.offer.signature), domain("offer", offerBytes)))) refuse("the offer is not signed by the gateway");
  provider = offer.provider_id;
  if (offer.nonce !== asked.nonce) refuse("the offer is not to this question");
  const change = changed(offer, asked);
  if (change) refuse(change);
  if (offer.verdict_sha256 !== toHex(await sha256(verdictBytes))) refuse("offer and verdict do not belong together");
  const row = (await call(query("/v1/providers/attestation", { provider_id: offer.provider_id }))).providers[0];
  if (!row) refuse("nothing is published of this machine");
  // The offer's verdict, not the one that the list shows at the moment, is what we seal under.
  const claims = await checkMachine({ ...row, verdict: { document: answer.verdict.document, signature: answer.verdict.signature, key_id: answer.verdict.key_id } }, keys);
  const fault = claims.find((one) => one.holds === false);
  if (fault) refuse(`${fault.name}: ${fault.detail}`);
  if (verdict.provider_id !== offer.provider_id) refuse("the verdict is of another machine");
  return { offer, verdict, claims, keys };
}

async function posted(payload, offer, signal) {
  try {
    return await reach("/v1/offers/answer", { method: "POST", body: payload, headers: { "Content-Type": SEALED, "X-Darkbloom-Offer": offer.offer_id }, patience: PATIENCE_MS, idle: IDLE_MS, signal });
  } catch (error) {
    error.provider = error.headers?.get("x-provider-id");
    // Late is nobody's fault, and not the machine's.
    error.again = error.status === GONE || error.headers?.get("x-darkbloom-retry") === "new-offer";
    throw error;
  }
}

/** Takes one opened chunk, after checking what a gateway would check. */
function take([plain, final], record, { state, nonce, offer, digests, result }, onPart) {
  const wrong = (what) => {
    throw new Error(`the machine broke the rules: ${what}`);
  };
  const [text = "", reasoning = "", calls = [], prompt = 0, completion = 0, cached = 0, thought = 0, finish = null, , , echo = new Uint8Array()] = unpack(plain);
  if (final !== (record.kind === FINAL)) wrong("a chunk's end is not where it says");
  if ((finish !== null) !== final) wrong("a reason to end that is not at the end");
  if (!same(echo, state.first ? nonce : new Uint8Array())) wrong("the nonce did not come back");
  if (record.kind === PREAMBLE && (text || reasoning || calls.length)) wrong("content before the content");
  if (record.kind !== PREAMBLE && record.kind !== CONTENT && record.kind !== FINAL) wrong("an unknown record");
  const counts = [prompt, completion, cached, thought];
  if (completion !== record.tokens || counts.some((count, at) => count < state.counts[at])) wrong("its counts do not fit");
  if (completion > offer.output_bound || prompt > offer.prompt_bound || cached > prompt || thought > completion) wrong("more tokens than agreed");
  state.bytes += [text, reasoning, ...calls.flatMap(([, , name = "", written = ""]) => [name, written])].reduce((sum, part) => sum + utf8(part).length, 0);
  if (completion > state.bytes + BYTES_ALLOWANCE) wrong("more tokens than bytes");
  state.first = false;
  state.chunks += 1;
  state.counts = counts;
  digests.feed(text, reasoning);
  if (text || reasoning) onPart({ text, reasoning });
  if (final) {
    state.finished = true;
    result.finish = finish;
    result.usage = { prompt_tokens: prompt, completion_tokens: completion };
  }
}

/** What the receipt must say of this very exchange; throws where it does not. */
async function prove(receipt, { offer, verdict, nonce, request, sealed, state, digests, result, sealedTo }) {
  const read = (name) => JSON.parse(unutf8(from64(receipt[name])));
  const [terminal, countersign] = [read("terminal"), read("countersign")];
  const found = await digests.of(request);
  const wrong = [
    [terminal.request_id === offer.request_id && terminal.attempt_id === offer.attempt_id, "another attempt"],
    [terminal.build === offer.build, "another model"],
    [terminal.encryption_key === verdict.encryption_key && terminal.verdict_id === verdict.verdict_id, "another key"],
    [terminal.edge_nonce === to64(nonce), "another question"],
    [terminal.sealed_to === sealedTo && terminal.chunks === state.chunks, "other counts of boxes"],
    [terminal.finish_reason === result.finish, "another end"],
    [terminal.completion_tokens === state.counts[1] && terminal.prompt_tokens === state.counts[0], "other counts of tokens"],
    [Object.entries(found).every(([name, digest]) => terminal.digests[name] === digest), "another text"],
    [countersign.sealed_sha256 === toHex(await sha256(sealed)), "another request was passed on"],
    [countersign.relayed_sha256 === toHex(await sha256(join(...state.relayed))), "another answer was passed on"],
  ].find(([holds]) => !holds);
  if (wrong) throw new Error(`the receipt speaks of ${wrong[1]}: do not rely on this answer`);
}

class Digests {
  #texts = { content: "", reasoning: "" };
  #key;

  constructor(key) {
    this.#key = key;
  }

  get content() {
    return this.#texts.content;
  }

  feed(text, reasoning) {
    this.#texts.content += text;
    this.#texts.reasoning += reasoning;
  }

  async of(request) {
    const digest = async (label, bytes) => toHex(await hmac(this.#key, join(utf8(`${label}\0`), bytes)));
    return { request: await digest("request", request), content: await digest("content", utf8(this.#texts.content)), reasoning: await digest("reasoning", utf8(this.#texts.reasoning)) };
  }
}

const random32 = () => crypto.getRandomValues(new Uint8Array(32));

/** Compact JSON with sorted names, as it is signed and digested. */
function canonical(value) {
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  if (value && typeof value === "object") return `{${Object.keys(value).sort().map((name) => `${JSON.stringify(name)}:${canonical(value[name])}`).join(",")}}`;
  return JSON.stringify(value);
}

function errorOf({ error }, response) {
  return new ApiError(response.status, error.type, error.message, response.headers.get("x-request-id"));
}
