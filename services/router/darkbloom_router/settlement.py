"""Ending holds: what waits travels to billing in one call at a time, until billing has said so.

One call in flight, at most 64 items. What ends soon after a delivery waits for the next one: nobody
waits for a settlement, and a call costs as much as dozens of them. A call that fails is repeated
with back-off and loses nothing; an item is forgotten only with billing's answer. The line is
bounded: beyond it nothing is taken, the hold is swept by billing, and that is counted.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from darkbloom_mesh.backoff import Backoff
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import InvalidArgumentError, MeshError

from darkbloom_router.model import Opened, Signed
from darkbloom_router.ports import Ledger

BATCH = 64


class End(StrEnum):
    """What became of a hold."""

    SETTLED = "settled"
    RELEASED = "released"
    REPLAYED = "replayed"
    LATE = "late"
    REJECTED = "rejected"
    UNKNOWN = "unknown"


class Cause(StrEnum):
    """Why a hold is released."""

    REFUSED = "refused"
    NOTHING_OPENED = "nothing_opened"
    CLIENT_GONE = "client_gone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settle:
    """Pay for what was delivered."""

    request_id: str
    attempt_id: str
    verdict: Signed
    terminal: Signed | None
    opened: Opened
    price_id: str = ""
    traceparent: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Free:
    """Give the money back."""

    request_id: str
    cause: Cause


Order = Settle | Free
OrderT = TypeVar("OrderT", Settle, Free)
Done = Callable[[End], None]


class SettlementDesk:
    """The line to billing. `run()` must be running.

    Args:
        ledger: Billing.
        clock: For back-off.
        backoff: Of repeated calls.
        limit: Orders that may wait.
        count: Called with each end, for metrics.
        gather_s: Least time between two deliveries; the first one leaves at once.
    """

    def __init__(
        self,
        ledger: Ledger,
        clock: Clock,
        backoff: Backoff,
        *,
        limit: int,
        count: Callable[[str], None],
        gather_s: float = 0.0,
    ) -> None:
        self._ledger = ledger
        self._clock = clock
        self._backoff = backoff
        self._limit = limit
        self._count = count
        self._gather_s = gather_s
        self._settles: deque[tuple[Settle, Done]] = deque()
        self._frees: deque[tuple[Free, Done]] = deque()
        self._batch = BATCH
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def __len__(self) -> int:
        return len(self._settles) + len(self._frees)

    def submit(self, order: Order, done: Done) -> bool:
        """Queue an order; False where the line is full, and then `done` is never called."""
        if len(self) >= self._limit:
            self._count("dropped")
            return False
        if isinstance(order, Settle):
            self._settles.append((order, done))
        else:
            self._frees.append((order, done))
        self._idle.clear()
        self._wake.set()
        return True

    async def flush(self) -> None:
        """Wait until billing has answered everything; bound it from outside."""
        await self._idle.wait()

    async def run(self) -> None:
        """Serve the line for ever."""
        gathered_at = self._clock.monotonic()
        while True:
            await self._wake.wait()
            if (early_s := gathered_at - self._clock.monotonic()) > 0:
                await self._clock.sleep(early_s)
            self._wake.clear()
            while self._settles or self._frees:
                try:
                    await self._turn()
                except MeshError:
                    self._count("retried")
                    await self._clock.sleep(self._backoff.next_s())
                else:
                    self._backoff.reset()
            gathered_at = self._clock.monotonic() + self._gather_s
            self._idle.set()

    async def _turn(self) -> None:
        if self._settles:
            settles = [order for order, _ in self._first(self._settles)]
            self._finish(self._settles, await self._ended(settles, self._ledger.settle))
        if self._frees:
            frees = [order for order, _ in self._first(self._frees)]
            self._finish(self._frees, await self._ended(frees, self._ledger.release))

    async def _ended(
        self, orders: list[OrderT], call: Callable[[Sequence[OrderT]], Awaitable[Sequence[End]]]
    ) -> Sequence[End]:
        """Make one call; an order that billing cannot read must not hold up the others."""
        try:
            ends = await call(orders)
        except InvalidArgumentError:
            if len(orders) == 1:
                return [End.REJECTED]
            self._batch = 1
            return []
        self._batch = BATCH
        return ends

    def _first(self, queue: deque[tuple[OrderT, Done]]) -> list[tuple[OrderT, Done]]:
        return [queue[index] for index in range(min(self._batch, len(queue)))]

    def _finish(self, queue: deque[tuple[OrderT, Done]], ends: Sequence[End]) -> None:
        for end in ends:
            _, done = queue.popleft()
            self._count(end.value)
            done(end)
