"""Natural batches: one call in flight, and what waits meanwhile travels in the next.

No timer delays anybody: a lone item leaves after a few turns of the loop, so that what other
requests are about to ask goes with it. A batch is never cancelled for one of its callers.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, TypeVar

from darkbloom_mesh.backoff import Backoff
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import MeshError, OverloadedError, UnavailableError

GATHER_TURNS = 12
"""Turns of the loop before a batch leaves: idle ones take microseconds, a call far more."""

T = TypeVar("T")
R = TypeVar("R")


class Batcher(Generic[T, R]):
    """Turns single questions into calls of many; every submitted item gets its own answer.

    Args:
        call: answers a batch, in its order; raises `MeshError` to fail all of it. Carries its own
            deadline.
        max_batch: most items of one call.
        max_waiting: most items that wait.
    """

    def __init__(
        self,
        call: Callable[[Sequence[T]], Awaitable[Sequence[R]]],
        *,
        max_batch: int = 64,
        max_waiting: int = 4096,
    ) -> None:
        self._call = call
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._waiting: deque[tuple[T, asyncio.Future[R]]] = deque()
        self._wake = asyncio.Event()

    def submit(self, item: T) -> asyncio.Future[R]:
        """Return the future answer of an item; do not cancel it, but let it be.

        Raises:
            OverloadedError: too many items wait already.
        """
        if len(self._waiting) >= self._max_waiting:
            raise OverloadedError("too many items wait for a batch")
        answer: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, answer))
        self._wake.set()
        return answer

    async def run(self) -> None:
        """Send batches until cancelled; whoever waits then is told that we are unavailable."""
        batch: list[tuple[T, asyncio.Future[R]]] = []
        try:
            while True:
                while not self._waiting:
                    self._wake.clear()
                    await self._wake.wait()
                await self._gather()
                size = min(self._max_batch, len(self._waiting))
                batch = [self._waiting.popleft() for _ in range(size)]
                await self._send(batch)
        finally:
            for _, answer in (*batch, *self._waiting):
                _fail(answer, UnavailableError("this process is stopping"))

    async def _gather(self) -> None:
        for _ in range(GATHER_TURNS):
            if len(self._waiting) >= self._max_batch:
                return
            await asyncio.sleep(0)  # noqa: TID251 - a turn of the loop, no time

    async def _send(self, batch: list[tuple[T, asyncio.Future[R]]]) -> None:
        try:
            answers = await self._call([item for item, _ in batch])
            if len(answers) != len(batch):
                raise UnavailableError("a batch was answered in part")
        except MeshError as error:
            for _, answer in batch:
                _fail(answer, error)
            return
        for (_, answer), result in zip(batch, answers, strict=True):
            if not answer.done():
                answer.set_result(result)


class Outbox(Generic[T]):
    """Delivers what nobody waits for, in batches, again and again until it was taken.

    Args:
        call: takes a batch; raises `MeshError` where it should be tried again.
        backoff: waits between tries.
        clock: time of the waits.
        on_dropped: told of each item that found no room.
        max_batch: most items of one call.
        max_waiting: most items that wait; more are dropped.
        gather_s: what comes so soon after a delivery waits for the next one, in company: nobody
            waits for it, and a call costs as much as a hundred items. A lone item leaves at once.
    """

    def __init__(
        self,
        call: Callable[[Sequence[T]], Awaitable[None]],
        *,
        backoff: Backoff,
        clock: Clock,
        on_dropped: Callable[[], None],
        max_batch: int = 64,
        max_waiting: int = 8192,
        gather_s: float = 0.0,
    ) -> None:
        self._call = call
        self._backoff = backoff
        self._clock = clock
        self._on_dropped = on_dropped
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._gather_s = gather_s
        self._waiting: deque[T] = deque()
        self._wake = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, item: T) -> None:
        """Take an item, or drop it and say so."""
        if len(self._waiting) >= self._max_waiting:
            self._on_dropped()
            return
        self._waiting.append(item)
        self._empty.clear()
        self._wake.set()

    async def flushed(self) -> None:
        """Return once nothing waits."""
        await self._empty.wait()

    async def run(self) -> None:
        """Deliver until cancelled."""
        gathered_at = self._clock.monotonic()
        while True:
            while not self._waiting:
                self._empty.set()
                self._wake.clear()
                await self._wake.wait()
            if (early_s := gathered_at - self._clock.monotonic()) > 0:
                await self._clock.sleep(early_s)
            await self._deliver()
            gathered_at = self._clock.monotonic() + self._gather_s

    async def _deliver(self) -> None:
        """Deliver everything that waits, call by call."""
        while self._waiting:
            size = min(self._max_batch, len(self._waiting))
            batch = [self._waiting[index] for index in range(size)]
            try:
                await self._call(batch)
            except MeshError:
                await self._clock.sleep(self._backoff.next_s())
                continue
            self._backoff.reset()
            for _ in batch:
                self._waiting.popleft()


def _fail(answer: asyncio.Future[Any], error: MeshError) -> None:
    """Fail an answer for which perhaps nobody waits any more."""
    if not answer.done():
        answer.set_exception(error)
        answer.exception()
