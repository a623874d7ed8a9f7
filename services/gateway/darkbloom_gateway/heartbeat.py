"""Keeps the line of a caller alive who has asked for that before the answer has begun."""

from typing import final

from darkbloom_mesh.clock import Clock

from darkbloom_gateway.companion import Companion
from darkbloom_gateway.errors import ClientGoneError
from darkbloom_gateway.mailbox import Mailbox
from darkbloom_gateway.writer import Writer

STARTED = ((b"x-darkbloom-early-commit", b"true"),)
"""Headers of a stream that began before its answer did."""


@final
class Heartbeat(Companion):
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

    async def _accompany(self) -> None:
        try:
            await self._clock.sleep(self._first_s)
            await self._writer.start(STARTED)
            while True:
                await self._writer.write(self._comment)
                await self._clock.sleep(self._then_s)
        except ClientGoneError:
            self._mailbox.leave()
