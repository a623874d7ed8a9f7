"""The transparency log as strangers see it: a signed head, entries and proofs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from darkbloom_edge.documents import rfc3339
from darkbloom_edge.log import MAX_BATCH, EntryKind, LogHead, ReceiptsEntry, sign_head
from darkbloom_edge.merkle import (
    HASH_BYTES,
    Node,
    Span,
    consistency_spans,
    fold,
    inclusion_spans,
    nodes_of,
)
from darkbloom_edge.signatures import Ed25519Signer
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import InvalidArgumentError

from darkbloom_attestation.errors import LogTooShortError
from darkbloom_attestation.model import LoggedEntry, Signed
from darkbloom_attestation.ports import LogReader, Store

MAX_PAGE = 1000
"""Most entries of one answer."""
DEFAULT_PAGE = 100
"""Entries of an answer when nobody says how many."""
MAX_PAGE_BYTES = 2 << 20
"""Bytes of entries after which an answer ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inclusion:
    """That a leaf is in the tree of a size."""

    index: int
    size: int
    path: Sequence[bytes]
    root: bytes
    leaf: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """That one tree has grown out of another."""

    first: int
    second: int
    path: Sequence[bytes]
    first_root: bytes
    second_root: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPage:
    """Some entries."""

    entries: Sequence[LoggedEntry]
    next_index: int | None
    """Where to go on; None at the end."""
    size: int


@final
class TransparencyLog:
    """Answers for the log; every replica gives the same answers.

    Args:
        reader: what is in it.
        store: where a batch of receipts is appended.
        signer: signs heads.
        clock: time.
    """

    def __init__(
        self, reader: LogReader, store: Store, signer: Ed25519Signer, clock: Clock
    ) -> None:
        self._reader = reader
        self._store = store
        self._signer = signer
        self._clock = clock

    async def head(self) -> tuple[Signed, int]:
        """Sign the log as it is now; return it and its size."""
        size = await self._reader.size()
        (root,) = await self._hashes([(0, size)])
        head = LogHead(tree_size=size, root_hash=root.hex(), time=rfc3339(self._clock.now()))
        document, signature = sign_head(head, self._signer)

        return Signed(document=document, signature=signature, key_id=self._signer.key_id), size

    async def entries(
        self, start: int, limit: int, kind: EntryKind | None, subject: str
    ) -> LogPage:
        """Return entries from an index on.

        Raises:
            InvalidArgumentError: an impossible index or page, or a subject without a kind.
        """
        if start < 0:
            raise InvalidArgumentError("must not be negative", "start_index")
        if not 0 <= limit <= MAX_PAGE:
            raise InvalidArgumentError(f"must be from 0 to {MAX_PAGE}", "page_size")
        if subject and kind is None:
            raise InvalidArgumentError("needs a kind", "subject")

        size = await self._reader.size()
        limit = limit or DEFAULT_PAGE
        found = await self._reader.entries(start, limit, kind, subject, MAX_PAGE_BYTES)
        full = len(found) == limit or sum(len(entry.body) for entry in found) >= MAX_PAGE_BYTES
        following = found[-1].index + 1 if found else size

        return LogPage(
            entries=found, next_index=following if full and following < size else None, size=size
        )

    async def inclusion(self, index: int, size: int) -> Inclusion:
        """Prove that an entry is in the tree of a size; 0 means now.

        Raises:
            InvalidArgumentError: impossible numbers.
            LogTooShortError: the log has no such entry, or never had that size.
        """
        size = await self._size(size, "tree_size")
        if index < 0:
            raise InvalidArgumentError("must not be negative", "log_index")
        if index >= size:
            raise LogTooShortError("the tree has no such entry")

        root, leaf, *path = await self._hashes(
            [(0, size), (index, index + 1), *inclusion_spans(index, size)]
        )
        return Inclusion(index=index, size=size, path=path, root=root, leaf=leaf)

    async def consistency(self, first: int, second: int) -> Growth:
        """Prove that the tree of one size has grown out of that of another; 0 means now.

        Raises:
            InvalidArgumentError: impossible numbers.
            LogTooShortError: the log never had those sizes.
        """
        second = await self._size(second, "second_size")
        if first < 1:
            raise InvalidArgumentError("must be 1 or more", "first_size")
        if first > second:
            raise LogTooShortError("the first size is larger than the second")

        old, new, *path = await self._hashes(
            [(0, first), (0, second), *consistency_spans(first, second)]
        )
        return Growth(first=first, second=second, path=path, first_root=old, second_root=new)

    async def append_batch(self, batch_id: str, root: bytes, size: int) -> int:
        """Anchor a batch of receipts; return the index of its entry.

        Raises:
            InvalidArgumentError: not a batch.
            LogConflictError: this batch was anchored with another root.
        """
        if len(root) != HASH_BYTES:
            raise InvalidArgumentError(f"must be {HASH_BYTES} bytes", "root_hash")
        if not 1 <= size <= MAX_BATCH:
            raise InvalidArgumentError(f"must be from 1 to {MAX_BATCH}", "size")

        entry = ReceiptsEntry(
            batch=batch_id, root_hash=root.hex(), size=size, time=rfc3339(self._clock.now())
        )
        async with self._store.transaction() as change:
            return await change.log.append(entry, key=f"receipts:{batch_id}")

    async def _size(self, wanted: int, field: str) -> int:
        now = await self._reader.size()
        if wanted < 0:
            raise InvalidArgumentError("must not be negative", field)
        if wanted > now:
            raise LogTooShortError("the log never had that size")

        return wanted or now

    async def _hashes(self, spans: Sequence[Span]) -> list[bytes]:
        """Fold the hashes of spans out of one read."""
        nodes: dict[Node, None] = {node: None for span in spans for node in nodes_of(span)}
        known = await self._reader.nodes(list(nodes))

        return [fold([known[node] for node in nodes_of(span)]) for span in spans]
