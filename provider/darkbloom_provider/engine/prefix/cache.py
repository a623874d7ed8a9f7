"""What the engine asks of the prefix cache, and what is counted of it.

Plan and stage happen beside the engine thread, find and keep on it. Whatever goes wrong is a cold
miss: a prompt can always be read.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import structlog

from darkbloom_provider.engine.prefix.chain import BLOCK_TOKENS, VERSION, chain_of, root_of
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
    """Blocks from the first on that came from the disk for this prompt."""

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
        block_tokens: Tokens of a block.
        disk: The SSD tier; None for none.
        identity: What KV depends on besides weights and tokens: libraries, device, layout.
    """

    def __init__(
        self,
        max_bytes: int,
        *,
        block_tokens: int = BLOCK_TOKENS,
        disk: DiskTier | None = None,
        identity: Mapping[str, str] | None = None,
    ) -> None:
        self.memory = MemoryTier(max_bytes)
        self.disk = disk
        self.counts = Counts()
        self._block_tokens = block_tokens
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
        if not scope or not weight_hash or len(tokens) <= self._block_tokens:
            return None
        chain = chain_of(root_of(scope, weight_hash), tokens, self._block_tokens)
        return Prefix(
            scope=scope, weight_hash=weight_hash, chain=chain, block_tokens=self._block_tokens
        )

    async def stage(self, prefix: Prefix) -> Prefix:
        """Bring from the disk what the memory does not have."""
        if self.disk is None:
            return prefix
        here = self.memory.count(prefix.chain)
        if here == len(prefix.chain):
            return prefix
        blocks = await self.disk.stage(prefix, here)
        if not blocks:
            return prefix
        # What is in memory now may be evicted before the row begins: then this is of no use.
        known = self.memory.find(prefix.chain[:here])
        return replace(prefix, staged=(*known, *blocks)) if len(known) == here else prefix

    def find(self, prefix: Prefix, align_tokens: int) -> Found:
        """Return the longest known beginning of a prompt.

        Args:
            prefix: Of `plan` or `stage`.
            align_tokens: The beginning ends at a multiple of this: chunks of a cold prompt end
                there as well, so that the same numbers come out.
        """
        blocks: Sequence[Block] = self.memory.find(prefix.chain)
        in_memory = len(blocks)
        if len(prefix.staged) > in_memory:
            blocks = prefix.staged
        tokens = len(blocks) * prefix.block_tokens // align_tokens * align_tokens
        count = tokens // prefix.block_tokens
        usable = count * prefix.block_tokens == tokens
        found = Found(blocks[:count], tokens) if usable and tokens else Found()
        with self._lock:
            self.counts.lookups += 1
            self.counts.hits += found.tokens > 0
            self.counts.hit_tokens += found.tokens
            self.counts.disk_tokens += max(0, len(found.blocks) - in_memory) * prefix.block_tokens
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

    def missing(self, prefix: Prefix) -> int:
        """Return the first block of a prompt that some tier would take."""
        count = len(prefix.chain)
        in_memory = self.memory.count(prefix.chain) if self.memory.max_bytes else count
        return in_memory if self.disk is None else min(in_memory, self.disk.known(prefix))

    @property
    def room(self) -> int:
        """Most bytes of one prompt that any tier would take."""
        return max(self.memory.max_bytes, 0 if self.disk is None else self.disk.room)

    def keep(self, prefix: Prefix, start: int, blocks: Sequence[Block]) -> None:
        """Keep what was read: blocks of a prompt from `start` on."""
        if not blocks:
            return
        self.memory.put(prefix.chain[: start + len(blocks)], blocks)
        if self.disk is not None:
            self.disk.offer(prefix, start, blocks)
