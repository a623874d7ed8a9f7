"""Tells the registry by which catalog this worker goes."""

import asyncio
import contextlib
from typing import Protocol

import structlog
from darkbloom_mesh import telemetry
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import MeshError
from darkbloom_mesh.telemetry import Metrics

from darkbloom_gateway.stage import CatalogShelf

LOOK_S = 1.0
"""Between two looks at whether there is a newer catalog."""
REPEAT_S = 10.0
"""Between two confirmations of one catalog."""
LEAVE_S = 2.0
"""Of the last word; a registry that is away keeps nobody from ending."""
_log = structlog.get_logger()


class Confirming(Protocol):
    """Whom it is told."""

    async def confirm_catalog(
        self, session: str, replica: str, generation: int, *, leaving: bool = False
    ) -> None:
        """Tell by which catalog a worker goes, or that it ends."""
        ...


class CatalogConfirmations:
    """Sends one confirmation at a time; one that fails is made up for by the next.

    Args:
        registry: The room.
        shelf: Where the catalog in force is.
        clock: Between looks.
        metrics: Where the generation is shown.
        session: Names this life of this worker.
        replica: As operators know it.
    """

    def __init__(
        self,
        registry: Confirming,
        shelf: CatalogShelf,
        clock: Clock,
        metrics: Metrics,
        *,
        session: str,
        replica: str,
    ) -> None:
        self._registry = registry
        self._shelf = shelf
        self._clock = clock
        self._gauge = metrics.gauge(telemetry.CATALOG_GENERATION)
        self._session = session
        self._replica = replica
        self._told = 0
        self._left = False
        self._speaking = asyncio.Lock()

    async def run(self) -> None:
        """Confirm until it ends."""
        told_at = self._clock.monotonic()
        while not self._left:
            await self._clock.sleep(LOOK_S)
            now = self._clock.monotonic()
            if self.generation != self._told or now - told_at >= REPEAT_S:
                told_at = now
                await self.confirm()

    @property
    def generation(self) -> int:
        """The catalog in force; 0 before the first."""
        catalog = self._shelf.catalog
        return catalog.generation if catalog is not None else 0

    async def confirm(self) -> None:
        """Say it now."""
        generation = self.generation
        self._gauge.set(generation)
        async with self._speaking:
            if not self._left:
                await self._say(generation)
        # Also after a failure: a registry that is away is asked again in ten seconds, not in one.
        self._told = generation

    async def leave(self) -> None:
        """Say that this worker ends; without it the registry would think that it may be at work."""
        async with self._speaking:
            self._left = True
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LEAVE_S):
                    await self._say(self.generation, leaving=True)

    async def _say(self, generation: int, *, leaving: bool = False) -> None:
        try:
            await self._registry.confirm_catalog(
                self._session, self._replica, generation, leaving=leaving
            )
        except MeshError as error:
            _log.info("catalog_not_confirmed", reason=error.reason_name)
