"""Natural batches: what waits while one batch is in flight travels in the next. No timers.

One commit then pays for many rows, and a hot account is locked once a batch instead of once a row.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from darkbloom_mesh.errors import MeshError, OverloadedError, UnavailableError

T = TypeVar("T")
R = TypeVar("R")

MAX_ROWS = 64
"""Most rows of one batch."""


class NaturalBatch(Generic[T, R]):
    """Gathers rows of many callers into batches, one in flight.

    A caller that leaves never disturbs the batch that its row is in; a row that fails by its own
    fault fails alone.

    Args:
        work: Does one batch; returns a result for each row, in order.
        max_waiting: Rows that may wait before callers are refused.
        observe: Told the size of each batch.
    """

    def __init__(
        self,
        work: Callable[[Sequence[T]], Awaitable[Sequence[R]]],
        *,
        max_waiting: int = 4096,
        observe: Callable[[int], object] = lambda _rows: None,
    ) -> None:
        self._work = work
        self._max_waiting = max_waiting
        self._observe = observe
        self._waiting: deque[tuple[T, asyncio.Future[R]]] = deque()
        self._more = asyncio.Event()

    async def submit(self, rows: Sequence[T]) -> list[R]:
        """Return the result of each row, in order.

        Raises:
            OverloadedError: Too many rows wait.
            MeshError: What the work raised.
        """
        if len(self._waiting) + len(rows) > self._max_waiting:
            raise OverloadedError("too many rows wait for the ledger")
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[R]] = [loop.create_future() for _ in rows]
        self._waiting.extend(zip(rows, futures, strict=True))
        self._more.set()
        # Every outcome is awaited, so that no failure is reported as never retrieved.
        outcomes = await asyncio.gather(*futures, return_exceptions=True)
        results: list[R] = []
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
            results.append(outcome)
        return results

    async def run(self) -> None:
        """Work for ever; whoever waits at the end is told that this replica is leaving."""
        try:
            while True:
                await self._more.wait()
                await self._one()
        finally:
            for _, future in self._waiting:
                if not future.done():
                    future.set_exception(UnavailableError("billing is stopping"))

    async def _one(self) -> None:
        batch: list[tuple[T, asyncio.Future[R]]] = []
        while self._waiting and len(batch) < MAX_ROWS:
            row, future = self._waiting.popleft()
            if not future.done():
                batch.append((row, future))
        if not self._waiting:
            self._more.clear()
        if batch:
            self._observe(len(batch))
            await self._do(batch)

    async def _do(self, batch: list[tuple[T, asyncio.Future[R]]]) -> None:
        try:
            results = await self._work([row for row, _ in batch])
        except asyncio.CancelledError:
            _fail(batch, UnavailableError("billing is stopping"))
            raise
        except MeshError as error:
            _fail(batch, error)
        except Exception as error:  # noqa: BLE001 - goes to the callers, who map it
            # Not the store's fault, so it is one row's: the others must not pay for it.
            if len(batch) == 1:
                _fail(batch, error)
                return
            for item in batch:
                await self._do([item])
        else:
            for (_, future), result in zip(batch, results, strict=True):
                if not future.done():
                    future.set_result(result)


def _fail(batch: "list[tuple[T, asyncio.Future[R]]]", error: Exception) -> None:
    for _, future in batch:
        if not future.done():
            future.set_exception(error)
