// As much of MessagePack as the sealed envelope needs: write one flat map, read one array.

import { join, utf8 } from "./bytes.js";

const u32 = (value) => Uint8Array.of(value >>> 24, (value >>> 16) & 255, (value >>> 8) & 255, value & 255);

/** Writes a map of texts to whole numbers, booleans, texts and bytes. */
export function packMap(fields) {
  const entries = Object.entries(fields);
  if (entries.length > 15) throw new Error("too many fields");
  return join(Uint8Array.of(0x80 | entries.length), ...entries.flatMap(([name, value]) => [packText(name), packValue(value)]));
}

function packValue(value) {
  if (typeof value === "boolean") return Uint8Array.of(value ? 0xc3 : 0xc2);
  if (typeof value === "string") return packText(value);
  if (value instanceof Uint8Array) return join(Uint8Array.of(0xc4, value.length), value);
  if (!Number.isSafeInteger(value) || value < 0) throw new Error("not a whole number");
  return value < 128 ? Uint8Array.of(value) : join(Uint8Array.of(0xcf), u32(Math.floor(value / 2 ** 32)), u32(value % 2 ** 32));
}

function packText(text) {
  const bytes = utf8(text);
  if (bytes.length > 255) throw new Error("text too long");
  return join(bytes.length < 32 ? Uint8Array.of(0xa0 | bytes.length) : Uint8Array.of(0xd9, bytes.length), bytes);
}

const LENGTHS = { 0xc4: 1, 0xc5: 2, 0xc6: 4, 0xd9: 1, 0xda: 2, 0xdb: 4, 0xdc: 2, 0xdd: 4 };

/** Reads one value that fills the bytes: arrays, texts, bytes, numbers, booleans, null. */
export function unpack(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  let at = 0;
  const take = (size) => {
    if (at + size > bytes.length) throw new Error("the piece of the answer is cut off");
    at += size;
    return at - size;
  };
  const size = (width) => (width === 1 ? view.getUint8(take(1)) : width === 2 ? view.getUint16(take(2)) : view.getUint32(take(4)));
  const raw = (length) => bytes.subarray(take(length), at);
  const list = (length) => {
    if (length > bytes.length) throw new Error("the piece of the answer is not one");
    return Array.from({ length }, value);
  };
  function value() {
    const kind = view.getUint8(take(1));
    if (kind < 0x80) return kind;
    if (kind >= 0xe0) return kind - 256;
    if ((kind & 0xf0) === 0x90) return list(kind & 15);
    if ((kind & 0xe0) === 0xa0) return strict.decode(raw(kind & 31));
    if (kind in LENGTHS) {
      const length = size(LENGTHS[kind]);
      return kind <= 0xc6 ? raw(length) : kind <= 0xdb ? strict.decode(raw(length)) : list(length);
    }
    if (kind === 0xc0) return null;
    if (kind === 0xc2 || kind === 0xc3) return kind === 0xc3;
    if (kind === 0xcc || kind === 0xcd || kind === 0xce) return size(2 ** (kind - 0xcc));
    if (kind === 0xcf) return Number(view.getBigUint64(take(8)));
    if (kind === 0xcb) return view.getFloat64(take(8));
    throw new Error("the piece of the answer is not one");
  }
  const found = value();
  if (at !== bytes.length) throw new Error("something follows the piece of the answer");
  return found;
}
