"""Revocations that still matter, in memory, and everybody who waits for the next one."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, final

import structlog
from darkbloom_edge.verdict import MAX_SKEW
from darkbloom_mesh.backoff import Backoff
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import DrainingError, StoreUnavailableError

from darkbloom_attestation.issue import VERDICT_LIFETIME
from darkbloom_attestation.model import IssuedRevocation

HEARTBEAT_S = 10.0
"""Between two signs of life on a watch."""
KEPT = VERDICT_LIFETIME + MAX_SKEW
"""A revocation older than this is of a verdict that has expired on every clock."""

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Revoked:
    """A verdict no longer counts."""

    generation: int
    revocation: IssuedRevocation


@dataclass(frozen=True, slots=True)
class Synced:
    """Everything up to this generation was sent."""

    generation: int


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """This replica sees everything up to this generation, which is the newest."""

    generation: int


class Source(Protocol):
    """Where revocations come from."""

    async def revocations(
        self, after: int, since: datetime
    ) -> tuple[int, Sequence[tuple[int, IssuedRevocation]]]:
        """Return the newest generation, and revocations after one that still matter."""
        ...

    async def listen(self, notify: Callable[[], None]) -> None:
        """Call `notify` once listening and after every revocation, until the connection is lost."""
        ...


@final
class RevocationFeed:
    """Follows the store and hands each revocation to any number of watchers.

    All watchers read one list, so none has a queue that could overflow. A replica that cannot see
    the store sends no heartbeat: its watchers notice and go to one that can.
    """

    def __init__(self, source: Source, clock: Clock, backoff: Backoff) -> None:
        self._source = source
        self._clock = clock
        self._backoff = backoff
        self._stale = asyncio.Event()
        self._changed = asyncio.Event()
        self._recent: list[Revoked] = []
        self._newest = 0
        self._beats = 0
        self._due = False
        self._closed = False

    async def load(self) -> None:
        """Read what still matters; nothing is served before.

        Raises:
            StoreUnavailableError: the store cannot be reached.
        """
        since = self._clock.now() - KEPT
        newest, found = await self._source.revocations(self._newest, since)
        kept = (revoked for revoked in self._recent if revoked.revocation.issue_time >= since)
        self._recent = [*kept, *(Revoked(*entry) for entry in found)]
        self._newest = newest

    async def follow(self) -> None:
        """Keep the list new, for as long as the room lives."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._listen(), name="revocations-listen")
            tasks.create_task(self._beat(), name="revocations-beat")
            tasks.create_task(self._refresh(), name="revocations-refresh")

    async def close(self) -> None:
        """End every watch: its caller finds another replica."""
        self._closed = True
        self._wake()

    async def watch(self, after_generation: int) -> AsyncIterator[Revoked | Synced | Heartbeat]:
        """Yield what came after, `Synced`, then each new revocation, and heartbeats.

        Raises:
            DrainingError: this replica leaves.
        """
        # A generation from another life of the store is no place to go on from.
        sent = after_generation if after_generation <= self._newest else 0
        synced, beats = False, self._beats
        while not self._closed:
            changed, newest = self._changed, self._newest
            for revoked in self._recent:
                if sent < revoked.generation <= newest:
                    yield revoked
            sent = max(sent, newest)
            if not synced:
                synced = True
                yield Synced(newest)
            elif beats != self._beats:
                beats = self._beats
                yield Heartbeat(newest)
            elif changed is self._changed:
                await changed.wait()

        raise DrainingError("this replica is leaving")

    async def _listen(self) -> None:
        while True:
            try:
                await self._source.listen(self._stale.set)
                self._backoff.reset()
            except StoreUnavailableError:
                _log.warning("revocation_listen_failed")
            await self._clock.sleep(self._backoff.next_s())

    async def _beat(self) -> None:
        while True:
            await self._clock.sleep(HEARTBEAT_S)
            self._due = True
            self._stale.set()

    async def _refresh(self) -> None:
        while True:
            await self._stale.wait()
            self._stale.clear()
            try:
                await self.load()
            except StoreUnavailableError:
                _log.warning("revocation_reload_failed")
                continue
            if self._due:
                self._due = False
                self._beats += 1
            self._wake()

    def _wake(self) -> None:
        self._changed, past = asyncio.Event(), self._changed
        past.set()
