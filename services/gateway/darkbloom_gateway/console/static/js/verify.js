// What this browser can check by itself: signatures, and that the papers speak of each other.
//
// Every check returns claims {name, holds, detail, backedBy}; holds is true, false, or null for what
// could not be checked. The keys come from the same gateway that serves this page, so this proves
// that the answers fit together, not that the gateway is honest: that takes `darkbloom verify` with
// keys kept elsewhere.

import { call } from "./api.js";
import { domain, ed25519, from64, fromHex, hmac, knowsEd25519, p256, same, sha256, toHex, unutf8, utf8 } from "./bytes.js";
import { grown, included, leafHash } from "./merkle.js";

const SKEW_MS = 120_000;
const STREAM_MS = 3_600_000;
const MINUTE_MS = 60_000;
const HEAD = "darkbloom.log-head";
const NO_ED25519 = "this browser cannot check Ed25519";

const claim = (name, holds, detail, backedBy) => ({ name, holds, detail, backedBy });
const read = (bytes) => JSON.parse(unutf8(bytes));

/** The keys that this gateway publishes, by id. */
export async function publishedKeys() {
  const found = await call("/v1/receipts/keys");
  const byId = (rows) => new Map(rows.map((row) => [row.key_id, from64(row.public_key)]));
  return { verdict: byId(found.verdict_keys), receipt: byId(found.receipt_keys) };
}

/** A document that a service signed: true, false, or null where it cannot be checked. */
async function signedBy(keys, keyId, kind, document, signature) {
  const key = keys.get(keyId);
  if (!key) return [false, `key ${keyId} is not among the published ones`];
  if (!(await knowsEd25519())) return [null, NO_ED25519];
  const holds = await ed25519(key, signature, domain(kind, document));
  return [holds, holds ? "the signature holds" : "the signature does not fit"];
}

async function signedByMachine(key, kind, document, signature) {
  try {
    const holds = await p256(key, signature, kind ? domain(kind, document) : document);
    return [holds, holds ? "the signature holds" : "the signature does not fit"];
  } catch (error) {
    return [false, error.message];
  }
}

/** Checks one machine of `GET /v1/providers/attestation`. */
export async function checkMachine(entry, keys, now = Date.now()) {
  const claims = [];
  const identity = from64(entry.identity_key);
  if (!entry.verdict) return [claim("verdict", false, "no verdict is in force, so it gets no requests", "the operator")];
  const document = from64(entry.verdict.document);
  const verdict = read(document);
  claims.push(claim("verdict signed", ...(await signedBy(keys.verdict, entry.verdict.key_id, "verdict", document, from64(entry.verdict.signature))), `attestation's key ${entry.verdict.key_id}`));

  const [issued, expires] = [Date.parse(verdict.issued_at), Date.parse(verdict.expires_at)];
  const inForce = issued <= now + SKEW_MS && now < expires && expires - issued <= 16 * MINUTE_MS;
  claims.push(claim("verdict in force", inForce, `from ${verdict.issued_at} to ${verdict.expires_at}, by this device's clock`, "attestation"));
  const names = verdict.provider_id === entry.provider_id && sameKey(verdict.identity_key, entry.identity_key) && verdict.encryption_key === entry.encryption_key;
  claims.push(claim("verdict names this machine", names, names ? "same session, identity key and encryption key" : "it speaks of another one", "attestation"));
  const listed = new Set(entry.evidence.map((piece) => piece.id));
  const missing = verdict.evidence.filter((id) => !listed.has(id));
  claims.push(claim("evidence published", entry.evidence_unavailable ? null : missing.length === 0, missing.length ? `${missing.length} of ${verdict.evidence.length} pieces are not shown` : `all ${verdict.evidence.length} pieces of the verdict are listed`, "the operator"));

  for (const piece of entry.evidence) claims.push(await checkPiece(piece, entry, identity, now));
  claims.push(
    entry.trust_level === "hardware"
      ? claim("Apple's signature", null, "not checked in the browser: `darkbloom verify` follows it to Apple's root", "Apple")
      : claim("attested hardware", null, `trust level ${entry.trust_level}, admitted as ${entry.admission}: nothing proves what machine this is`, "attestation"),
  );
  return claims;
}

async function checkPiece(piece, entry, identity, now) {
  const name = `evidence: ${piece.kind.replaceAll("_", " ")}`;
  if (piece.backing !== "checkable") return claim(name, null, "only the operator saw it", "the operator");
  if (piece.kind === "registration" && piece.document) {
    const document = from64(piece.document);
    const [signed, detail] = await signedByMachine(identity, "public-registration", document, from64(piece.signature));
    const form = read(document);
    const bound = sameKey(form.publicKey, entry.identity_key) && form.encryptionPublicKey === entry.encryption_key;
    return claim(name, signed && bound, bound ? `${detail}; it names this encryption key` : "it names other keys", "the machine's own key");
  }
  if (piece.kind === "challenge" && piece.document) {
    const document = from64(piece.document);
    const [signed, detail] = await signedByMachine(identity, null, document, from64(piece.signature));
    const status = read(document);
    const bound = status.provider_id === entry.provider_id && status.public_key === entry.encryption_key;
    const age = Math.max(0, Math.round((now - Date.parse(status.timestamp)) / MINUTE_MS));
    return claim(name, signed && bound, bound ? `${detail}; answered ${age} min ago for this session and key` : "it is of another session or key", "the machine's own key");
  }
  return claim(name, null, "shown, and not checked in the browser", "Apple");
}

/**
 * How far the machine that answered is trusted, and who says so. End to end the answer's verdict was verified
 * before anything was sealed, and the receipt was held to it; elsewhere nothing but the gateway's header is there yet.
 */
export function levelOf({ headers, receipt }, mode) {
  if (mode !== "end") return [headers.get("x-provider-trust-level") ?? "none", "as the gateway says"];
  return [receipt ? read(from64(receipt.verdict)).trust_level : "none", "by its verified verdict"];
}

function sameKey(left, right) {
  const plain = (text) => {
    const bytes = from64(text);
    return bytes.length === 65 ? bytes.subarray(1) : bytes;
  };
  return same(plain(left), plain(right));
}

/**
 * Checks the receipt of an answer.
 * @param {object} receipt as it came
 * @param {string} body the request, exactly as it was sent or sealed
 * @param {string} content the answer's text
 */
export async function checkReceipt(receipt, keys, body, content) {
  const raw = Object.fromEntries(["terminal", "terminal_signature", "identity_key", "verdict", "verdict_signature", "countersign", "countersign_signature"].map((name) => [name, from64(receipt[name])]));
  const [terminal, verdict, countersign] = [read(raw.terminal), read(raw.verdict), read(raw.countersign)];
  const key = receipt.receipt_key ? from64(receipt.receipt_key) : null;
  const claims = [
    claim("verdict signed", ...(await signedBy(keys.verdict, receipt.verdict_key_id, "verdict", raw.verdict, raw.verdict_signature)), `attestation's key ${receipt.verdict_key_id}`),
    claim("answer signed by the machine", ...(await signedByMachine(raw.identity_key, "terminal", raw.terminal, raw.terminal_signature)), "the machine's own key"),
    claim("countersigned", ...(await signedBy(keys.receipt, receipt.gateway_key_id, "receipt", raw.countersign, raw.countersign_signature)), `the gateway's key ${receipt.gateway_key_id}`),
  ];
  const sameMachine = sameKey(receipt.identity_key, verdict.identity_key);
  claims.push(claim("the verdict's machine answered", sameMachine, sameMachine ? "the same identity key" : "another key signed", "attestation"));
  const sameBox = terminal.encryption_key === verdict.encryption_key && terminal.verdict_id === verdict.verdict_id;
  claims.push(claim("opened with the verdict's key", sameBox, `sealed to ${Math.max(terminal.sealed_to, countersign.sealed_to ?? 0)} machine(s)`, "the machine and attestation"));
  const attempt = countersign.request_id === terminal.request_id && countersign.attempt_id === terminal.attempt_id && countersign.terminal_sha256 === toHex(await sha256(raw.terminal));
  claims.push(claim("one and the same attempt", attempt, `${terminal.build}, weights ${terminal.weight_hash.slice(0, 19)}…`, "the machine and the gateway"));
  const [issued, expires, ended] = [verdict.issued_at, verdict.expires_at, countersign.issued_at].map(Date.parse);
  const timely = ended >= issued - SKEW_MS && ended <= expires ? true : ended <= expires + STREAM_MS && ended > expires ? null : false;
  claims.push(claim("the verdict was in force", timely, `until ${verdict.expires_at}`, "attestation and the gateway"));
  const counts = terminal.completion_tokens === countersign.opened.completion_tokens && terminal.prompt_tokens === countersign.opened.prompt_tokens;
  claims.push(claim("token counts agree", counts || (countersign.outcome === "completed" ? false : null), `prompt ${terminal.prompt_tokens}, answer ${terminal.completion_tokens}`, "the machine and the gateway"));
  if (key) {
    const digest = async (label, text) => toHex(await hmac(key, utf8(`${label}\0${text}`)));
    claims.push(
      countersign.mode === "end_to_end"
        ? claim("the machine read your request unchanged", (await digest("request", body)) === terminal.digests.request, "digest of exactly what this page sealed; the gateway has not seen it", "the machine")
        : claim("your request arrived unchanged", (await digest("body", body)) === countersign.body_digest, "digest of exactly what this page sent", "the gateway"),
    );
    claims.push(claim("this is the text that it wrote", (await digest("content", content)) === terminal.digests.content, "digest of exactly what this page shows", "the machine"));
  }
  claims.push(claim("attested hardware", verdict.trust_level === "hardware" ? true : null, verdict.trust_level === "hardware" ? `running ${verdict.code_release}` : `trust level ${verdict.trust_level}, admitted as ${verdict.admission}: nothing proves what machine answered`, "attestation"));
  return claims;
}

/** Checks the log's head, that it only grew since this browser last looked, and that keys are in it. */
export async function checkLog(keys) {
  const found = await call("/v1/log/head");
  const document = from64(found.head.document);
  const head = read(document);
  const [signed, detail] = await signedBy(keys.verdict, found.head.key_id, "log_head", document, from64(found.head.signature));
  const claims = [claim("head signed", signed, `${detail}; ${head.tree_size} entries at ${head.time}`, `attestation's key ${found.head.key_id}`)];
  claims.push(await sinceLastTime(head));
  for (const [kind, ids] of [["verdict_key", keys.verdict], ["receipt_key", keys.receipt]]) {
    const newest = [...ids.keys()].at(-1);
    if (newest) claims.push(await logged(kind, newest, ids.get(newest), head));
  }
  if (signed !== false) localStorage.setItem(HEAD, JSON.stringify({ size: head.tree_size, root: head.root_hash, time: head.time }));
  return claims;
}

async function sinceLastTime(head) {
  const name = "it only grew";
  const last = JSON.parse(localStorage.getItem(HEAD) ?? "null");
  if (!last) return claim(name, null, "this browser has not looked before; it remembers this head", "this browser");
  if (last.size > head.tree_size) return claim(name, false, `it had ${last.size} entries at ${last.time}: another log, or one that was cut`, "this browser");
  const proof = await call(`/v1/log/proof/consistency?first=${last.size}&second=${head.tree_size}`);
  const holds = await grown(last.size, head.tree_size, fromHex(last.root), fromHex(head.root_hash), proof.path.map(fromHex));
  return claim(name, holds, holds ? `since ${last.size} entries at ${last.time}` : "what this browser saw before is not a part of it", "this browser");
}

async function logged(kind, id, key, head) {
  const name = `${kind.replace("_", " ")} ${id} in the log`;
  const { entries } = await call(`/v1/log/entries?kind=${kind}&subject=${encodeURIComponent(id)}&limit=1`);
  if (!entries.length || entries[0].index >= head.tree_size) return claim(name, null, "no entry yet", "the log");
  const bytes = from64(entries[0].entry);
  const proof = await call(`/v1/log/proof/inclusion?index=${entries[0].index}&size=${head.tree_size}`);
  const holds = (await included(await leafHash(bytes), entries[0].index, head.tree_size, proof.path.map(fromHex), fromHex(head.root_hash))) && same(from64(read(bytes).public_key), key);
  return claim(name, holds, `entry ${entries[0].index}`, "the log");
}
