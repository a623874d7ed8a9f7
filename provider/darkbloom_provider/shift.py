"""One shift: from hashed models and a loaded engine to a drained stream and freed memory.

A machine whose schedule is always open has one shift that lasts as long as its process. Each shift
picks and hashes its models anew; identity, K and unacknowledged terminals outlive it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, final

import structlog
from darkbloom_mesh.clock import Clock

from darkbloom_provider.agent import Agent
from darkbloom_provider.attempt import Hosted
from darkbloom_provider.engine.interface import Engine
from darkbloom_provider.inventory import Inventory
from darkbloom_provider.loads import Loads
from darkbloom_provider.local.guests import Guests
from darkbloom_provider.stock import Stock
from darkbloom_provider.waiting import first_of

CLOSE_S: Final = 30.0
"""Bound of freeing the engine."""

_log = structlog.get_logger()


@final
@dataclass(frozen=True, kw_only=True, slots=True)
class Kitchen:
    """What turns requests into tokens, whoever asks: the network's stream and the local endpoint.

    One engine, one set of slots, one memory budget: what a local request reserves is what the
    network is told is taken.
    """

    engine: Engine
    loads: Loads
    inventory: Inventory
    guests: Guests = field(default_factory=Guests)
    """Local requests under way."""
    stock: Stock | None = None
    """Brings in what the network wishes and what the owner fetches."""

    @property
    def hosted(self) -> Mapping[str, Hosted]:
        """The builds that are verified, by id."""
        return self.inventory.hosted


@final
class Shift:
    """Serves until drained; run it once.

    Args:
        kitchen: with its first builds loaded, or about to be by whoever made it.
        agent: keeps the stream; None where the router is never asked (`--local`).
        engine_run: the engine's own work, already started: loading needs it. Whoever started it
            hears of its failure.
        clock: bounds the wait for guests.
    """

    def __init__(
        self,
        kitchen: Kitchen,
        agent: Agent | None,
        engine_run: asyncio.Task[None],
        clock: Clock,
    ) -> None:
        self.kitchen = kitchen
        self.agent = agent
        self.draining = False
        self._engine_run = engine_run
        self._clock = clock
        self._leave = asyncio.Event()

    async def run(self) -> None:
        """Serve; returns once drained, with the engine closed.

        Raises:
            Exception: engine, loads or stream broke.
        """
        kitchen = self.kitchen
        try:
            async with asyncio.TaskGroup() as tasks:
                loading = tasks.create_task(kitchen.loads.run(), name="loads")
                stocking = [
                    tasks.create_task(stock.run(), name="stock")
                    for stock in (kitchen.stock,)
                    if stock is not None
                ]
                if self.agent is not None:
                    await self.agent.run()
                # Guests may stay longer than the network's work.
                await self._leave.wait()
                for task in (loading, *stocking):
                    task.cancel()
        finally:
            await self.close()
        _log.info("shift_over")

    async def drain(self, patience_s: float) -> None:
        """Finish accepted work, settle it, and let `run` return."""
        self.draining = True
        async with asyncio.TaskGroup() as tasks:
            if self.agent is not None:
                tasks.create_task(self.agent.drain(patience_s), name="shift.drain")
            clock = self._clock
            await first_of(self.kitchen.guests.gone(), clock.sleep(patience_s))
        self._leave.set()

    async def close(self) -> None:
        """Free the engine; what still runs in it ends cancelled."""
        self.kitchen.inventory.release()
        await self.kitchen.engine.close()
        await asyncio.wait([self._engine_run], timeout=CLOSE_S)
