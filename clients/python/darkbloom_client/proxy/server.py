"""Opens the proxy's port on this machine, and serves until a signal."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Iterator
from typing import Any, Final, final

import uvicorn

from darkbloom_client.loopback import is_loopback
from darkbloom_client.proxy.errors import ProxyError

BACKLOG: Final = 128
MAX_CONNECTIONS: Final = 256
IDLE_S: Final = 30
GRACE_S: Final = 5


def bind(host: str, port: int, *, allow_remote: bool) -> socket.socket:
    """Bind the address.

    Raises:
        ProxyError: it is taken, not ours, or can be reached by others without `allow_remote`.
    """
    if not is_loopback(host) and not allow_remote:
        raise ProxyError(
            f"{host} can be reached by others, and prompts between them and this proxy are "
            "plaintext",
            "leave out --host, or say --allow-remote if that is meant",
        )
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise ProxyError(
            f"cannot listen on {host}:{port} ({error.strerror or error})",
            "choose another --port, or end what listens there",
        ) from None

    return listener


def base_url(listener: socket.socket) -> str:
    """Return what to give to a tool."""
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host

    return f"http://{shown}:{port}/v1"


def make_server(app: Any) -> uvicorn.Server:
    """Return a server that writes no access log: paths and queries are the caller's."""
    return _Server(
        uvicorn.Config(
            app,
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            backlog=BACKLOG,
            limit_concurrency=MAX_CONNECTIONS,
            timeout_keep_alive=IDLE_S,
            timeout_graceful_shutdown=GRACE_S,
        )
    )


@final
class _Server(uvicorn.Server):
    """Ends when it is told to, and then says so: uvicorn would die of the signal in the end."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)
