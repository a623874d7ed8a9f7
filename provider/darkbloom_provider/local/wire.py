"""HTTP over ASGI, as much of it as the local endpoint needs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Final, TypeAlias

from darkbloom_edge.strict_json import json_text

from darkbloom_provider.local.errors import GoneError, LocalError

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Headers: TypeAlias = Iterable[tuple[bytes, bytes]]

BODY_S: Final = 30.0
"""Bound of the wait for the next piece of a body."""
CORS: Final = (
    (b"access-control-allow-origin", b"*"),
    (b"access-control-allow-methods", b"GET, POST, OPTIONS"),
    (b"access-control-allow-headers", b"authorization, content-type"),
    (b"access-control-max-age", b"600"),
)
"""Any page may ask; without the key it gets nothing."""
_UNAUTHENTICATED = 401
_JSON = (b"content-type", b"application/json")


def header(scope: Scope, name: bytes) -> bytes | None:
    """Return the first header of that lower-case name."""
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value)
    return None


async def read_body(scope: Scope, receive: Receive, limit: int) -> bytearray:
    """Read a body whole, into memory that its reader wipes.

    Raises:
        LocalError: too large, or it does not come.
        GoneError: whoever sent it has left.
    """
    told = header(scope, b"content-length") or b"0"
    if not told.isdigit() or int(told) > limit:
        raise _too_large(limit)
    body = bytearray()
    while True:
        try:
            async with asyncio.timeout(BODY_S):
                message = await receive()
        except TimeoutError:
            raise LocalError(
                408, "invalid_request_error", "the request body came too slowly"
            ) from None
        if message["type"] == "http.disconnect":
            raise GoneError
        body += message.get("body", b"")
        if len(body) > limit:
            raise _too_large(limit)
        if not message.get("more_body", False):
            return body


async def send_json(
    send: Send, body: bytes, status: int = 200, headers: Headers = (), *, kind: bytes | None = None
) -> None:
    """Answer in one piece."""
    content = (b"content-type", kind) if kind is not None else _JSON
    length = (b"content-length", b"%d" % len(body))
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [content, length, *headers],
        }
    )
    await send({"type": "http.response.body", "body": body})


async def send_error(send: Send, error: LocalError, headers: Headers = ()) -> None:
    """Answer with an error."""
    more = list(headers)
    if error.retry_after_s is not None:
        more.append((b"retry-after", b"%d" % error.retry_after_s))
    if error.status == _UNAUTHENTICATED:
        more.append((b"www-authenticate", b"Bearer"))
    await send_json(send, error_body(error), error.status, more)


def error_body(error: LocalError) -> bytes:
    """Return OpenAI's error object."""
    param = json_text(error.param) if error.param is not None else b"null"
    return b'{"error":{"message":%b,"type":%b,"param":%b,"code":%b}}' % (
        json_text(error.message),
        json_text(error.kind),
        param,
        json_text(error.code),
    )


def _too_large(limit: int) -> LocalError:
    return LocalError(
        413, "invalid_request_error", f"the request body is larger than {limit} bytes"
    )
