// Bytes, base64, hex, and the few hashes and signatures that checks need. All by WebCrypto.

const text = new TextEncoder();

export const utf8 = (value) => text.encode(value);
export const unutf8 = (bytes) => new TextDecoder("utf-8", { fatal: true }).decode(bytes);
export const from64 = (value) => Uint8Array.from(atob(value), (char) => char.charCodeAt(0));
export const toHex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
export const fromHex = (value) => Uint8Array.from(value.match(/../g) ?? [], (pair) => parseInt(pair, 16));

export function to64(bytes) {
  let made = "";
  for (let at = 0; at < bytes.length; at += 8192) made += String.fromCharCode(...bytes.subarray(at, at + 8192));
  return btoa(made);
}

export function join(...parts) {
  const made = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
  let at = 0;
  for (const part of parts) {
    made.set(part, at);
    at += part.length;
  }
  return made;
}

export const same = (left, right) => left.length === right.length && left.every((byte, at) => byte === right[at]);

export async function sha256(bytes) {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
}

export async function hmac(key, bytes) {
  const made = await crypto.subtle.importKey("raw", key, { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
  return new Uint8Array(await crypto.subtle.sign("HMAC", made, bytes));
}

/** What is signed for a document of a kind. */
export const domain = (kind, document) => join(utf8(`darkbloom:${kind}:v1\0`), document);

/** Whether this browser can check Ed25519. */
export async function knowsEd25519() {
  try {
    await crypto.subtle.importKey("raw", new Uint8Array(32), "Ed25519", false, ["verify"]);
    return true;
  } catch {
    return false;
  }
}

/** True where an Ed25519 signature over these bytes holds. */
export async function ed25519(publicKey, signature, bytes) {
  const key = await crypto.subtle.importKey("raw", publicKey, "Ed25519", false, ["verify"]);
  return crypto.subtle.verify("Ed25519", key, signature, bytes);
}

/** True where an ECDSA P-256 signature in DER over these bytes holds. */
export async function p256(publicKey, der, bytes) {
  const point = publicKey.length === 64 ? join(Uint8Array.of(4), publicKey) : publicKey;
  const key = await crypto.subtle.importKey("raw", point, { name: "ECDSA", namedCurve: "P-256" }, false, ["verify"]);
  return crypto.subtle.verify({ name: "ECDSA", hash: "SHA-256" }, key, rawSignature(der), bytes);
}

/** Two integers in DER become two times 32 bytes, as WebCrypto wants them. */
function rawSignature(der) {
  const integer = (at) => {
    if (der[at] !== 2) throw new Error("not a signature in DER");
    const body = der.subarray(at + 2, at + 2 + der[at + 1]);
    const plain = body[0] === 0 ? body.subarray(1) : body;
    if (plain.length > 32) throw new Error("not a signature of P-256");
    return [join(new Uint8Array(32 - plain.length), plain), at + 2 + der[at + 1]];
  };
  if (der[0] !== 0x30 || der[1] !== der.length - 2) throw new Error("not a signature in DER");
  const [r, next] = integer(2);
  const [s, end] = integer(next);
  if (end !== der.length) throw new Error("not a signature in DER");
  return join(r, s);
}
