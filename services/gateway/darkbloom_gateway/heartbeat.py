"""Keeps the line of a caller alive who has asked for that before the answer has begun."""

import asyncio
from types import TracebackType
from typing import Self, final

from darkbloom_mesh.clock import Clock

from darkbloom_gateway.errors import ClientGoneError
from darkbloom_gateway.mailbox import Mailbox
from darkbloom_gateway.writer import Writer

STARTED = ((b"x-darkbloom-early-commit", b"true"),)
"""Headers of a stream that began before its answer did."""


@final
class Heartbeat:
    """Begins a stream and writes comments until the `with` ends; its task ends with it.

    Refusals come within the first moments, so those still have a status of their own.

    Args:
        writer: of the stream.
        mailbox: told when the consumer is gone.
        clock: time.
        comment: what is written.
        first_s: how long a true status is waited for.
        then_s: between comments.
    """

    def __init__(
        self,
        writer: Writer,
        mailbox: Mailbox,
        clock: Clock,
        *,
        comment: bytes,
        first_s: float,
        then_s: float,
    ) -> None:
        self._writer = writer
        self._mailbox = mailbox
        self._clock = clock
        self._comment = comment
        self._first_s = first_s
        self._then_s = then_s
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Begin to beat."""
        self._task = asyncio.get_running_loop().create_task(self._beat(), name="heartbeat")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop, and wait for the task; what it was writing is complete then."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    async def _beat(self) -> None:
        try:
            await self._clock.sleep(self._first_s)
            await self._writer.start(STARTED)
            while True:
                await self._writer.write(self._comment)
                await self._clock.sleep(self._then_s)
        except ClientGoneError:
            self._mailbox.leave()
