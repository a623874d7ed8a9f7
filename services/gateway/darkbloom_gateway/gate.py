"""Counts inference requests in flight and keeps new ones out while draining."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from darkbloom_mesh.clock import Clock

from darkbloom_gateway.errors import draining, overloaded

HUSH_S = 2.0
"""Nobody asks for so long: everybody has heard that we leave.

A client of a crowded machine takes more than a second from an answer's end to its next request.
"""
HUSHES = 4
"""Most such waits, for those who never hear it."""


class Gate:
    """The request is counted in before the flags are read, so `inflight` is an upper bound.

    Attributes:
        leaving: this process ends, and others take over.
        paused: an operator has closed inference at every gateway.
        inflight: requests that are being answered.
        turned_away: requests that were refused because of a drain.
    """

    def __init__(self, max_inflight: int) -> None:
        self._max = max_inflight
        self._idle = asyncio.Event()
        self._idle.set()
        self.leaving = False
        self.paused = False
        self.inflight = 0
        self.turned_away = 0

    @property
    def draining(self) -> bool:
        """Whether new requests are refused while those that run go on."""
        return self.leaving or self.paused

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Count one request in and out.

        Raises:
            ApiError: 429 while draining, 503 where as many as may be are in flight.
        """
        self.inflight += 1
        self._idle.clear()
        try:
            if self.draining:
                self.turned_away += 1
                raise draining()
            if self.inflight > self._max:
                raise overloaded()
            yield
        finally:
            self.inflight -= 1
            if not self.inflight:
                self._idle.set()

    async def hushed(self, clock: Clock) -> None:
        """Return once nothing is in flight and nobody asks any more.

        Who has got an answer here asks here again, before he hears that we leave; closing at the
        end of the last answer would cut just those requests.
        """
        heard = -1 if self.inflight or self.turned_away else 0
        await self.empty()
        for _ in range(HUSHES):
            if heard == self.turned_away:
                return
            heard = self.turned_away
            await clock.sleep(HUSH_S)
            await self.empty()

    async def empty(self) -> None:
        """Return once nothing is in flight."""
        await self._idle.wait()
