"""Small pieces of HTTP over ASGI: headers, JSON replies, bodies with a ceiling."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, TypeAlias

from darkbloom_gateway.envelopes import error_body, speaks_anthropic
from darkbloom_gateway.errors import (
    ApiError,
    ClientGoneError,
    body_too_large,
    body_too_slow,
)

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers: TypeAlias = Iterable[tuple[bytes, bytes]]

SEALED = "darkbloom.sealed"
"""Key of a scope whose body came sealed to the gateway."""
MIN_BODY_RATE = 16 * 1024
"""Bytes per second that a body must reach after its first pause."""
_JSON = (b"content-type", b"application/json")
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_ID_ALPHABET = b"0123456789abcdefghijklmnopqrstuv"
_UNSHOWN = re.compile(r"[^ -~]")
_MAX_SHOWN = 64
_UNAUTHENTICATED = 401


def header(scope: Scope, name: bytes) -> bytes | None:
    """Return the first header of that lower-case name."""
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value)
    return None


def forwarded_for(scope: Scope) -> str | None:
    """Return `X-Forwarded-For`; a proxy may append a line of its own to what a caller sent."""
    lines = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
    return b",".join(lines).decode("latin-1") if lines else None


def presented(scope: Scope) -> bytes | None:
    """Return the credential of an inference request as an `Authorization` header.

    Anthropic's clients send theirs as `X-Api-Key`, which counts on their routes only.
    """
    authorization = header(scope, b"authorization")
    if authorization is None and speaks_anthropic(scope["path"]):
        key = header(scope, b"x-api-key")
        return b"Bearer " + key if key else None
    return authorization


def request_id(scope: Scope, entropy: Callable[[int], bytes]) -> bytes:
    """Return the caller's request id where it is well-formed, else 12 fresh characters."""
    given = header(scope, b"x-request-id")
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given
    return fresh_id(entropy)


def fresh_id(entropy: Callable[[int], bytes]) -> bytes:
    """Return a request id for who has sent none that could be echoed."""
    return bytes(_ID_ALPHABET[byte & 31] for byte in entropy(12))


def shown(text: str) -> bytes:
    """Return text of a provider as a header value: printable ASCII, short."""
    return _UNSHOWN.sub("?", text)[:_MAX_SHOWN].encode("ascii")


def error_headers(error: ApiError) -> list[tuple[bytes, bytes]]:
    """Return the headers that an error adds."""
    headers = list(error.headers)
    if error.http_status == _UNAUTHENTICATED:
        headers.append((b"www-authenticate", b"Bearer"))
    if error.retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % error.retry_after_s))
    return headers


async def send_json(send: Send, status: int, body: bytes, headers: Headers = ()) -> None:
    """Send a whole JSON response."""
    length = (b"content-length", b"%d" % len(body))
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [_JSON, length, *headers],
        }
    )
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def send_error(send: Send, error: ApiError, *, path: str = "") -> None:
    """Send an error as JSON, in the shape that callers of that path expect."""
    await send_json(send, error.http_status, error_body(error, path), error_headers(error))


async def read_body(scope: Scope, receive: Receive, *, limit: int, idle_s: float) -> bytes:
    """Read a request body.

    Args:
        scope: of the request.
        receive: of the request.
        limit: most bytes.
        idle_s: longest pause; beyond it the body must also keep up `MIN_BODY_RATE`.

    Raises:
        ApiError: 413 over the limit, 408 when it comes too slowly.
        ClientGoneError: the caller left.
    """
    said = header(scope, b"content-length")
    if said is not None and said.isdigit() and int(said) > limit:
        raise body_too_large(limit)

    loop = asyncio.get_running_loop()
    started_at = loop.time()
    parts: list[bytes] = []
    size = 0
    while True:
        give_up_at = min(loop.time() + idle_s, started_at + idle_s + size / MIN_BODY_RATE)
        try:
            async with asyncio.timeout_at(give_up_at):
                message = await receive()
        except TimeoutError:
            raise body_too_slow() from None
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        part = message.get("body", b"")
        if part:
            parts.append(part)
            size += len(part)
        if size > limit:
            raise body_too_large(limit)
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)
