"""The memory tier: blocks of KV under a byte cap, the least recently used go first."""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Protocol


class Block(Protocol):
    """KV of the tokens of one block."""

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
        ...


class MemoryTier:
    """Blocks by name; safe to share between threads.

    A chain is always touched from its end to its beginning, so a block is never older than what
    builds on it: eviction takes the ends of chains first, and no block is left without its way.
    A block that a row is being made of stays alive in that row's hands, whatever is evicted.

    Args:
        max_bytes: Of all blocks together; 0 keeps nothing.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self.evicted = 0
        self._blocks: OrderedDict[bytes, Block] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._blocks)

    def count(self, chain: Sequence[bytes]) -> int:
        """Return how many blocks from the first on are here; touches nothing."""
        with self._lock:
            return self._count(chain)

    def find(self, chain: Sequence[bytes]) -> list[Block]:
        """Return the blocks that are here from the first on, without a gap."""
        with self._lock:
            found = [self._blocks[name] for name in chain[: self._count(chain)]]
            self._touch(chain[: len(found)])
            return found

    def put(self, chain: Sequence[bytes], blocks: Sequence[Block]) -> None:
        """Keep the last `len(blocks)` blocks of a chain, and make room for them.

        What does not fit the cap, from the beginning of the chain on, is not kept.
        """
        with self._lock:
            start = len(chain) - len(blocks)
            if self._count(chain[:start]) < start:
                # Its beginning has been evicted meanwhile: nobody would find the rest.
                return
            for name, block in zip(chain[start:], blocks, strict=True):
                if name not in self._blocks:
                    self._blocks[name] = block
                    self.bytes += block.nbytes
            self._touch(chain)
            while self.bytes > self.max_bytes:
                _, gone = self._blocks.popitem(last=False)
                self.bytes -= gone.nbytes
                self.evicted += 1

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._blocks.clear()
            self.bytes = 0

    def _count(self, chain: Sequence[bytes]) -> int:
        for index, name in enumerate(chain):
            if name not in self._blocks:
                return index
        return len(chain)

    def _touch(self, chain: Sequence[bytes]) -> None:
        for name in reversed(chain):
            if name in self._blocks:
                self._blocks.move_to_end(name)
