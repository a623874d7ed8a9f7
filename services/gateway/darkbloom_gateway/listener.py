"""The public listener: uvicorn with bounded headers, inside our own lifecycle."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Any, final

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from darkbloom_gateway.config import GatewayConfig
from darkbloom_gateway.wire import App

MAX_HEADER_BYTES = 64 * 1024
"""Most bytes of a request before its headers are complete."""
BACKLOG = 2048


def bind(config: GatewayConfig) -> socket.socket:
    """Bind the public address; workers share the socket.

    Raises:
        OSError: the address is taken or not ours.
    """
    host, port = config.address()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol, hanging up on who connects and says nothing, or headers for ever.

    Subclass with `headers_s`: seconds from the first byte to the end of the headers.
    """

    headers_s: float

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._patience: asyncio.TimerHandle | None = None
        self._header_bytes = 0
        self._in_headers = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for headers."""
        super().connection_made(transport)
        self._expect_headers()

    def data_received(self, data: bytes) -> None:
        """Count bytes until headers are complete."""
        if self._in_headers:
            if self._patience is None:
                self._expect_headers()
            self._header_bytes += len(data)
        super().data_received(data)
        if self._in_headers and self._header_bytes > MAX_HEADER_BYTES:
            self.transport.close()

    def on_headers_complete(self) -> None:
        """Stop waiting."""
        self._in_headers = False
        self._header_bytes = 0
        self._stop_waiting()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Expect the next request's headers; how long the line may idle is uvicorn's business."""
        super().on_message_complete()
        self._in_headers = True

    def connection_lost(self, exc: Exception | None) -> None:
        """Drop the timer."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _expect_headers(self) -> None:
        self._patience = self.loop.call_later(self.headers_s, self._hang_up)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _hang_up(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()


@final
class Listener(uvicorn.Server):
    """uvicorn, told by the service when to stop instead of by signals."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.finished = asyncio.Event()

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until `should_exit`, then close every connection."""
        try:
            await super().serve(sockets)
        finally:
            self.finished.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the service."""
        yield


def make_listener(app: App, config: GatewayConfig) -> Listener:
    """Return a server for the application; `serve(sockets=[…])` runs it until `should_exit`."""
    return Listener(
        uvicorn.Config(
            app,
            loop="none",
            http=type("Protocol", (BoundedProtocol,), {"headers_s": config.headers_s}),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            backlog=BACKLOG,
            timeout_keep_alive=int(config.idle_s),
            timeout_graceful_shutdown=max(1, int(config.drain_grace_s)),
        )
    )
