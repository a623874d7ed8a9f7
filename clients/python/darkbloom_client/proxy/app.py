"""The proxy as one raw ASGI application: local plaintext in, sealed requests out."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias, final

import httpx
import orjson
from darkbloom_edge.dialects.chat import MAX_BODY_BYTES

from darkbloom_client.proxy.guard import Guard
from darkbloom_client.shapes import own_error
from darkbloom_client.steps import Headers

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]

BODY_S = 60.0
"""How long a local program may take for its body."""
STALL_S = 60.0
"""How long a local program may leave an answer unread."""
_HOP = frozenset(
    {"connection", "keep-alive", "transfer-encoding", "content-length", "te", "trailer", "upgrade"}
)
_KEPT = frozenset(
    {
        "accept",
        "content-type",
        "x-request-id",
        "x-darkbloom-route",
        "x-darkbloom-machine",
        "anthropic-version",
    }
)
_OPEN = frozenset({"/", "/health"})


class _GoneError(Exception):
    """Whoever asked has left."""


@final
class ProxyApp:
    """Answers local programs through one transport.

    Args:
        transport: seals.
        upstream: the gateway's URL, without `/v1`.
        api_key: goes to the gateway, and to nobody else.
        guard: who may ask.
        about: shown at `/`.
    """

    def __init__(
        self,
        transport: httpx.AsyncBaseTransport,
        *,
        upstream: str,
        api_key: str,
        guard: Guard,
        about: dict[str, Any],
    ) -> None:
        self._transport = transport
        self._upstream = httpx.URL(upstream)
        self._prefix = self._upstream.raw_path.partition(b"?")[0].rstrip(b"/")
        self._api_key = api_key
        self._guard = guard
        self._about = orjson.dumps(about)

    def __repr__(self) -> str:
        return "ProxyApp(<redacted>)"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; whoever leaves ends it at the provider too."""
        if scope["type"] != "http":
            return
        try:
            is_open = scope["path"] in _OPEN and scope["method"] in ("GET", "HEAD")
            # What is open to every program of this machine is not open to pages of other sites.
            refused = self._guard.stranger(scope) if is_open else self._guard.refuses(scope)
            if refused is not None:
                await _send_error(send, scope, 401, refused, "authentication_error")
            elif is_open:
                await _send(send, 200, [("content-type", "application/json")], self._about)
            else:
                await self._forward(scope, receive, send)
        except (_GoneError, TimeoutError):
            return

    async def _forward(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with asyncio.timeout(BODY_S):
                body = await _body(receive)
        except TimeoutError:
            await _send_error(send, scope, 408, "the body came too slowly", _BAD)
            return
        if body is None:
            text = f"body is larger than {MAX_BODY_BYTES} bytes"
            await _send_error(send, scope, 413, text, _BAD)
            return
        answering = asyncio.ensure_future(self._answer(scope, body, send))
        leaving = asyncio.ensure_future(_left(receive))
        try:
            await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            answering.cancel()
            leaving.cancel()
            await asyncio.gather(answering, leaving, return_exceptions=True)
        if not answering.cancelled():
            answering.result()

    async def _answer(self, scope: Scope, body: bytes, send: Send) -> None:
        try:
            response = await self._transport.handle_async_request(self._request(scope, body))
        except httpx.InvalidURL:
            await _send_error(send, scope, 400, "the target of the request is no path", _BAD)
            return
        except httpx.TransportError as error:
            text = f"the gateway does not answer ({type(error).__name__})"
            await _send_error(send, scope, 502, text, "provider_error")
            return
        begun = False
        try:
            headers = [(k.lower(), v) for k, v in response.headers.items() if k.lower() not in _HOP]
            await _start(send, response.status_code, headers)
            begun = True
            # Not `aiter_raw`, which has nothing to give of a refusal that was made here.
            pieces: Any = response.stream
            async for piece in pieces:
                await _more(send, piece, more=True)
            await _more(send, b"", more=False)
        except httpx.TransportError:
            if not begun:
                raise
            # Passed through as it came: without its end, so that nobody takes it for whole.
        finally:
            await response.aclose()

    def _request(self, scope: Scope, body: bytes) -> httpx.Request:
        """Make the request to the gateway: whatever the target says, to no other host.

        Raises:
            httpx.InvalidURL: the target is not a path.
        """
        target, query = scope["raw_path"], scope["query_string"]
        if not target.startswith(b"/"):
            raise httpx.InvalidURL("not a path")
        url = self._upstream.copy_with(
            raw_path=self._prefix + target + (b"?" + query if query else b"")
        )
        given = [(k.decode("latin-1"), v.decode("latin-1")) for k, v in scope["headers"]]
        headers = [(name, value) for name, value in given if name in _KEPT]
        headers.append(("authorization", f"Bearer {self._api_key}"))

        return httpx.Request(scope["method"], url, headers=headers, content=body or None)


_BAD = "invalid_request_error"


async def _body(receive: Receive) -> bytes | None:
    """Read a body; None where it is too large."""
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _GoneError
        part = message.get("body", b"")
        size += len(part)
        if size > MAX_BODY_BYTES:
            return None
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _start(send: Send, status: int, headers: Headers) -> None:
    encoded = [(k.encode("latin-1"), v.encode("latin-1")) for k, v in headers]
    await send({"type": "http.response.start", "status": status, "headers": encoded})


async def _more(send: Send, data: bytes, *, more: bool) -> None:
    async with asyncio.timeout(STALL_S):
        await send({"type": "http.response.body", "body": data, "more_body": more})


async def _send(send: Send, status: int, headers: Headers, content: bytes) -> None:
    await _start(send, status, [*headers, ("content-length", str(len(content)))])
    await _more(send, content, more=False)


async def _send_error(send: Send, scope: Scope, status: int, message: str, kind: str) -> None:
    said = own_error(scope["path"], status, message, kind=kind, code=kind)
    await _send(send, *said)
