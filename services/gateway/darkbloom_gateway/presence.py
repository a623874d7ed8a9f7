"""Notices that a consumer left, while its request waits for other things."""

import asyncio
from types import TracebackType
from typing import Protocol, Self, final

from darkbloom_gateway.wire import Receive


class Leaving(Protocol):
    """Whoever must know that the consumer left, such as a request's mailbox."""

    def leave(self) -> None:
        """Note it."""
        ...


@final
class Presence:
    """Watches one request's `receive`; the task ends with the `with`.

    Args:
        receive: of the request, whose body was read.
        listener: told when the consumer is gone.
    """

    def __init__(self, receive: Receive, listener: Leaving) -> None:
        self._receive = receive
        self._listener = listener
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
        self._listener.leave()
