"""Sends the callers of a process that leaves to another one.

A client that keeps its connection would come back here with its next request, and again with the
one after that. So every answer that begins while this process leaves is the last one of its line.
"""

import asyncio
import contextlib
from typing import final

from darkbloom_gateway.gate import Gate
from darkbloom_gateway.wire import App, Message, Receive, Scope, Send

HEAR_OUT_S = 2.0
"""For the rest of a body that nobody wants."""
_LAST = (b"connection", b"close")


@final
class Parting:
    """An ASGI application that says goodbye while its process leaves.

    Args:
        app: answers.
        gate: knows whether this process leaves.
    """

    def __init__(self, app: App, gate: Gate) -> None:
        self._app = app
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if self._gate.leaving:
            last = _LastAnswer(receive, send)
            receive, send = last.receive, last.send
        await self._app(scope, receive, send)


@final
class _LastAnswer:
    """Announces the end of the line, and lets the request come to its own end first.

    Closing over bytes that nobody has read resets the connection, and a reset can destroy the very
    answer that the client was about to read.
    """

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._heard = False

    async def receive(self) -> Message:
        message = await self._receive()
        self._heard = message["type"] != "http.request" or not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            await self._send({**message, "headers": [*message["headers"], _LAST]})
        elif self._heard or message.get("more_body", False):
            await self._send(message)
        else:
            # The whole answer goes out now; only its end, which closes the line, has to wait.
            await self._send({**message, "more_body": True})
            await self._hear_out()
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _hear_out(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HEAR_OUT_S):
                while not self._heard:
                    await self.receive()
