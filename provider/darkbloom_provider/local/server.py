"""Opens the local endpoint: binds, serves, publishes where, and takes that back at the end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final, final

import structlog
import uvicorn
from darkbloom_mesh.clock import Clock

from darkbloom_provider.local.app import LocalApp
from darkbloom_provider.local.errors import LocalStartError
from darkbloom_provider.local.key import LocalKey
from darkbloom_provider.local.record import LocalRecord, remove_record, write_record
from darkbloom_provider.options import LocalEndpoint

BACKLOG: Final = 128
MAX_CONNECTIONS: Final = 256
IDLE_S: Final = 30
_EVERYWHERE = frozenset({"0.0.0.0", "::", ""})

_log = structlog.get_logger()


def bind(endpoint: LocalEndpoint) -> socket.socket:
    """Bind the address.

    Raises:
        LocalStartError: it is taken or not ours, or would be open to strangers.
    """
    host = endpoint.host
    if not endpoint.authenticated and not _is_loopback(host):
        raise LocalStartError(
            f"{host} can be reached by others, so it needs its key", "leave out --no-auth"
        )
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, endpoint.port))
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise LocalStartError(
            f"local server failed to bind {host}:{endpoint.port} ({error.strerror or error})",
            "choose another --port, or end what listens there",
        ) from None
    return listener


@final
class LocalServer:
    """The endpoint on a bound socket; run it once.

    Args:
        listener: bound, see `bind`.
        app: answers.
        key: published for the owner's programs; None where none is asked for.
        record: file of the discovery record.
        clock: dates it.
        version: of the agent.
    """

    def __init__(
        self,
        listener: socket.socket,
        app: LocalApp,
        key: LocalKey | None,
        record: Path,
        clock: Clock,
        *,
        version: str,
    ) -> None:
        host, self.port = listener.getsockname()[:2]
        shown = "127.0.0.1" if host in _EVERYWHERE else host
        self.base_url = f"http://{f'[{shown}]' if ':' in shown else shown}:{self.port}/v1"
        self._host = host
        self._listener = listener
        self._key = key
        self._record = record
        self._clock = clock
        self._version = version
        self._server = _Server(
            uvicorn.Config(
                app,
                loop="none",
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
                timeout_graceful_shutdown=1,
            )
        )

    async def run(self) -> None:
        """Serve until `stop`, or until cancelled."""
        record = LocalRecord(
            base_url=self.base_url,
            api_key="" if self._key is None else self._key.reveal(),
            host=self._host,
            port=self.port,
            pid=os.getpid(),
            version=self._version,
            updated_at=self._clock.now().isoformat(),
        )
        # The socket listens already: whoever reads the record can connect.
        await asyncio.to_thread(write_record, self._record, record)
        _log.info("local_endpoint_open", base_url=self.base_url)
        try:
            await self._server.serve([self._listener])
        finally:
            self._listener.close()
            remove_record(self._record, os.getpid())

    def stop(self) -> None:
        """Answer nobody any more; connections are closed within a second."""
        self._server.should_exit = True


@final
class _Server(uvicorn.Server):
    """uvicorn, which leaves signals to the service."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _is_loopback(host: str) -> bool:
    return host in {"localhost", "::1"} or host.startswith("127.")
