"""`httpx` and `httpx2` are one interface under two names; SDKs use the one or the other.

A transport answers in the flavour in which it is asked. Neither SDKs nor we have to be told.
"""

import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, final


@final
class Flavour:
    """The classes of one of the two libraries, as found in the class of a request."""

    def __init__(self, request: Any) -> None:
        module = _module(request)
        self.request: Any = module.Request
        self.response: Any = module.Response
        self.transport_error: Any = module.TransportError
        # Their clients take only bodies of their own classes.
        self.sync_stream: Any = type("SyncPieces", (_SyncPieces, module.SyncByteStream), {})
        self.async_stream: Any = type("AsyncPieces", (_AsyncPieces, module.AsyncByteStream), {})

    @staticmethod
    def name_of(request: Any) -> str:
        """Return which library a request is of."""
        name: str = _module(request).__name__
        return name

    @staticmethod
    def inner(request: Any, *, asynchronous: bool) -> Any:
        """Return the library's own transport: one pool, closed by whoever asked for it."""
        module = _module(request)
        return module.AsyncHTTPTransport() if asynchronous else module.HTTPTransport()


class _SyncPieces:
    """A body that is made while it is read."""

    def __init__(self, pieces: Iterator[bytes], close: Callable[[], None]) -> None:
        self._pieces = pieces
        self._close = close

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces

    def close(self) -> None:
        """Hang up."""
        self._close()


class _AsyncPieces:
    """The same, for event loops."""

    def __init__(self, pieces: AsyncIterator[bytes], close: Callable[[], Awaitable[None]]) -> None:
        self._pieces = pieces
        self._close = close

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._pieces

    async def aclose(self) -> None:
        """Hang up."""
        await self._close()


def _module(request: Any) -> Any:
    """Return the library that a request is of, also where its class was derived from."""
    for kind in type(request).__mro__:
        name = kind.__module__.partition(".")[0]
        if name in ("httpx", "httpx2"):
            return sys.modules[name]

    raise TypeError("not a request of httpx or httpx2")
