"""What the router is told by others: the catalog and revocations, as long as it runs.

A watch that ends or falls silent is opened again with back-off. The catalog's last good snapshot
is kept on disk, so that a registry that is away at our start stops nobody; a revocation that was
missed is bounded by the verdict's sixteen minutes.
"""

import asyncio
import base64
import binascii
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeVar

import grpc
import structlog
from darkbloom.attestation.v1 import attestation_service_pb2 as attestation_rpc
from darkbloom.attestation.v1.attestation_service_pb2_grpc import AttestationServiceStub
from darkbloom.registry.v1 import registry_service_pb2 as registry_rpc
from darkbloom.registry.v1.catalog_pb2 import Catalog as CatalogMessage
from darkbloom.registry.v1.registry_service_pb2_grpc import RegistryServiceStub
from darkbloom_mesh.backoff import Backoff
from darkbloom_mesh.clock import Clock
from google.protobuf.message import DecodeError

from darkbloom_router import convert
from darkbloom_router.model import Catalog
from darkbloom_router.timers import Timers

_log = structlog.get_logger()
_SILENCE_S = 30.0
_POINT, _RAW_POINT = 65, 64
EventT = TypeVar("EventT")


class CatalogFile:
    """The last good catalog on disk; a damaged file counts as none.

    Args:
        path: Where it is kept; None keeps nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def load(self) -> CatalogMessage | None:
        """Return what was saved last."""
        if self._path is None:
            return None
        try:
            return CatalogMessage.FromString(self._path.read_bytes())
        except (OSError, DecodeError):
            return None

    def save(self, catalog: CatalogMessage) -> None:
        """Replace the file as a whole."""
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        staged = self._path.with_suffix(".part")
        staged.write_bytes(catalog.SerializeToString())
        staged.replace(self._path)


class CatalogWatch:
    """Follows the registry; `apply` is called with every newer catalog, first the one on disk."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        file: CatalogFile,
        timers: Timers,
        clock: Clock,
        backoff: Backoff,
        apply: Callable[[Catalog], None],
    ) -> None:
        self._stub: RegistryServiceStub = RegistryServiceStub(channel)
        self._file = file
        self._timers = timers
        self._clock = clock
        self._backoff = backoff
        self._apply = apply
        self.generation = 0
        self.known = False
        """Whether any catalog has been applied."""

    async def load(self) -> None:
        """Apply what is on disk, so that routing can begin without the registry."""
        message = await asyncio.to_thread(self._file.load)
        if message is not None:
            self._take(message)

    async def run(self) -> None:
        """Follow for ever."""
        while True:
            request = registry_rpc.WatchCatalogRequest(after_generation=self.generation)
            try:
                async for event in alive(self._stub.WatchCatalog(request), self._timers):
                    self._backoff.reset()
                    if event.HasField("snapshot") and self._take(event.snapshot):
                        await asyncio.to_thread(self._file.save, event.snapshot)
            except grpc.aio.AioRpcError as error:
                _log.warning("catalog_watch_lost", status=error.code().name.lower())
            await self._clock.sleep(self._backoff.next_s())

    def _take(self, message: CatalogMessage) -> bool:
        """Apply a catalog unless an equal or newer one is in force."""
        if self.known and message.generation <= self.generation:
            return False
        self.known = True
        self.generation = message.generation
        self._apply(convert.catalog(message))
        _log.info("catalog_applied", generation=message.generation, builds=len(message.builds))
        return True


class RevocationWatch:
    """Follows attestation; `apply` gets verdict id and identity key of each revocation."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        timers: Timers,
        clock: Clock,
        backoff: Backoff,
        apply: Callable[[str, bytes], None],
    ) -> None:
        self._stub: AttestationServiceStub = AttestationServiceStub(channel)
        self._timers = timers
        self._clock = clock
        self._backoff = backoff
        self._apply = apply
        self._generation = 0

    async def run(self) -> None:
        """Follow for ever."""
        while True:
            request = attestation_rpc.WatchRevocationsRequest(after_generation=self._generation)
            try:
                async for event in alive(self._stub.WatchRevocations(request), self._timers):
                    self._backoff.reset()
                    if event.HasField("revocation"):
                        self._apply(*read_revocation(event.revocation.document))
                    self._generation = max(self._generation, event.generation)
            except grpc.aio.AioRpcError as error:
                _log.warning("revocation_watch_lost", status=error.code().name.lower())
            await self._clock.sleep(self._backoff.next_s())


def read_revocation(document: bytes) -> tuple[str, bytes]:
    """Return verdict id and identity key of a revocation, empty where it names none.

    It came from attestation over the mesh and can only take trust away, so its signature is left to
    those who must convince others.
    """
    try:
        fields = json.loads(document)
        verdict_id = fields.get("verdict_id") or ""
        identity = base64.b64decode(fields.get("identity_key") or "", validate=True)
    except (ValueError, AttributeError, TypeError, binascii.Error, RecursionError):
        return "", b""
    if len(identity) == _RAW_POINT:
        identity = b"\x04" + identity
    return str(verdict_id), identity if len(identity) == _POINT else b""


async def alive(
    call: grpc.aio.UnaryStreamCall[Any, EventT], timers: Timers
) -> AsyncIterator[EventT]:
    """Yield the events of a watch; a silence of 30 s cancels the call as a whole."""
    timer = timers.after(_SILENCE_S, call.cancel)
    try:
        async for event in call:
            timer.cancel()
            timer = timers.after(_SILENCE_S, call.cancel)
            yield event
    except asyncio.CancelledError:
        # Both our own silence timer and the end of the room look like this; only ours is caught.
        if not call.cancelled() or _cancelling():
            raise
    finally:
        timer.cancel()
        call.cancel()


def _cancelling() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
