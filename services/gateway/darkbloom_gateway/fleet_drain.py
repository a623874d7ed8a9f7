"""One switch for all gateways that closes inference, and how each worker follows it."""

import asyncio
from typing import Protocol, final

import structlog
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.config import Secret
from darkbloom_mesh.errors import StoreUnavailableError
from redis.exceptions import RedisError

from darkbloom_gateway import valkey
from darkbloom_gateway.errors import unavailable
from darkbloom_gateway.gate import Gate

POLL_S = 1.0
"""How often each worker looks at the flag."""
PATIENCE_S = 2.0
"""Longest wait for the store, and for others of this worker who wait for it."""
_KEY = b"gw:drain"
_DRAINING, _OPEN = b"1", b"0"
_log = structlog.get_logger()


class DrainFlag(Protocol):
    """The flag that all gateways share; both methods raise `StoreUnavailableError`."""

    async def read(self) -> bool | None:
        """Return the flag; None where nobody has ever set it, or the store has forgotten it."""
        ...

    async def write(self, *, draining: bool, absent_only: bool = False) -> None:
        """Set the flag.

        Args:
            draining: to what.
            absent_only: only where there is none.
        """
        ...


@final
class FleetDrain:
    """Keeps a worker's gate as the flag says.

    While Valkey is away the last known state stays. A Valkey that has lost its memory is told again
    by whoever knows that inference is closed, so that only an operator opens it.

    Args:
        flag: shared by all gateways.
        gate: of this worker.
        clock: time.

    Attributes:
        looked: whether the flag was asked for once, with or without an answer.
    """

    def __init__(self, flag: DrainFlag, gate: Gate, clock: Clock) -> None:
        self._flag = flag
        self._gate = gate
        self._clock = clock
        # What was read before a change must not be applied after it.
        self._turn = asyncio.Lock()
        self._away = False
        self.looked = False

    async def set(self, *, draining: bool) -> None:
        """Close inference at every gateway, here at once; or open it again.

        Raises:
            ApiError: 503 where Valkey does not answer; it may have heard nevertheless.
        """
        try:
            async with asyncio.timeout(PATIENCE_S), self._turn:
                await self._flag.write(draining=draining)
                self._apply(draining=draining)
        except (StoreUnavailableError, TimeoutError):
            raise unavailable("the drain flag does not answer: read it before you go on") from None

    async def follow(self) -> None:
        """Look at the flag once."""
        try:
            async with asyncio.timeout(PATIENCE_S), self._turn:
                found = await self._flag.read()
                if found is not None:
                    self._apply(draining=found)
                elif self._gate.paused:
                    await self._flag.write(draining=True, absent_only=True)
            self._away = False
        except (StoreUnavailableError, TimeoutError):
            if not self._away:
                _log.warning("drain_flag_away", draining=self._gate.paused)
            self._away = True
        self.looked = True

    async def run(self) -> None:
        """Follow the flag until cancelled."""
        while True:
            await self.follow()
            await self._clock.sleep(POLL_S)

    def _apply(self, *, draining: bool) -> None:
        if draining != self._gate.paused:
            self._gate.paused = draining
            _log.info("drain_followed", draining=draining, inflight=self._gate.inflight)


class ValkeyDrainFlag:
    """The flag in Valkey, without an end.

    Args:
        url: `redis://…`.
        timeout_s: longest wait for the store.
    """

    def __init__(self, url: Secret, *, timeout_s: float = 0.5) -> None:
        self._client = valkey.client(url, connections=1, timeout_s=timeout_s)
        self._timeout_s = timeout_s

    async def read(self) -> bool | None:
        """Return the flag; None where there is none.

        Raises:
            StoreUnavailableError: Valkey does not answer.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                value = await self._client.get(_KEY)
        except (RedisError, OSError, TimeoutError):
            raise StoreUnavailableError("the drain flag does not answer") from None
        return {_DRAINING: True, _OPEN: False}.get(value)

    async def write(self, *, draining: bool, absent_only: bool = False) -> None:
        """Set the flag.

        Raises:
            StoreUnavailableError: Valkey does not answer.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._client.set(_KEY, _DRAINING if draining else _OPEN, nx=absent_only)
        except (RedisError, OSError, TimeoutError):
            raise StoreUnavailableError("the drain flag does not answer") from None

    async def close(self) -> None:
        """Close the connection."""
        await self._client.aclose()
