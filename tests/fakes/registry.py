"""A stand-in for the registry: one catalog, changed by tests."""

import asyncio
from collections.abc import AsyncIterator

import grpc
from darkbloom.registry.v1 import catalog_pb2
from darkbloom.registry.v1 import registry_service_pb2 as rpc
from darkbloom.registry.v1.registry_service_pb2_grpc import RegistryServiceServicer
from darkbloom_mesh.serve import Context

SCRIPTED_BUILD = "dev/scripted"
SCRIPTED_HASH = "ab" * 32


def build(name: str = SCRIPTED_BUILD, weight_hash: str = SCRIPTED_HASH) -> catalog_pb2.Build:
    """Return a small active build."""
    return catalog_pb2.Build(
        id=name,
        display_name=name,
        max_context_length=8192,
        max_output_length=2048,
        capabilities=["chat"],
        status=catalog_pb2.BUILD_STATUS_ACTIVE,
        model_type="text",
        active_version="1",
        weight_hash=weight_hash,
        size_bytes=1_000_000,
        accepted_weight_hashes=[weight_hash],
    )


class FakeRegistry(RegistryServiceServicer):
    """Serves `catalog`; `publish` changes it."""

    def __init__(self, *builds: catalog_pb2.Build) -> None:
        self.away = False
        self.downloads_granted: int | None = None
        """Leave to fetch that a report is given; None: nobody needs any."""
        self.confirmed = rpc.ConfirmCatalogRequest()
        self.catalog = catalog_pb2.Catalog(generation=1, builds=builds or [build()])
        self.manifests: dict[str, bytes] = {}
        self._changed = asyncio.Condition()

    async def publish(
        self, *builds: catalog_pb2.Build, aliases: tuple[catalog_pb2.Alias, ...] = ()
    ) -> None:
        """Replace the catalog and tell every watcher."""
        async with self._changed:
            self.catalog = catalog_pb2.Catalog(
                generation=self.catalog.generation + 1,
                builds=builds,
                aliases=aliases,
                downloads_are_granted=self.downloads_granted is not None,
            )
            self._changed.notify_all()

    async def WatchCatalog(
        self, request: rpc.WatchCatalogRequest, context: Context
    ) -> AsyncIterator[rpc.WatchCatalogResponse]:
        if self.away:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "registry is away")
        seen = request.after_generation
        while True:
            if self.catalog.generation != seen:
                seen = self.catalog.generation
                yield rpc.WatchCatalogResponse(snapshot=self.catalog)
            async with self._changed:
                while self.catalog.generation == seen:
                    await self._changed.wait()

    async def ConfirmCatalog(
        self, request: rpc.ConfirmCatalogRequest, context: Context
    ) -> rpc.ConfirmCatalogResponse:
        self.confirmed = request
        return rpc.ConfirmCatalogResponse()

    async def ReportModelStates(
        self, request: rpc.ReportModelStatesRequest, context: Context
    ) -> rpc.ReportModelStatesResponse:
        granted = min(request.downloads_wanted, self.downloads_granted or 0)
        return rpc.ReportModelStatesResponse(downloads_granted=granted)

    async def ListBuilds(
        self, request: rpc.ListBuildsRequest, context: Context
    ) -> rpc.ListBuildsResponse:
        return rpc.ListBuildsResponse(builds=self.catalog.builds)

    async def GetManifest(
        self, request: rpc.GetManifestRequest, context: Context
    ) -> rpc.GetManifestResponse:
        manifest = self.manifests.get(request.build)
        if manifest is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such manifest")
        return rpc.GetManifestResponse(manifest=manifest or b"")
