"""A registry on a loopback socket over a real store, and what publishers send it."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import grpc
from darkbloom.registry.v1 import catalog_pb2
from darkbloom.registry.v1 import registry_service_pb2 as pb
from darkbloom.registry.v1.registry_service_pb2_grpc import (
    RegistryServiceStub,
    add_RegistryServiceServicer_to_server,
)
from darkbloom_edge.manifest import FileRole, ManifestFile, build_manifest
from darkbloom_edge.signatures import Ed25519Signer
from darkbloom_mesh.backoff import Backoff
from darkbloom_mesh.channel import channel
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import MeshError, from_rpc_error
from darkbloom_mesh.telemetry import Metrics
from darkbloom_mesh.testing import serve_ephemeral
from darkbloom_registry.admission import KEY_METADATA, Admission
from darkbloom_registry.approvals import Approvals
from darkbloom_registry.changes import Scope
from darkbloom_registry.feed import CatalogFeed
from darkbloom_registry.names.naming import Naming
from darkbloom_registry.progress.following import Following
from darkbloom_registry.publishing import Publishing
from darkbloom_registry.rendering import ProcessRenderer
from darkbloom_registry.rolling import Rolling
from darkbloom_registry.server import RegistryServer
from darkbloom_registry.store import PostgresStore

TIMEOUT_S = 10


class Registry:
    """The client that publishers and readers would write."""

    def __init__(self, stub: Any, feed: CatalogFeed, target: str = "") -> None:
        self.stub = stub
        self.feed = feed
        self.target = target
        self.key = ""
        """Publishing key of what is called from now on."""

    async def call(self, method: str, request: Any) -> Any:
        """Call, and raise what the server raised."""
        try:
            metadata = ((KEY_METADATA, self.key),) if self.key else ()
            return await getattr(self.stub, method)(request, timeout=TIMEOUT_S, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from None

    async def refused(self, method: str, request: Any) -> MeshError:
        """Call what must be refused and return the error."""
        try:
            answer = await self.call(method, request)
        except MeshError as error:
            return error
        raise AssertionError(f"{method} answered {answer}")

    async def register(self, build: str, version: str = "v1", *, promote: bool = True, **file: Any):
        """Register a version whose one file has a content of its own."""
        return await self.call(
            "RegisterBuild",
            pb.RegisterBuildRequest(
                build=facts(build), manifest=manifest(build, version, **file), promote=promote
            ),
        )

    async def alias(self, alias_id: str, desired: str, previous: str = "", **fields: Any):
        """Point an active alias."""
        alias = catalog_pb2.Alias(
            alias_id=alias_id,
            desired_build=desired,
            previous_build=previous,
            **{"active": True, **fields},
        )
        return await self.call("UpsertAlias", pb.UpsertAliasRequest(alias=alias))

    async def promote(self, build: str, version: str):
        """Make a version the active one."""
        return await self.call(
            "PromoteVersion", pb.PromoteVersionRequest(build=build, version=version)
        )

    def watch(self, after: int = 0) -> Any:
        """Open a watch; iterate it with `next_event`."""
        return self.stub.WatchCatalog(pb.WatchCatalogRequest(after_generation=after))

    async def catalog(self, generation: int) -> catalog_pb2.Catalog:
        """Return the catalog once it has reached this generation."""
        watch = self.watch()
        while True:
            event = await next_event(watch)
            if event.snapshot.generation >= generation:
                watch.cancel()
                return event.snapshot


async def next_event(watch: Any) -> pb.WatchCatalogResponse:
    """Return the next event of a watch, within bounds."""
    async with asyncio.timeout(TIMEOUT_S):
        event = await watch.read()
    assert isinstance(event, pb.WatchCatalogResponse)
    return event


def facts(build: str, **changes: Any) -> catalog_pb2.Build:
    """Facts of a small build."""
    return catalog_pb2.Build(
        **{
            "id": build,
            "family": "llama",
            "architecture": "llama",
            "quantization": "4bit",
            "max_context_length": 2048,
            "max_output_length": 1024,
            "min_ram_gb": 4,
            "capabilities": ["chat"],
            **changes,
        }
    )


def manifest(
    build: str,
    version: str = "v1",
    content: bytes | None = None,
    role: FileRole = FileRole.WEIGHT,
    created_at: str = "2026-01-01T00:00:00Z",
) -> bytes:
    """A manifest of one file."""
    content = f"{build} {version}".encode() if content is None else content
    entry = ManifestFile(
        path="model.safetensors",
        size_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        role=role,
    )
    return build_manifest(build, version, [entry], created_at)


@asynccontextmanager
async def served(
    store: PostgresStore,
    clock: Clock,
    *,
    development: bool = True,
    signer: Ed25519Signer | None = None,
    downloads_at_once: int = 0,
    two_keys: bool = False,
) -> AsyncIterator[Registry]:
    """Serve a registry whose feed follows the store."""
    feed = CatalogFeed(store, clock, Backoff(lambda: 0.5))
    await feed.load()
    server = RegistryServer(
        store,
        Publishing(store, clock, ProcessRenderer(), development=development),
        Naming(store, clock),
        feed,
        Metrics(version="test"),
        signer,
        rolling=(rolling := Rolling(store, clock, 1.0, downloads_at_once=downloads_at_once)),
        following=Following(store, clock),
        admission=Admission(
            store,
            development=development,
            approvals=Approvals(store, clock) if two_keys else None,
        ),
        clock=clock,
    )
    async with asyncio.TaskGroup() as tasks:
        follower = tasks.create_task(feed.follow())
        judging = tasks.create_task(rolling.run())
        async with (
            serve_ephemeral(partial(add_RegistryServiceServicer_to_server, server)) as target,
            channel(target, mesh_token=None, room="test") as dialled,
        ):
            yield Registry(RegistryServiceStub(dialled), feed, target)
            await feed.close()
        follower.cancel()
        judging.cancel()


async def publishing_key(store: PostgresStore, label: str, *scopes: Scope) -> str:
    """Make a key, as `python -m darkbloom_registry key` does, but count no generation for it."""
    key = f"dbp-{label}"
    async with store.write() as writing:
        await writing.put_key(hashlib.sha256(key.encode()).digest(), label, scopes)
    return key
