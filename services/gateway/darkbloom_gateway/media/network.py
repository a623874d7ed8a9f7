"""Connections to public addresses only: a name is resolved once, and what was checked is called."""

import asyncio
import socket
import threading
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

from darkbloom_gateway.media.addresses import Network, is_public

MAX_TRIES: Final = 3
"""Addresses of one name that are tried."""

Resolve: TypeAlias = Callable[[str], Awaitable[Sequence[str]]]


class NotPublicError(Exception):
    """A name leads, or may lead, to something that is not on the public internet."""


class TooManyNamesError(Exception):
    """As many names are being looked up as may be; another one would wait for who knows what."""


@final
class Resolver:
    """Asks the system for addresses, in threads of its own: a slow name holds up nothing else.

    A thread cannot be called back, so one that asks a silent server counts until it gives up, also
    where nobody waits for its answer any more. Nothing waits for a thread.

    Args:
        threads: most names at a time.
        look_up: asks for one name, and may block.
    """

    def __init__(self, threads: int, look_up: Callable[[str], list[str]] | None = None) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="media-names")
        self._free = threading.Semaphore(threads)
        self._look_up = look_up or _addresses

    async def __call__(self, host: str) -> Sequence[str]:
        """Return the addresses of a name.

        Raises:
            OSError: it has none.
            TooManyNamesError: no thread is free.
        """
        if not self._free.acquire(blocking=False):
            raise TooManyNamesError
        job = self._threads.submit(self._look_up, host)
        job.add_done_callback(lambda _: self._free.release())
        found = await asyncio.wrap_future(job)
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
        blocked: networks that count as ours although they are public.
    """

    def __init__(
        self,
        resolve: Resolve,
        wire: AsyncNetworkBackend | None = None,
        *,
        blocked: Sequence[Network] = (),
    ) -> None:
        self._resolve = resolve
        self._wire = wire or AnyIOBackend()
        self._blocked = blocked

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
            TooManyNamesError: as `Resolver`.
        """
        try:
            addresses = await self._resolve(host)
        except OSError:
            raise ConnectError from None
        # One that is not public is reason enough: the name is made to lead us there some time.
        if not all(is_public(address, self._blocked) for address in addresses):
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
