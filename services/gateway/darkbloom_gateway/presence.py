"""Notices that a consumer left, while its request waits for other things."""

import asyncio
from types import TracebackType
from typing import Self, final

from darkbloom_gateway.mailbox import Mailbox
from darkbloom_gateway.wire import Receive


@final
class Presence:
    """Watches one request's `receive` and tells its mailbox; the task ends with the `with`.

    Args:
        receive: of the request, whose body was read.
        mailbox: told when the consumer is gone.
    """

    def __init__(self, receive: Receive, mailbox: Mailbox) -> None:
        self._receive = receive
        self._mailbox = mailbox
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Begin to watch."""
        self._task = asyncio.get_running_loop().create_task(self._watch(), name="presence")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop watching and wait for the task."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._mailbox.leave()
