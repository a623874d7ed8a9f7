"""What the engine asks of the prefix cache, and what is counted of it.

Plan and stage happen beside the engine thread, find and keep on it. Whatever goes wrong is a cold
miss: a prompt can always be read.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Protocol

import structlog

from darkbloom_provider.engine.prefix.chain import (
    BLOCK_TOKENS,
    FINE_TOKENS,
    VERSION,
    chain_of,
    root_of,
)
from darkbloom_provider.engine.prefix.facts import CacheFacts
from darkbloom_provider.engine.prefix.memory import Block, MemoryTier

_CHAIN = VERSION.decode()

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefix:
    """The cacheable part of one prompt; repr is redacted.

    The names in it are derived from content: they stay in memory.
    """

    scope: bytes
    weight_hash: str
    chain: tuple[bytes, ...]
    block_tokens: int
    staged: tuple[Block, ...] = ()
    """Blocks from the first on that came from the disk for this prompt, and before them those of
    the memory."""
    staged_sizes: tuple[int, ...] = ()
    """Tokens of each of them."""
    far: "Prefix | None" = None
    """The same prompt in the larger blocks of the disk, where those are larger."""

    @property
    def views(self) -> tuple["Prefix", ...]:
        """The prompt in each size of block that something is kept in."""
        return (self,) if self.far is None else (self, self.far)

    def __repr__(self) -> str:
        return f"Prefix(blocks={len(self.chain)}, <redacted>)"


class DiskTier(Protocol):
    """The slower tier; see `prefix.disk`."""

    def open(self) -> None:
        """Find what is there; blocks.

        Raises:
            OSError: it cannot be used.
        """
        ...

    def enter(self, build_id: str, weight_hash: str, identity: Mapping[str, str]) -> None:
        """Get ready for one build; blocks.

        Raises:
            OSError: it cannot be used for it.
        """
        ...

    def close(self) -> None:
        """Stop writing, within a bounded time."""
        ...

    @property
    def room(self) -> int:
        """Most bytes of one offer."""
        ...

    def add_to(self, facts: CacheFacts) -> CacheFacts:
        """Report the tier as well."""
        ...

    async def stage(self, prefix: Prefix, start: int) -> Sequence[Block]:
        """Read blocks from `start` on, as many as there are without a gap; never raises."""
        ...

    def known(self, prefix: Prefix) -> int:
        """Return how many blocks from the first on need not be offered."""
        ...

    def offer(self, prefix: Prefix, start: int, blocks: Sequence[Block]) -> None:
        """Take blocks to be written when there is time, or drop them; never waits."""
        ...


@dataclass(slots=True)
class Counts:
    """What the cache did; no identifiers."""

    lookups: int = 0
    """Prompts that could have begun with something known."""
    hits: int = 0
    """Prompts that did."""
    hit_tokens: int = 0
    """Tokens that were not read again."""
    disk_tokens: int = 0
    """Those of them that came from the disk."""


@dataclass(frozen=True, slots=True)
class Found:
    """Where a prompt may begin."""

    blocks: Sequence[Block] = field(default_factory=tuple)
    tokens: int = 0


class PrefixCache:
    """All tiers of one agent.

    Args:
        max_bytes: Of the memory tier; 0 switches it off.
        block_tokens: Tokens of a block on the disk.
        fine_tokens: Tokens of a block in memory, at most those on the disk, which are a multiple.
        disk: The SSD tier; None for none.
        identity: What KV depends on besides weights and tokens: libraries, device, layout.
    """

    def __init__(
        self,
        max_bytes: int,
        *,
        block_tokens: int = BLOCK_TOKENS,
        fine_tokens: int = FINE_TOKENS,
        disk: DiskTier | None = None,
        identity: Mapping[str, str] | None = None,
    ) -> None:
        self.memory = MemoryTier(max_bytes)
        self.disk = disk
        self.counts = Counts()
        self._block_tokens = block_tokens
        self._fine_tokens = min(fine_tokens, block_tokens) if max_bytes else block_tokens
        if block_tokens % self._fine_tokens:
            raise ValueError("blocks on the disk are not whole blocks of the memory")
        self._lock = threading.Lock()
        self._identity = dict(identity or {})
        self._opened = False

    def enter(self, build_id: str, weight_hash: str) -> None:
        """Get ready for a build, before its first prompt; blocks, beside the loop.

        Args:
            build_id: Names its folder.
            weight_hash: Of its bytes.
        """
        if self.disk is None or not weight_hash:
            return
        try:
            if not self._opened:
                self.disk.open()
                self._opened = True
            facts = {**self._identity, "block_tokens": str(self._block_tokens), "chain": _CHAIN}
            self.disk.enter(build_id, weight_hash, facts)
        except OSError as error:
            # Without a folder there is nothing to find and nothing is kept.
            _log.warning("prefix_folder_unusable", error_type=type(error).__name__)

    def close(self) -> None:
        """Forget the memory and stop writing; blocks for a bounded time."""
        self.memory.clear()
        if self.disk is not None:
            self.disk.close()

    def plan(self, scope: bytes, weight_hash: str, tokens: Sequence[int]) -> Prefix | None:
        """Name the blocks of a prompt; None where it may not be kept or is too short.

        Args:
            scope: Who may share it; empty for nobody.
            weight_hash: Of the build.
            tokens: The whole prompt.
        """
        if not scope or not weight_hash or len(tokens) <= self._fine_tokens:
            return None
        root = root_of(scope, weight_hash)

        def cut(size: int) -> Prefix:
            chain = chain_of(root, tokens, size)
            return Prefix(scope=scope, weight_hash=weight_hash, chain=chain, block_tokens=size)

        fine = cut(self._fine_tokens)
        if self.disk is None or self._fine_tokens == self._block_tokens:
            return fine
        far = cut(self._block_tokens)
        return replace(fine, far=far) if far.chain else fine

    async def stage(self, prefix: Prefix) -> Prefix:
        """Bring from the disk what the memory does not have."""
        far = prefix.views[-1]
        if self.disk is None or far.block_tokens != self._block_tokens:
            return prefix
        ratio = far.block_tokens // prefix.block_tokens
        here = self.memory.count(prefix.chain) // ratio
        if here == len(far.chain):
            return prefix
        blocks = await self.disk.stage(far, here)
        if not blocks:
            return prefix
        # What is in memory now may be evicted before the row begins: then this is of no use.
        known = self.memory.find(prefix.chain[: here * ratio])
        if len(known) < here * ratio:
            return prefix
        sizes = (prefix.block_tokens,) * len(known) + (far.block_tokens,) * len(blocks)
        return replace(prefix, staged=(*known, *blocks), staged_sizes=sizes)

    def find(self, prefix: Prefix, align_tokens: int) -> Found:
        """Return the longest known beginning of a prompt.

        Args:
            prefix: Of `plan` or `stage`.
            align_tokens: The beginning ends at a multiple of this: chunks of a cold prompt end
                there as well, so that the same numbers come out.
        """
        blocks: Sequence[Block] = self.memory.find(prefix.chain)
        in_memory = len(blocks) * prefix.block_tokens
        sizes = (prefix.block_tokens,) * len(blocks)
        if sum(prefix.staged_sizes) > in_memory:
            blocks, sizes = prefix.staged, prefix.staged_sizes
        found = Found()
        for count, tokens in enumerate(accumulate(sizes), start=1):
            if tokens % align_tokens == 0:
                found = Found(blocks[:count], tokens)
        with self._lock:
            self.counts.lookups += 1
            self.counts.hits += found.tokens > 0
            self.counts.hit_tokens += found.tokens
            self.counts.disk_tokens += max(0, found.tokens - in_memory)
        return found

    def facts(self) -> CacheFacts:
        """Report sizes and sums."""
        counts, memory, disk = self.counts, self.memory, self.disk
        facts = CacheFacts(
            memory_bytes=memory.bytes,
            memory_max_bytes=memory.max_bytes,
            lookups=counts.lookups,
            hits=counts.hits,
            hit_tokens=counts.hit_tokens,
            disk_tokens=counts.disk_tokens,
            evicted=memory.evicted,
        )
        return facts if disk is None else disk.add_to(facts)

    def missing(self, view: Prefix) -> int:
        """Return the first block of a prompt that some tier of this size of block would take."""
        known = len(view.chain)
        if self._in_memory(view):
            known = self.memory.count(view.chain)
        disk = self._disk_of(view)
        return known if disk is None else min(known, disk.known(view))

    def room(self, view: Prefix) -> int:
        """Return the most bytes of one prompt that any tier of this size of block would take."""
        disk = self._disk_of(view)
        return max(
            self.memory.max_bytes if self._in_memory(view) else 0, 0 if disk is None else disk.room
        )

    def keep(self, view: Prefix, start: int, blocks: Sequence[Block]) -> None:
        """Keep what was read: blocks of one of the views of a prompt, from `start` on."""
        if not blocks:
            return
        if self._in_memory(view):
            self.memory.put(view.chain[: start + len(blocks)], blocks)
        disk = self._disk_of(view)
        if disk is not None:
            disk.offer(view, start, blocks)

    def _in_memory(self, view: Prefix) -> bool:
        return self.memory.max_bytes > 0 and view.block_tokens == self._fine_tokens

    def _disk_of(self, view: Prefix) -> DiskTier | None:
        return self.disk if view.block_tokens == self._block_tokens else None
