"""Catalog revisions into the transparency log: followed at the registry, appended once each."""

import hashlib
from typing import final

import grpc
import structlog
from darkbloom.registry.v1.catalog_pb2 import Catalog
from darkbloom.registry.v1.registry_service_pb2 import WatchCatalogRequest
from darkbloom.registry.v1.registry_service_pb2_grpc import RegistryServiceStub
from darkbloom_edge.log import CatalogEntry, timeless
from darkbloom_mesh.backoff import Backoff
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import MeshError

from darkbloom_attestation import convert
from darkbloom_attestation.ports import Store

WATCH_S = 600.0
"""Longest life of one watch: a dead one is noticed at the latest then."""

_log = structlog.get_logger()


@final
class CatalogWatch:
    """Follows the catalog. Replicas may do so at once: each revision is in the log once."""

    def __init__(
        self, channel: grpc.aio.Channel, store: Store, clock: Clock, backoff: Backoff
    ) -> None:
        self._stub: RegistryServiceStub = RegistryServiceStub(channel)
        self._store = store
        self._clock = clock
        self._backoff = backoff
        self._generation = 0

    async def run(self) -> None:
        """Follow for as long as the room lives; nobody waits for it."""
        while True:
            try:
                await self._follow()
            except (grpc.aio.AioRpcError, MeshError) as error:
                _log.info("catalog_watch_ended", error_type=type(error).__name__)
            await self._clock.sleep(self._backoff.next_s())

    async def _follow(self) -> None:
        request = WatchCatalogRequest(after_generation=self._generation)
        async for event in self._stub.WatchCatalog(request, timeout=WATCH_S):
            self._backoff.reset()
            if event.WhichOneof("event") == "snapshot":
                await self._take(event.snapshot)

    async def _take(self, catalog: Catalog) -> None:
        entry = convert.catalog_entry_from(catalog, self._clock.now())
        async with self._store.transaction() as change:
            await change.log.append(entry, key=_key(entry))
        self._generation = catalog.generation


def _key(entry: CatalogEntry) -> str:
    """Name a revision by all that it says, its time excepted."""
    return f"catalog:{hashlib.sha256(timeless(entry)).hexdigest()}"
