"""Connections to public addresses only: a name is resolved once, and what was checked is called."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeAlias, final

from httpcore import (
    SOCKET_OPTION,
    AnyIOBackend,
    AsyncNetworkBackend,
    AsyncNetworkStream,
    ConnectError,
    ConnectTimeout,
)

from darkbloom_gateway.media.addresses import is_public

MAX_TRIES: Final = 3
"""Addresses of one name that are tried."""

Resolve: TypeAlias = Callable[[str], Awaitable[Sequence[str]]]


class NotPublicError(Exception):
    """A name leads, or may lead, to something that is not on the public internet."""


@final
class Resolver:
    """Asks the system for addresses, in threads of its own: a slow name holds up nothing else.

    Args:
        threads: most names at a time.
    """

    def __init__(self, threads: int) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="media-names")

    async def __call__(self, host: str) -> Sequence[str]:
        """Return the addresses of a name.

        Raises:
            OSError: it has none.
        """
        found = await asyncio.get_running_loop().run_in_executor(self._threads, _addresses, host)
        return list(dict.fromkeys(found))

    async def close(self) -> None:
        """Let the threads end."""
        self._threads.shutdown(wait=False, cancel_futures=True)


@final
class PublicNetwork(AsyncNetworkBackend):
    """What the HTTP client opens connections with.

    Invariant: the address that is called is one that was checked; nobody resolves a second time.

    Args:
        resolve: from a name to addresses.
        wire: opens connections to addresses.
    """

    def __init__(self, resolve: Resolve, wire: AsyncNetworkBackend | None = None) -> None:
        self._resolve = resolve
        self._wire = wire or AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the client's own signature
        local_address: str | None = None,
        socket_options: Iterable[SOCKET_OPTION] | None = None,
    ) -> AsyncNetworkStream:
        """Connect to a name.

        Raises:
            NotPublicError: one of its addresses is not of the public internet.
            ConnectError: it has no address, or nobody answers.
        """
        try:
            addresses = await self._resolve(host)
        except OSError:
            raise ConnectError from None
        # One that is not public is reason enough: the name is made to lead us there some time.
        if not all(map(is_public, addresses)):
            raise NotPublicError
        for address in addresses[:MAX_TRIES]:
            try:
                return await self._wire.connect_tcp(
                    address, port, timeout, local_address, socket_options
                )
            except (ConnectError, ConnectTimeout):
                continue
        raise ConnectError


def _addresses(host: str) -> list[str]:
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return [str(row[4][0]) for row in found]
