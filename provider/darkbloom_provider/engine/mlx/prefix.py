"""KV of a prompt's beginning, cut into blocks and put together again.

Only for models whose every layer keeps all keys and values of a row in order (full attention): a
window forgets and a recurrent state cannot be cut, so those are always read. A block holds copies,
not views: a view would keep the whole prompt's KV in memory.

Only KV of whole chunks is kept. What a cold prompt computes for a chunk depends on the chunk's
bounds, which count from the first token, so a restored beginning is bit for bit what reading it
would have given.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import mlx.core as mx
from mlx_lm.models.cache import KVCache, make_prompt_cache

from darkbloom_provider.engine.mlx.row import Row
from darkbloom_provider.engine.prefix.cache import PrefixCache

# Untyped upstream.
_KvCache: Final[Any] = KVCache
_TOKENS_AXIS: Final = 2
"""Keys and values have the shape (1, heads, tokens, width)."""


@dataclass(frozen=True, slots=True)
class KvBlock:
    """Keys and values by layer."""

    layers: tuple[tuple[mx.array, mx.array], ...]
    nbytes: int

    @classmethod
    def of(cls, layers: Sequence[tuple[mx.array, mx.array]]) -> "KvBlock":
        """Take arrays that nobody else holds."""
        return cls(tuple(layers), sum(k.nbytes + v.nbytes for k, v in layers))


class Prefixes:
    """The prefix cache as the rows of one model see it.

    Args:
        cache: Of the agent.
        model: Of mlx-lm.
        chunk_tokens: How prompts are read.
    """

    def __init__(self, cache: PrefixCache, model: Any, chunk_tokens: int) -> None:
        self._cache = cache
        self._chunk_tokens = chunk_tokens
        self._exact = is_exact(make_prompt_cache(model))

    def begin(self, row: Row) -> bool:
        """Give a row the KV of its prompt's known beginning; False where there is none."""
        prefix = row.spec.prefix
        if prefix is None or not self._exact:
            return False
        found = self._cache.find(prefix, self._chunk_tokens)
        if not found.tokens:
            return False
        row.cache = joined([block for block in found.blocks if isinstance(block, KvBlock)])
        row.covered = row.cached = found.tokens
        return True

    def end(self, row: Row) -> None:
        """Keep what a row has read, once its prompt is read whole and `row.cache` is its alone."""
        prefix = row.spec.prefix
        if prefix is None or not self._exact or row.cache is None:
            return
        whole = (len(row.spec.tokens) - 1) // self._chunk_tokens * self._chunk_tokens
        last = min(whole // prefix.block_tokens, len(prefix.chain))
        first = self._cache.missing(prefix)
        size = prefix.block_tokens
        blocks = [cut(row.cache, at * size, (at + 1) * size) for at in range(first, last)]
        self._cache.keep(prefix, first, blocks)


def is_exact(cache: Sequence[Any]) -> bool:
    """Tell whether every layer keeps all keys and values in order."""
    return all(type(layer) is KVCache for layer in cache)


def cut(cache: Sequence[Any], begin: int, end: int) -> KvBlock:
    """Copy the KV of some tokens out of a row's cache."""
    layers = [(_copy(layer.keys, begin, end), _copy(layer.values, begin, end)) for layer in cache]
    mx.eval(layers)
    return KvBlock.of(layers)


def joined(blocks: Sequence[KvBlock]) -> list[KVCache]:
    """Make the cache of a row that has read these blocks; the blocks stay as they are."""
    cache = []
    for parts in zip(*(block.layers for block in blocks), strict=True):
        keys = mx.concatenate([keys for keys, _ in parts], axis=_TOKENS_AXIS)
        values = mx.concatenate([values for _, values in parts], axis=_TOKENS_AXIS)
        layer = _KvCache()
        layer.state = (keys, values, keys.shape[_TOKENS_AXIS])
        cache.append(layer)
    mx.eval([layer.state for layer in cache])
    return cache


def _copy(array: mx.array, begin: int, end: int) -> mx.array:
    middle = (begin + end) // 2
    # Joining two halves always makes a new buffer; a slice may be a view of the old one.
    halves = [array[..., begin:middle, :], array[..., middle:end, :]]
    return mx.concatenate(halves, axis=_TOKENS_AXIS)
