"""Fetches what a request names by address, within limits of bytes, time and place.

It answers a stranger's wish from inside our network, so it trusts neither the wish nor the answer:
https on its own port, no credentials, cookies or proxies; every hop is read and checked anew; the
kind of a file is what its bytes say. No error and no log says anything of an address.
"""

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, final
from weakref import WeakValueDictionary

import certifi
import httpcore
from darkbloom_edge.dialects.media import RemoteMedia
from darkbloom_edge.errors import MalformedError
from darkbloom_edge.media import MAX_FILE_BYTES, MAX_TOTAL_BYTES, part_of

from darkbloom_gateway.errors import ApiError, bad_request, overloaded
from darkbloom_gateway.media.addresses import (
    Network,
    Target,
    UnusableUrlError,
    is_blocked,
    redirected,
    target_of,
)
from darkbloom_gateway.media.network import (
    NotPublicError,
    PublicNetwork,
    Resolver,
    TooManyNamesError,
)

MAX_FETCHES: Final = 32
"""At a time, in one process."""
MAX_ACCOUNT_FETCHES: Final = 4
"""Of them, for one account: whoever names slow servers waits for himself."""
MAX_NAMES: Final = 64
"""Looked up at a time: more than fetches, because a lookup may outlive the fetch it was for."""
FILE_S: Final = 15.0
TOTAL_S: Final = 25.0
"""For one file, and for all of a request."""
MAX_REDIRECTS: Final = 3
_STEP_S: Final = 5.0
"""To connect, to write, and between two pieces of an answer."""
_TIMEOUTS: Final = {"connect": _STEP_S, "read": _STEP_S, "write": _STEP_S, "pool": _STEP_S}
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_OK: Final = 200
_FAULTS: Final = (
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.TimeoutException,
    httpcore.UnsupportedProtocol,
)


@final
class Fetcher:
    """Turns addresses into parts of messages.

    Args:
        network: opens connections to public addresses only.
        enabled: whether anything is fetched.
        blocked: hosts that are not asked, with all below them.
        trust: roots of servers; None takes those of the web.
        places: files at a time.
        share: of them, for one account.
        file_s: seconds for one file, and for a place before.
        total_s: seconds for all files of a request.
    """

    def __init__(
        self,
        network: PublicNetwork,
        *,
        enabled: bool,
        blocked: frozenset[str] = frozenset(),
        trust: ssl.SSLContext | None = None,
        places: int = MAX_FETCHES,
        share: int = MAX_ACCOUNT_FETCHES,
        file_s: float = FILE_S,
        total_s: float = TOTAL_S,
    ) -> None:
        # It would log hosts and headers.
        logging.getLogger("httpcore").setLevel(logging.WARNING)
        self.enabled = enabled
        self.network = network
        self.trust = trust
        self._blocked = blocked
        self._places = asyncio.Semaphore(places)
        self._share = share
        # An account is known while one of its fetches runs.
        self._shares = WeakValueDictionary[str, asyncio.Semaphore]()
        self._file_s = file_s
        self._total_s = total_s

    async def fetch(
        self, wanted: Sequence[RemoteMedia], account_id: str
    ) -> list[Mapping[str, Any]]:
        """Return a part for each address, in their order.

        Args:
            wanted: the addresses.
            account_id: for whom.

        Raises:
            ApiError: 400 naming the field at fault; 503 where too many wait.
        """
        share = self._shares.setdefault(account_id, asyncio.Semaphore(self._share))
        # In a task of its own: until 3.11.4 a group that fails leaves its task half cancelled, and
        # no later timeout of the request would be told from a cancel.
        return await asyncio.create_task(self._together(wanted, share), name="media.all")

    async def _together(
        self, wanted: Sequence[RemoteMedia], share: asyncio.Semaphore
    ) -> list[Mapping[str, Any]]:
        budget = Budget(MAX_TOTAL_BYTES)
        try:
            async with asyncio.timeout(self._total_s), asyncio.TaskGroup() as tasks:
                running = [
                    tasks.create_task(self._in_turn(one, budget, share), name="media")
                    for one in wanted
                ]
        except TimeoutError:
            raise _late(wanted[0].param) from None
        except ExceptionGroup as group:
            raise _first(group) from None
        return [task.result() for task in running]

    async def _in_turn(
        self, wanted: RemoteMedia, budget: "Budget", share: asyncio.Semaphore
    ) -> Mapping[str, Any]:
        """Fetch once the account, and then everybody together, have a place."""
        # The time for all files bounds the wait for one's own.
        async with share:
            try:
                async with asyncio.timeout(self._file_s):
                    await self._places.acquire()
            except TimeoutError:
                raise overloaded() from None
            try:
                return await self._fetch(wanted, budget)
            finally:
                self._places.release()

    async def _fetch(self, wanted: RemoteMedia, budget: "Budget") -> Mapping[str, Any]:
        param = wanted.param
        try:
            async with asyncio.timeout(self._file_s):
                data = await self._follow(target_of(wanted.url), budget)
            return await asyncio.to_thread(part_of, data, wanted.kind)
        except MalformedError as error:
            raise bad_request(f"{param} {error.what}", param=param) from None
        except (UnusableUrlError, NotPublicError):
            raise bad_request(f"{param} is at a place that is not asked", param=param) from None
        except TooLargeError:
            raise bad_request(
                f"{param} is larger than {MAX_FILE_BYTES} bytes, or all media than"
                f" {MAX_TOTAL_BYTES}",
                param=param,
            ) from None
        except TimeoutError:
            raise _late(param) from None
        except TooManyNamesError:
            raise overloaded() from None
        except (NoFileError, *_FAULTS):
            raise bad_request(f"{param} could not be fetched", param=param) from None

    async def _follow(self, target: Target, budget: "Budget") -> bytes:
        for _ in range(MAX_REDIRECTS + 1):
            if is_blocked(target.host, self._blocked):
                raise UnusableUrlError
            found = await self._get(target, budget)
            if isinstance(found, bytes):
                return found
            target = found
        raise NoFileError

    async def _get(self, target: Target, budget: "Budget") -> bytes | Target:
        """Ask once, on a connection of its own; return the file, or where it is instead."""
        if self.trust is None:
            self.trust = await asyncio.to_thread(_roots)
        request = httpcore.Request(
            "GET",
            target.url,
            headers=[
                ("host", target.bracketed),
                ("accept", "image/*, video/*"),
                ("accept-encoding", "identity"),
                ("user-agent", "darkbloom-media"),
            ],
            extensions={"timeout": _TIMEOUTS},
        )
        async with httpcore.AsyncConnectionPool(
            ssl_context=self.trust, network_backend=self.network, max_keepalive_connections=0
        ) as pool:
            response = await pool.handle_async_request(request)
            try:
                headers = {name.lower(): value for name, value in response.headers}
                if response.status in _REDIRECTS:
                    return redirected(target, headers.get(b"location", b"").decode("latin-1"))
                if response.status != _OK or headers.get(b"content-encoding", b"") not in _PLAIN:
                    raise NoFileError
                return await _read(response, headers, budget)
            finally:
                await response.aclose()


def make_fetcher(
    on_close: Callable[[Callable[[], Awaitable[object]]], None],
    *,
    enabled: bool,
    blocked: frozenset[str],
    ours: Sequence[Network],
) -> Fetcher:
    """Return a fetcher on the internet as it is.

    Args:
        on_close: is given what ends it.
        enabled: as `Fetcher`.
        blocked: as `Fetcher`.
        ours: networks that are not asked although they are public.
    """
    resolver = Resolver(MAX_NAMES)
    on_close(resolver.close)
    return Fetcher(PublicNetwork(resolver, blocked=ours), enabled=enabled, blocked=blocked)


class Budget:
    """Bytes that all files of one request may still have."""

    def __init__(self, size: int) -> None:
        self._left = size

    def take(self, size: int) -> None:
        """Take some.

        Raises:
            TooLargeError: they are not there.
        """
        self._left -= size
        if self._left < 0:
            raise TooLargeError


class NoFileError(Exception):
    """The server answered with something else."""


class TooLargeError(Exception):
    """There are more bytes than may be."""


_PLAIN: Final = frozenset({b"", b"identity"})


async def _read(
    response: httpcore.Response, headers: Mapping[bytes, bytes], budget: Budget
) -> bytes:
    said = headers.get(b"content-length", b"")
    if said.isdigit() and int(said) > MAX_FILE_BYTES:
        raise TooLargeError
    parts: list[bytes] = []
    size = 0
    async for part in response.aiter_stream():
        size += len(part)
        budget.take(len(part))
        if size > MAX_FILE_BYTES:
            raise TooLargeError
        parts.append(part)
    return b"".join(parts)


def _roots() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=certifi.where())


def _late(param: str) -> ApiError:
    return bad_request(f"{param} could not be fetched in time", param=param)


def _first(group: ExceptionGroup[Exception]) -> Exception:
    """Return the first fault; a refusal of the request before one of ours."""
    told = [error for error in group.exceptions if isinstance(error, ApiError)]
    return told[0] if told else group.exceptions[0]
