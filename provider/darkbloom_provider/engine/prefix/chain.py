"""Which prefix a block of KV belongs to.

A prompt is cut into blocks of so many tokens. The name of a block is a hash over everything that
its KV depends on: the scope (who may share it), the weights and every token from the first to its
last. Equal names mean equal KV; another scope, build or token gives names that nothing is kept
under. The hashes are keyed by a scope that changes with the day and live in memory alone.
"""

import hashlib
from array import array
from collections.abc import Sequence
from typing import Final

VERSION: Final = b"darkbloom-block-chain-v1"
BLOCK_TOKENS: Final = 256
"""Of a block on the disk, and the size that is announced."""
FINE_TOKENS: Final = 64
"""Of a block in memory, where one costs no file: less of a shared beginning is read again."""


def root_of(scope: bytes, weight_hash: str) -> bytes:
    """Return the name of the empty prefix of one scope and build; 32 bytes."""
    parts = (VERSION, scope, weight_hash.encode())
    return hashlib.sha256(b"".join(len(p).to_bytes(4, "little") + p for p in parts)).digest()


def chain_of(root: bytes, tokens: Sequence[int], block_tokens: int) -> tuple[bytes, ...]:
    """Return the name of each whole block, 32 bytes each.

    Args:
        root: of `root_of`.
        tokens: the prompt. Its last token is never covered: the first answer is drawn from it.
        block_tokens: tokens of a block.
    """
    names = []
    name = root
    for end in range(block_tokens, len(tokens), block_tokens):
        block = array("I", tokens[end - block_tokens : end])
        name = hashlib.sha256(name + block.tobytes()).digest()
        names.append(name)
    return tuple(names)
