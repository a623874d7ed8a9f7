"""Tells the registry by which catalog this worker goes."""

from typing import Protocol, final

import structlog
from darkbloom_mesh import telemetry
from darkbloom_mesh.errors import MeshError
from darkbloom_mesh.telemetry import Metrics

from darkbloom_gateway.stage import CatalogShelf

_log = structlog.get_logger()


class Registry(Protocol):
    """Whom it is told."""

    async def confirm_catalog(
        self, session: str, replica: str, generation: int, *, leaving: bool = False
    ) -> None:
        """Tell by which catalog a worker goes, or that it ends."""
        ...


@final
class CatalogStanding:
    """What `darkbloom_mesh.confirming` says for this worker.

    Args:
        registry: The room.
        shelf: Where the catalog in force is.
        metrics: Where the generation is shown.
        session: Names this life of this worker.
        replica: As operators know it.
    """

    def __init__(
        self,
        registry: Registry,
        shelf: CatalogShelf,
        metrics: Metrics,
        *,
        session: str,
        replica: str,
    ) -> None:
        self._registry = registry
        self._shelf = shelf
        self._gauge = metrics.gauge(telemetry.CATALOG_GENERATION)
        self._session = session
        self._replica = replica

    def generation(self) -> int:
        """Return that of the catalog in force; 0 before the first."""
        catalog = self._shelf.catalog
        return catalog.generation if catalog is not None else 0

    async def say(self, generation: int, *, leaving: bool) -> None:
        """Tell by which catalog this worker goes, or that it ends."""
        self._gauge.set(generation)
        try:
            await self._registry.confirm_catalog(
                self._session, self._replica, generation, leaving=leaving
            )
        except MeshError as error:
            _log.info("catalog_not_confirmed", reason=error.reason_name)
