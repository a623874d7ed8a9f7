// Proofs of the transparency log (RFC 9162 §2.1): that an entry is in it, and that it only grew.

import { join, same, sha256 } from "./bytes.js";

export const leafHash = (entry) => sha256(join(Uint8Array.of(0), entry));
const nodeHash = (left, right) => sha256(join(Uint8Array.of(1), left, right));
const half = (number) => Math.floor(number / 2);

/** Whether a path leads from a leaf to the root of a tree of this size. */
export async function included(leaf, index, size, path, root) {
  if (!(index >= 0 && index < size)) return false;
  let [place, last, joined] = [index, size - 1, leaf];
  for (const other of path) {
    if (last === 0) return false;
    if (place % 2 || place === last) {
      joined = await nodeHash(other, joined);
      while (place % 2 === 0 && place) [place, last] = [half(place), half(last)];
    } else {
      joined = await nodeHash(joined, other);
    }
    [place, last] = [half(place), half(last)];
  }
  return last === 0 && same(joined, root);
}

/** Whether a path proves that the newer tree has grown out of the older one. */
export async function grown(oldSize, newSize, oldRoot, newRoot, path) {
  if (!(oldSize > 0 && oldSize <= newSize)) return false;
  if (oldSize === newSize) return path.length === 0 && same(oldRoot, newRoot);
  const whole = 2 ** Math.round(Math.log2(oldSize)) === oldSize;
  const hashes = whole ? [oldRoot, ...path] : [...path];
  if (!hashes.length) return false;
  let [place, last] = [oldSize - 1, newSize - 1];
  while (place % 2) [place, last] = [half(place), half(last)];
  let former = hashes[0];
  let latter = hashes[0];
  for (const other of hashes.slice(1)) {
    if (last === 0) return false;
    if (place % 2 || place === last) {
      [former, latter] = [await nodeHash(other, former), await nodeHash(other, latter)];
      while (place % 2 === 0 && place) [place, last] = [half(place), half(last)];
    } else {
      latter = await nodeHash(latter, other);
    }
    [place, last] = [half(place), half(last)];
  }
  return last === 0 && same(former, oldRoot) && same(latter, newRoot);
}
