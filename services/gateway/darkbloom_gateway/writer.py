"""Writes one answer to one consumer, who may be slow, but not for ever."""

import asyncio
from typing import final

from darkbloom_gateway.errors import ClientGoneError
from darkbloom_gateway.wire import Headers, Message, Send, send_json

_STREAM_HEADERS = (
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)


@final
class Writer:
    """An ASGI `send` with patience: a consumer that does not read for too long counts as gone.

    Args:
        send: of the request.
        stall_s: the patience.
        media_type: of a stream.
    """

    __slots__ = ("_media_type", "_send", "_stall_s", "started")

    def __init__(
        self, send: Send, stall_s: float, *, media_type: bytes = b"text/event-stream"
    ) -> None:
        self._send = send
        self._media_type = media_type
        self._stall_s = stall_s
        self.started = False
        """Whether status and headers of a stream have left."""

    async def whole(self, body: bytes, headers: Headers) -> None:
        """Send an answer in one piece.

        Raises:
            ClientGoneError: the consumer does not read.
        """
        try:
            async with asyncio.timeout(self._stall_s):
                await send_json(self._send, 200, body, headers)
        except TimeoutError:
            raise ClientGoneError from None

    async def start(self, headers: Headers) -> None:
        """Send status and headers of a stream; errors as `whole`."""
        self.started = True
        message = {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-type", self._media_type), *_STREAM_HEADERS, *headers],
        }
        await self._within_patience(message)

    async def write(self, events: bytes, *, more: bool = True) -> None:
        """Send events; errors as `whole`."""
        await self._within_patience(
            {"type": "http.response.body", "body": events, "more_body": more}
        )

    async def _within_patience(self, message: Message) -> None:
        try:
            async with asyncio.timeout(self._stall_s):
                await self._send(message)
        except TimeoutError:
            raise ClientGoneError from None
