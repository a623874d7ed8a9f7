// Sealed requests (docs/sealed.md): nobody between this page and the gateway reads them.

import "../vendor/nacl-fast.js";
import { call } from "./api.js";
import { from64, join, same, sha256, to64, unutf8, utf8 } from "./bytes.js";

const nacl = self.nacl;
export const MEDIA_TYPE = "application/darkbloom-sealed+json";
const HEADER_BYTES = 56;
const [REQUEST, ANSWER] = [1, 2];

function header({ direction, final, status, sequence, time, context }) {
  const bytes = new Uint8Array(HEADER_BYTES);
  const view = new DataView(bytes.buffer);
  bytes.set([1, direction, final ? 1 : 0]);
  view.setUint16(4, status);
  view.setBigUint64(8, BigInt(sequence));
  view.setBigUint64(16, BigInt(time));
  bytes.set(context, 24);
  return bytes;
}

/** Seals one request; the result has the body to post and opens the boxes of its answer in order. */
export async function seal(path, token, body) {
  const page = await call("/v1/encryption-key");
  const ours = nacl.box.keyPair();
  const shared = nacl.box.before(from64(page.public_key), ours.secretKey);
  const time = Date.now();
  const context = await sha256(utf8(`POST ${path}\n${token}`));
  const nonce = nacl.randomBytes(24);
  const plain = join(header({ direction: REQUEST, final: true, status: 0, sequence: 0, time, context }), utf8(body));
  const sealed = join(nonce, nacl.box.after(plain, nonce, shared));
  const answerContext = await sha256(sealed);
  let [sequence, ended] = [0, false];
  return {
    body: JSON.stringify({ kid: page.kid, ephemeral_public_key: to64(ours.publicKey), ciphertext: to64(sealed) }),
    /** Opens the next box of the answer; throws where it is not exactly that. */
    open(text, status) {
      const box = from64(text);
      const opened = nacl.box.open.after(box.subarray(24), box.subarray(0, 24), shared);
      if (!opened || ended) throw new Error("a box of the answer is not authentic");
      const head = opened.subarray(0, HEADER_BYTES);
      const expected = (final) => header({ direction: ANSWER, final, status, sequence, time, context: answerContext });
      ended = same(head, expected(true));
      if (!ended && !same(head, expected(false))) throw new Error("a box of the answer is not the next one");
      sequence += 1;
      return unutf8(opened.subarray(HEADER_BYTES));
    },
    /** Whether the last box was the final one. */
    get complete() {
      return ended;
    },
  };
}
