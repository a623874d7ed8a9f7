// The sealed envelope of end-to-end mode (docs/wire.md §3) and the records of its stream.

import "../vendor/nacl-fast.js";
import { fromHex, join, same } from "./bytes.js";

const nacl = self.nacl;
const BOX_HEADER_BYTES = 48;
const HEAD_BYTES = 9;
const MAX_RECORD = 1024 * 1024;
const [TO_PROVIDER, TO_EDGE] = [1, 2];
export const [KEEP_ALIVE, PREAMBLE, CONTENT, FINAL, END, BROKEN] = [0, 1, 2, 3, 4, 5];

const length4 = (size) => Uint8Array.of(size >>> 24, (size >>> 16) & 255, (size >>> 8) & 255, size & 255);
const counter = (sequence) => join(new Uint8Array(4), length4(sequence));
const lead = (direction, final) => Uint8Array.of(1, direction, final ? 1 : 0, 0, 0, 0, 0, 0);

/** This end of one attempt: seals one request, opens its chunks strictly in order. */
export class Session {
  #shared;
  #ids;
  #prefix = null;
  #sequence = 0;
  #over = false;

  constructor(providerKey, requestId, attemptId) {
    const ours = nacl.box.keyPair();
    this.senderKey = ours.publicKey;
    this.#shared = nacl.box.before(providerKey, ours.secretKey);
    this.#ids = join(fromHex(requestId.slice(4)), fromHex(attemptId.slice(4)));
  }

  /** Seals the one request; `header` and `request` are bytes. */
  seal(header, request) {
    const prefix = nacl.randomBytes(16);
    const content = join(lead(TO_PROVIDER, true), counter(0), this.#ids, length4(header.length), header, request);
    return join(prefix, nacl.box.after(content, join(prefix, counter(0)), this.#shared));
  }

  /** Opens the next chunk: its bytes, and whether it is the last. The first fault is the end. */
  open(payload) {
    if (this.#over) throw new Error("something follows the end of the answer");
    this.#over = true;
    let box = payload;
    if (this.#prefix === null) [this.#prefix, box] = [payload.slice(0, 16), payload.subarray(16)];
    const plain = box.length < 16 ? null : nacl.box.open.after(box, join(this.#prefix, counter(this.#sequence)), this.#shared);
    if (!plain) throw new Error("a box of the answer is not authentic");
    const head = plain.subarray(0, BOX_HEADER_BYTES);
    const rest = join(counter(this.#sequence), this.#ids);
    const final = same(head, join(lead(TO_EDGE, true), rest));
    if (!final && !same(head, join(lead(TO_EDGE, false), rest))) throw new Error("a box of the answer is not the next one");
    this.#over = final;
    this.#sequence += 1;
    return [plain.subarray(BOX_HEADER_BYTES), final];
  }
}

/** Cuts a stream into records, however it arrives. */
export async function* records(stream) {
  const reader = stream.getReader();
  let kept = new Uint8Array();
  let ended = false;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      kept = join(kept, value);
      while (kept.length >= HEAD_BYTES) {
        const view = new DataView(kept.buffer, kept.byteOffset, HEAD_BYTES);
        const [kind, tokens, length] = [view.getUint8(0), view.getUint32(1), view.getUint32(5)];
        if (ended || kind > BROKEN || length > MAX_RECORD) throw new Error("the gateway sent something that is no record");
        if (kept.length < HEAD_BYTES + length) break;
        ended = kind >= END;
        yield { kind, tokens, payload: kept.slice(HEAD_BYTES, HEAD_BYTES + length) };
        kept = kept.slice(HEAD_BYTES + length);
      }
    }
    if (kept.length) throw new Error("the answer was cut off");
  } finally {
    reader.cancel().catch(() => {});
  }
}
