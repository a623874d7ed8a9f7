"""The public listener: uvicorn over bounded connections, inside our own lifecycle."""

import asyncio
import contextlib
import secrets
import socket
from collections.abc import Iterator
from typing import final

import uvicorn

from darkbloom_gateway.arrivals import Lines
from darkbloom_gateway.config import GatewayConfig
from darkbloom_gateway.connection import BoundedProtocol, Manners
from darkbloom_gateway.wire import App

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
    manners = Manners(
        headers_s=config.headers_s,
        body_idle_s=config.body_idle_s,
        stall_s=config.send_stall_s,
        entropy=secrets.token_bytes,
        lines=Lines(config.max_connections, config.max_network_connections, config.proxies),
    )
    return Listener(
        uvicorn.Config(
            app,
            loop="none",
            http=type("Protocol", (BoundedProtocol,), {"manners": manners}),
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
