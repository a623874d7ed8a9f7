"""Where the frames of one request wait, and how its task sleeps."""

import asyncio
import math
from collections import deque
from collections.abc import Coroutine, Iterable
from typing import Any, final

from darkbloom.common.v1.frame_pb2 import Frame
from darkbloom_mesh.clock import Clock

MAX_FRAMES = 192
"""Frames that may wait: two attempts' credits and their control frames, with room to spare."""
TICK_S = 0.25
"""How often alarms are looked at."""


@final
class Mailbox:
    """Frames of one request, from the lane's reader to the request's task.

    One waiter at a time. Waking it is all that `put` does; opening and rendering happen in the
    request's own task, a drained box at a time.
    """

    __slots__ = ("_waiter", "alarm_at", "frames", "gone", "lost", "overflowed")

    def __init__(self) -> None:
        self.frames: deque[Frame] = deque()
        self.gone = False
        """The consumer left."""
        self.lost = False
        """The lane ended."""
        self.overflowed = False
        """More frames came than credits allow."""
        self.alarm_at = math.inf
        self._waiter: asyncio.Future[None] | None = None

    def reset(self) -> None:
        """Forget what an earlier lane has left."""
        self.frames.clear()
        self.lost = False
        self.overflowed = False

    def put(self, frame: Frame) -> None:
        """Take a frame in; called by the lane's reader."""
        if len(self.frames) >= MAX_FRAMES:
            self.overflowed = True
        else:
            self.frames.append(frame)
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def wake(self) -> None:
        """Let the waiter look around."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def leave(self) -> None:
        """Note that the consumer left."""
        self.gone = True
        self.wake()

    def lose(self) -> None:
        """Note that the lane ended."""
        self.lost = True
        self.wake()

    async def wait(self, alarm_at: float) -> None:
        """Return when there is something to look at, or at `alarm_at` (monotonic seconds)."""
        if self.frames or self.gone or self.lost or self.overflowed:
            return
        self._waiter = asyncio.get_running_loop().create_future()
        self.alarm_at = alarm_at
        try:
            await self._waiter
        finally:
            self._waiter = None
            self.alarm_at = math.inf

    async def during(self, work: Coroutine[Any, Any, None]) -> None:
        """Return when some work is done, or has been given up because the consumer left.

        Raises:
            Exception: what the work raised.
        """
        task = asyncio.get_running_loop().create_task(work, name="during")
        task.add_done_callback(lambda _done: self.wake())
        try:
            while not (task.done() or self.gone):
                await self.wait(math.inf)
            if task.done():
                task.result()
        finally:
            task.cancel()
            await asyncio.wait({task})
            # A fault that comes as the consumer leaves is nobody's any more.
            if not task.cancelled():
                task.exception()


async def ring_alarms(mailboxes: Iterable[Mailbox], clock: Clock, tick_s: float = TICK_S) -> None:
    """Wake those whose time has come, until cancelled.

    One sweeper for all requests costs less than a timer per chunk, and a jumping clock moves it.
    """
    while True:
        await clock.sleep(tick_s)
        now = clock.monotonic()
        for mailbox in list(mailboxes):
            if mailbox.alarm_at <= now:
                mailbox.wake()
