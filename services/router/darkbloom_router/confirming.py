"""Tells the registry by which catalog this replica goes, and what its machines hold."""

from collections.abc import Callable, Iterable
from itertools import islice
from typing import final

import grpc
import structlog
from darkbloom.registry.v1 import registry_service_pb2 as registry_rpc
from darkbloom.registry.v1.registry_service_pb2_grpc import RegistryServiceStub

from darkbloom_router.holdings import Held

MAX_ROWS = 1000
_log = structlog.get_logger()


@final
class CatalogStanding:
    """What `darkbloom_mesh.confirming` says for this replica.

    Args:
        channel: To the registry.
        session: Names this life of this replica.
        replica: As operators know it.
        holdings: What the machines hold.
        timeout_s: Of a call.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        *,
        session: str,
        replica: str,
        holdings: Callable[[], Iterable[Held]],
        timeout_s: float,
    ) -> None:
        self._stub: RegistryServiceStub = RegistryServiceStub(channel)
        self._session = session
        self._replica = replica
        self._holdings = holdings
        self._timeout_s = timeout_s

    async def say(self, generation: int, *, leaving: bool) -> None:
        """Tell by which catalog this replica goes, or that it ends."""
        request = registry_rpc.ConfirmCatalogRequest(
            session=self._session,
            room="router",
            replica=self._replica,
            generation=generation,
            leaving=leaving,
        )
        for held in () if leaving else islice(self._holdings(), MAX_ROWS):
            request.holdings.add(
                build=held.build,
                wished=held.wished,
                holding=held.holding,
                current=held.current,
                warm=held.warm,
            )
        try:
            await self._stub.ConfirmCatalog(request, timeout=self._timeout_s)
        except grpc.aio.AioRpcError as error:
            _log.info("catalog_not_confirmed", status=error.code().name.lower())
