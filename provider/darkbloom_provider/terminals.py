"""Terminals that nobody has acknowledged yet: what this machine is still to be paid for.

Bounded, and on disk before they are sent, so that they outlive a stream and the process. The token
path never waits for a disk: a terminal waits once, at its end, together with all others that ended
meanwhile.
"""

import asyncio
import hashlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import structlog
from darkbloom.common.v1.price_pb2 import SignedDocument
from darkbloom.router.v1.provider_link_pb2 import Terminal
from darkbloom_mesh.clock import Clock

from darkbloom_provider.journal import Journal, Record

MAX_TERMINALS = 2048
"""Beyond this the oldest is given up and counted. All of them are sent at once after a reconnect,
so they must fit a lane's control queue with room to spare.
"""
MAX_AGE_S = 24 * 3600.0
"""No hold lives so long: an older terminal can settle nothing any more."""
FLUSH_S = 2.0
"""Longest wait for the disk at the end of the process."""

_log = structlog.get_logger()


class UnacknowledgedTerminals:
    """Keeps each terminal until its acknowledgement, oldest first.

    Args:
        journal: Where they survive the process; None keeps them in memory alone.
        clock: Dates them, for their age.
        max_entries: How many wait at most.
    """

    def __init__(
        self,
        journal: Journal | None = None,
        clock: Clock | None = None,
        *,
        max_entries: int = MAX_TERMINALS,
    ) -> None:
        self.dropped = 0
        """How many were given up because too many waited or they were too old."""
        self.not_durable = 0
        """How many were sent although the disk did not take them."""
        self._journal = journal
        self._clock = clock
        self._max_entries = max_entries
        self._waiting: dict[str, Terminal] = {}
        self._new: list[Record] = []
        self._gone: list[str] = []
        self._then: list[Callable[[], None]] = []
        self._wake = asyncio.Event()
        self._writing = asyncio.Lock()

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[tuple[str, Terminal]]:
        return iter(tuple(self._waiting.items()))

    async def restore(self) -> int:
        """Take back what an earlier process left behind; returns how many there are.

        Raises:
            OSError: the journal cannot be opened or is not ours alone.
        """
        if self._journal is None or self._clock is None:
            return 0
        oldest_ms = _ms(self._clock) - int(MAX_AGE_S * 1000)
        found = await asyncio.to_thread(self._journal.open, oldest_ms)
        for record in found[-self._max_entries :]:
            document = SignedDocument(document=record.document, signature=record.signature)
            self._waiting[record.attempt_id] = Terminal(terminal=document)
        self.dropped += len(found) - len(self._waiting)
        return len(self._waiting)

    def add(
        self, attempt_id: str, terminal: Terminal, then: Callable[[], None] | None = None
    ) -> None:
        """Keep a terminal; `then` is called once it is on disk, or at once without a journal."""
        if len(self._waiting) >= self._max_entries:
            self._forget(next(iter(self._waiting)))
            self.dropped += 1
        self._waiting[attempt_id] = terminal
        if self._journal is None or self._clock is None:
            if then is not None:
                then()
            return
        document = terminal.terminal
        self._new.append(
            Record(
                attempt_id=attempt_id,
                at_ms=_ms(self._clock),
                document=document.document,
                signature=document.signature,
            )
        )
        if then is not None:
            self._then.append(then)
        self._wake.set()

    def acknowledge(self, attempt_id: str) -> bool:
        """Forget a terminal; False when it was not waiting."""
        if attempt_id not in self._waiting:
            return False
        self._forget(attempt_id)
        if not self._waiting:
            # What is still noted is sent again after a crash, and acknowledged again: harmless. So
            # the disk hears of it with the next terminal, or when there is nothing else to keep.
            self._wake.set()
        return True

    async def run(self) -> None:
        """Write for ever; a terminal that ends while the disk is busy travels with the next."""
        while True:
            await self._wake.wait()
            await self._write()

    async def close(self) -> None:
        """Write what is left, for a bounded time; then free the file."""
        if self._journal is None:
            return
        try:
            async with asyncio.timeout(FLUSH_S):
                await self._write()
        except TimeoutError:
            _log.warning("terminals_not_flushed", waiting=len(self._waiting))
        self._journal.close()

    def _forget(self, attempt_id: str) -> None:
        del self._waiting[attempt_id]
        if self._journal is not None:
            self._gone.append(attempt_id)

    async def _write(self) -> None:
        async with self._writing:
            self._wake.clear()
            new, gone, then = self._new, self._gone, self._then
            self._new, self._gone, self._then = [], [], []
            if self._journal is None or not (new or gone):
                return
            try:
                await asyncio.to_thread(partial(self._journal.commit, new, gone))
            except OSError as error:
                # A full disk is no reason to keep an answer from its consumer, or to lose its pay:
                # it stays in memory as it would have without a disk.
                self.not_durable += len(new)
                _log.warning("terminals_not_durable", error_type=type(error).__name__)
            for call in then:
                call()


async def take_up(path: Path, public_key: bytes, clock: Clock) -> UnacknowledgedTerminals:
    """Open the journal and take up what an earlier process of this identity has left.

    Args:
        path: The journal.
        public_key: Of the identity that signs terminals.
        clock: Dates them.
    """
    journal = Journal(path, hashlib.sha256(public_key).digest())
    terminals = UnacknowledgedTerminals(journal, clock)
    try:
        left = await terminals.restore()
    except OSError as error:
        # It serves all the same, and tries the disk again with each answer.
        _log.warning("terminals_not_durable", error_type=type(error).__name__)
        left = 0
    if left:
        _log.info("terminals_restored", count=left)
    return terminals


def _ms(clock: Clock) -> int:
    return int(clock.now().timestamp() * 1000)
