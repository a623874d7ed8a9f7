"""Notices that a consumer left, while its request waits for other things."""

from typing import Protocol, final

from darkbloom_gateway.companion import Companion
from darkbloom_gateway.wire import Receive


class Leaving(Protocol):
    """Whoever must know that the consumer left, such as a request's mailbox."""

    def leave(self) -> None:
        """Note it."""
        ...


@final
class Presence(Companion):
    """Watches one request's `receive`; the task ends with the `with`.

    Args:
        receive: of the request, whose body was read.
        listener: told when the consumer is gone.
    """

    def __init__(self, receive: Receive, listener: Leaving) -> None:
        self._receive = receive
        self._listener = listener

    async def _accompany(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._listener.leave()
