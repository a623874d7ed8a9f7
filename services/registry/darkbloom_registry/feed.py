"""The newest catalog in memory, and everybody who waits for the next one."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Protocol, final

import structlog
from darkbloom_mesh.backoff import Backoff
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import DrainingError, StoreUnavailableError

from darkbloom_registry.model import Catalog

HEARTBEAT_S = 10.0
"""Between two signs of life on a watch."""

_NEVER_WRITTEN = 0
"""Generation of a blank store: whoever has a catalog keeps it."""

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The stream is alive, and this generation is the newest."""

    generation: int


class Source(Protocol):
    """Where catalogs come from."""

    async def generation(self) -> int:
        """Return the newest generation."""
        ...

    async def catalog(self) -> Catalog:
        """Return the catalog and its generation, from one moment."""
        ...

    async def listen(self, notify: Callable[[], None]) -> None:
        """Call `notify` once listening and after every write, until the connection is lost."""
        ...


@final
class CatalogFeed:
    """Follows the store and hands the newest catalog to any number of watchers.

    A watcher has no queue: a slow one skips to the newest catalog, so nothing can pile up. While
    the store is away nobody can write, so the last catalog stays the newest and heartbeats go on.
    """

    def __init__(self, source: Source, clock: Clock, backoff: Backoff) -> None:
        self._source = source
        self._clock = clock
        self._backoff = backoff
        self._stale = asyncio.Event()
        self._changed = asyncio.Event()
        self._catalog: Catalog | None = None
        self._beats = 0
        self._closed = False

    async def load(self) -> None:
        """Read the first catalog; nothing is served before.

        Raises:
            StoreUnavailableError: the store cannot be reached.
        """
        self._catalog = await self._source.catalog()

    async def follow(self) -> None:
        """Keep the catalog new, for as long as the room lives."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._listen(), name="catalog-listen")
            tasks.create_task(self._beat(), name="catalog-beat")
            tasks.create_task(self._refresh(), name="catalog-refresh")

    async def close(self) -> None:
        """End every watch: its caller finds another replica."""
        self._closed = True
        self._wake()

    async def watch(self, after_generation: int) -> AsyncIterator[Catalog | Heartbeat]:
        """Yield the catalog unless the caller has it, then each newer one, and heartbeats.

        Raises:
            DrainingError: this replica leaves.
        """
        sent, beats = after_generation, -1
        while not self._closed:
            changed, catalog = self._changed, self._catalog
            if catalog is not None and catalog.generation not in {sent, _NEVER_WRITTEN}:
                sent, beats = catalog.generation, self._beats
                yield catalog
            elif beats != self._beats:
                beats = self._beats
                yield Heartbeat(sent)
            else:
                await changed.wait()

        raise DrainingError("this replica is leaving")

    async def _listen(self) -> None:
        while True:
            try:
                await self._source.listen(self._stale.set)
                self._backoff.reset()
            except StoreUnavailableError:
                _log.warning("catalog_listen_failed")
            await self._clock.sleep(self._backoff.next_s())

    async def _beat(self) -> None:
        while True:
            await self._clock.sleep(HEARTBEAT_S)
            self._beats += 1
            # A notification can be lost with its connection; the generation cannot.
            self._stale.set()
            self._wake()

    async def _refresh(self) -> None:
        while True:
            await self._stale.wait()
            self._stale.clear()
            try:
                await self._reload()
            except StoreUnavailableError:
                _log.warning("catalog_reload_failed")

    async def _reload(self) -> None:
        if self._catalog is None or await self._source.generation() != self._catalog.generation:
            self._catalog = await self._source.catalog()
            self._wake()

    def _wake(self) -> None:
        self._changed, past = asyncio.Event(), self._changed
        past.set()
