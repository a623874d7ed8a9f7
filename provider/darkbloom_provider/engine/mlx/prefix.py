"""KV of a prompt's beginning, cut into blocks and put together again.

Only for models whose every layer keeps all keys and values of a row in order (full attention): a
window forgets and a recurrent state cannot be cut, so those are always read. A block holds copies,
not views: a view would keep the whole prompt's KV in memory.

Only KV of whole chunks is kept. What a cold prompt computes for a chunk depends on the chunk's
bounds, which count from the first token, so a restored beginning is bit for bit what reading it
would have given.
"""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Final

import mlx.core as mx
import numpy as np
from mlx_lm.models.cache import KVCache, make_prompt_cache

from darkbloom_provider.engine.mlx.row import Row
from darkbloom_provider.engine.prefix.cache import PrefixCache
from darkbloom_provider.engine.prefix.codec import Lowered
from darkbloom_provider.engine.prefix.memory import Block

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
        empty = make_prompt_cache(model)
        self._exact, self._layers = is_exact(empty), len(empty)

    @property
    def state(self) -> str:
        """Whether prompts of this model can be kept at all, in the word of the heartbeat."""
        return "ready" if self._exact else "unsupported"

    def begin(self, row: Row) -> bool:
        """Give a row the KV of its prompt's known beginning; False where there is none."""
        prefix = row.spec.prefix
        if prefix is None or not self._exact:
            return False
        found = self._cache.find(prefix, self._chunk_tokens)
        if not found.tokens:
            return False
        blocks = [block for block in map(typed, found.blocks) if len(block.layers) == self._layers]
        if len(blocks) != len(found.blocks):
            return False
        row.cache = joined(blocks)
        row.covered = row.cached = found.tokens
        return True

    def end(self, row: Row) -> None:
        """Keep what a row has read, once its prompt is read whole and `row.cache` is its alone."""
        prefix = row.spec.prefix
        if prefix is None or not self._exact or row.cache is None:
            return
        whole = (len(row.spec.tokens) - 1) // self._chunk_tokens * self._chunk_tokens
        for view in prefix.views:
            size = view.block_tokens
            first = self._cache.missing(view)
            # What no tier could hold is not worth a copy.
            fitting = self._cache.room(view) // (size * _bytes_per_token(row.cache))
            last = min(whole // size, len(view.chain), fitting)
            blocks = [cut(row.cache, at * size, (at + 1) * size) for at in range(first, last)]
            self._cache.keep(view, first, blocks)


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


def _bytes_per_token(cache: Sequence[Any]) -> int:
    arrays = [array for layer in cache for array in (layer.keys, layer.values)]
    total: int = sum(array.nbytes // array.shape[_TOKENS_AXIS] for array in arrays)
    return max(1, total)


def _copy(array: mx.array, begin: int, end: int) -> mx.array:
    middle = (begin + end) // 2
    # Joining two halves always makes a new buffer; a slice may be a view of the old one.
    halves = [array[..., begin:middle, :], array[..., middle:end, :]]
    return mx.concatenate(halves, axis=_TOKENS_AXIS)


# To the disk and back.


@dataclass(frozen=True, slots=True, weakref_slot=True)
class RawBlock:
    """A block as it came from the disk: words of the right size, not yet numbers.

    Another thread may make it, because no stream is needed; it becomes a `KvBlock` on the engine
    thread.
    """

    layers: tuple[tuple[mx.array, mx.array], ...]
    dtype: mx.Dtype
    nbytes: int


class KvCodec:
    """`disk.Codec` for blocks of mlx."""

    def lower(self, block: Block) -> Lowered | None:
        """Look at a block as bytes, without a copy."""
        kv = typed(block)
        if not kv.layers:
            return None
        dtype = kv.layers[0][0].dtype
        word = _WORDS.get(dtype.size)
        arrays = [array for pair in kv.layers for array in pair]
        if word is None or any(array.dtype != dtype for array in arrays):
            return None
        # Typed upstream without the buffer protocol, which an evaluated array has.
        words: list[Any] = [mx.view(array, word) for array in arrays]
        mx.eval(words)
        facts = {
            "dtype": _name(dtype),
            "shapes": [[list(keys.shape), list(values.shape)] for keys, values in kv.layers],
        }
        return Lowered(facts, [memoryview(array) for array in words])

    def lift(self, facts: Mapping[str, Any], content: bytes) -> RawBlock:
        """Make a block of bytes.

        Raises:
            ValueError: The bytes are not what the facts say.
        """
        dtype = _DTYPES.get(str(facts.get("dtype")))
        if dtype is None:
            raise ValueError("unknown numbers")
        words = np.frombuffer(content, dtype=f"<u{dtype.size}")
        layers, at = [], 0
        for shapes in facts["shapes"]:
            pair = []
            for shape in shapes:
                size = int(np.prod(shape))
                pair.append(mx.array(words[at : at + size].reshape(shape)))
                at += size
            layers.append((pair[0], pair[1]))
        if at != words.size:
            raise ValueError("bytes are left over")
        return RawBlock(tuple(layers), dtype, len(content))


def identity_here() -> dict[str, str]:
    """Return what KV depends on besides weights and tokens: libraries and device."""
    return {
        "layout": "kv-v1",
        "mlx": metadata.version("mlx"),
        "mlx_lm": metadata.version("mlx-lm"),
        "device": str(mx.default_device()),
        "os": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
    }


_WORDS: Final = {2: mx.uint16, 4: mx.uint32}
_DTYPES: Final = {"float32": mx.float32, "float16": mx.float16, "bfloat16": mx.bfloat16}


def _name(dtype: mx.Dtype) -> str:
    return next((name for name, one in _DTYPES.items() if one == dtype), "")


def typed(block: Block) -> KvBlock:
    """Return a block as numbers; on the engine thread."""
    if isinstance(block, KvBlock):
        return block
    if not isinstance(block, RawBlock):
        return KvBlock((), 0)
    layers = tuple(
        (mx.view(keys, block.dtype), mx.view(values, block.dtype)) for keys, values in block.layers
    )
    return KvBlock(layers, block.nbytes)
