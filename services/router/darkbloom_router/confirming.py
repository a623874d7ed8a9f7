"""Tells the registry by which catalog this replica goes, and what its machines hold."""

import asyncio
from collections.abc import Callable, Iterable

import grpc
import structlog
from darkbloom.registry.v1 import registry_service_pb2 as registry_rpc
from darkbloom.registry.v1.registry_service_pb2_grpc import RegistryServiceStub
from darkbloom_mesh.clock import Clock

from darkbloom_router.holdings import Held

LOOK_S = 1.0
"""Between two looks at whether there is a newer catalog."""
REPEAT_S = 10.0
"""Between two confirmations of one catalog."""
LEAVE_S = 2.0
"""Of the last word; a registry that is away keeps nobody from ending."""
MAX_ROWS = 1000
_log = structlog.get_logger()


class Confirmations:
    """Sends one confirmation at a time; one that fails is made up for by the next.

    Args:
        channel: To the registry.
        clock: Between looks.
        session: Names this life of this replica.
        replica: As operators know it.
        generation: The catalog in force; 0 before the first.
        holdings: What the machines hold.
        timeout_s: Of a call.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        clock: Clock,
        *,
        session: str,
        replica: str,
        generation: Callable[[], int],
        holdings: Callable[[], Iterable[Held]],
        timeout_s: float,
    ) -> None:
        self._stub: RegistryServiceStub = RegistryServiceStub(channel)
        self._clock = clock
        self._session = session
        self._replica = replica
        self._generation = generation
        self._holdings = holdings
        self._timeout_s = timeout_s
        self._told = 0
        self._left = False
        self._speaking = asyncio.Lock()

    async def run(self) -> None:
        """Confirm until it ends."""
        told_at = self._clock.monotonic()
        while not self._left:
            await self._clock.sleep(LOOK_S)
            now = self._clock.monotonic()
            if self._generation() != self._told or now - told_at >= REPEAT_S:
                told_at = now
                await self.confirm()

    async def confirm(self) -> None:
        """Say it now."""
        generation = self._generation()
        request = self._request(generation)
        for held in list(self._holdings())[:MAX_ROWS]:
            request.holdings.add(
                build=held.build,
                wished=held.wished,
                holding=held.holding,
                current=held.current,
                warm=held.warm,
            )
        async with self._speaking:
            if not self._left:
                await self._say(request, self._timeout_s)
        # Also after a failure: a registry that is away is asked again in ten seconds, not in one.
        self._told = generation

    async def leave(self) -> None:
        """Say that this replica ends; without it the registry would think it may be at work."""
        request = self._request(self._generation())
        request.leaving = True
        async with self._speaking:
            self._left = True
            await self._say(request, LEAVE_S)

    def _request(self, generation: int) -> registry_rpc.ConfirmCatalogRequest:
        return registry_rpc.ConfirmCatalogRequest(
            session=self._session, room="router", replica=self._replica, generation=generation
        )

    async def _say(self, request: registry_rpc.ConfirmCatalogRequest, timeout_s: float) -> None:
        try:
            await self._stub.ConfirmCatalog(request, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            _log.info("catalog_not_confirmed", status=error.code().name.lower())
