"""The outermost ASGI layer: request id, CORS, panic recovery, request metrics.

Pure functions around `send`; nothing is buffered, so the token path pays for one wrapper only.
"""

import re
import time
from collections.abc import Callable, Mapping
from typing import final

import structlog
from darkbloom_mesh.context import set_request_id

from darkbloom_gateway.arrivals import Arrivals
from darkbloom_gateway.connection import MAX_BODY_BYTES
from darkbloom_gateway.envelopes import speaks_anthropic
from darkbloom_gateway.errors import ApiError, body_too_large, internal, rate_limited
from darkbloom_gateway.meters import Meters
from darkbloom_gateway.spans import EXEMPLAR
from darkbloom_gateway.wire import (
    App,
    Message,
    Receive,
    Scope,
    Send,
    forwarded_for,
    header,
    request_id,
    send_error,
)

_METHODS = b"GET, POST, PUT, PATCH, DELETE, OPTIONS"
_ALLOWED = (
    b"Authorization, Content-Type, X-Request-ID, X-Api-Key, Anthropic-Version, Anthropic-Beta, "
    b"Anthropic-Dangerous-Direct-Browser-Access, "
    b"X-Darkbloom-Early-Commit, X-Darkbloom-Metadata-Details, "
    b"X-Darkbloom-Receipt, X-Darkbloom-Receipt-Nonce, X-Darkbloom-Route, X-Darkbloom-Machine, "
    b"X-Darkbloom-Offer"
)
_EXPOSED = (
    b"X-Request-ID, Request-ID, X-Inference-Job-ID, X-Provider-Id, X-Provider-Attested, "
    b"X-Provider-Trust-Level, X-Provider-Encrypted, X-Provider-Scripted, X-Timing, "
    b"X-Provider-Chip, X-Provider-Model, X-Provider-Secure-Enclave, X-Provider-Mda-Verified, "
    b"X-Attestation-Se-Public-Key, X-Eigen-Sealed, X-Eigen-Sealed-Kid, X-Darkbloom-Sealed, "
    b"X-Darkbloom-Sealed-Kid, X-Darkbloom-Retry, "
    b"X-Darkbloom-Receipt-Job-ID, X-Darkbloom-Receipt-Hash, X-Hold-Micro-USD, Retry-After, "
    b"X-RateLimit-Reset, "
    + b", ".join(
        b"X-RateLimit-%b-%b" % (word, what)
        for what in (b"Requests", b"Input-Tokens", b"Output-Tokens")
        for word in (b"Limit", b"Remaining", b"Reset")
    )
)
_LOCAL_ORIGIN = re.compile(rb"https?://(localhost|127\.0\.0\.1|\[::1\])(:[0-9]{1,5})?")
PROBES = frozenset({"/health", "/readyz"})
_VARY = (b"vary", b"Origin")
_UNAUTHENTICATED = 401
_KNOWN_METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"})
_MODELS = "/v1/models/"
_log = structlog.get_logger()


@final
class Shell:
    """Wraps the whole application.

    Args:
        app: everything inside.
        hot: endpoints by method and path that are called without the framework's own layers,
            which have nothing to do on the token path and sit in each of its sends.
        routes: paths that metrics may name; all others count as `other`.
        cors_origin: the one origin of browsers; empty allows local development ones.
        arrivals: counts requests by network, before any credential is read.
        meters: counters.
        entropy: for request ids.
    """

    def __init__(
        self,
        app: App,
        *,
        hot: Mapping[tuple[str, str], App],
        routes: frozenset[str],
        cors_origin: str,
        arrivals: Arrivals,
        meters: Meters,
        entropy: Callable[[int], bytes],
    ) -> None:
        self._app = app
        self._hot = hot
        self._routes = routes
        self._cors_origin = cors_origin.rstrip("/").encode()
        self._arrivals = arrivals
        self._meters = meters
        self._entropy = entropy

    @property
    def inference_routes(self) -> frozenset[tuple[str, str]]:
        """Method and path of every endpoint on the token path."""
        return frozenset(self._hot)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return
        started_at = time.perf_counter()
        name = request_id(scope, self._entropy)
        set_request_id(name.decode("ascii"))
        extra = [(b"x-request-id", name), *self._cors(scope)]
        if speaks_anthropic(scope["path"]):
            extra.append((b"request-id", name))
        status, complete = 0, False

        async def send_with_headers(message: Message) -> None:
            nonlocal status, complete
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *extra]
            else:
                complete = not message.get("more_body", False)
            await send(message)

        try:
            await self._serve(scope, receive, send_with_headers)
        except Exception as error:
            _log.error("request_failed", route=self._route(scope), exc_info=error)
            if status and not complete:
                # Headers are out: all that is left is to cut the stream.
                raise
            if not status:
                await send_error(send_with_headers, internal(), path=scope["path"])
        finally:
            self._note(scope, status, time.perf_counter() - started_at)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._hot.get((scope["method"], scope["path"]), self._app)
        refusal = self._refusal(scope, read=app is not self._app)
        if refusal is not None:
            await send_error(send, refusal, path=scope["path"])
        elif scope["method"] == "OPTIONS":
            await _no_content(send)
        else:
            await app(scope, receive, send)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        """Count what has ended; a status of 0 is a caller who left."""
        method = scope["method"] if scope["method"] in _KNOWN_METHODS else "other"
        exemplar = scope.get(EXEMPLAR)
        self._meters.http(method, self._route(scope), status or 499, seconds, exemplar)
        if status == _UNAUTHENTICATED:
            self._arrivals.guessed(*_whence(scope))

    def _refusal(self, scope: Scope, *, read: bool) -> ApiError | None:
        """Return why a request is not even looked at; `read`: its route bounds its body itself."""
        wait_s = 0 if scope["path"] in PROBES else self._arrivals.come(*_whence(scope))
        if wait_s:
            self._meters.rate_limited("", "network")
            return rate_limited(wait_s)
        if not read and _says_too_much(scope):
            return body_too_large(MAX_BODY_BYTES)
        return None

    def _route(self, scope: Scope) -> str:
        path = scope["path"]
        if path in self._routes:
            return str(path)
        return f"{_MODELS}{{id}}" if path.startswith(_MODELS) else "other"

    def _cors(self, scope: Scope) -> list[tuple[bytes, bytes]]:
        origin = header(scope, b"origin")
        if origin is None or not self._may_call(origin):
            # Also this answer must not be kept for a page that may read it, or the other way round.
            return [_VARY]
        headers = [
            (b"access-control-allow-origin", origin),
            (b"access-control-allow-credentials", b"true"),
            (b"access-control-expose-headers", _EXPOSED),
            _VARY,
        ]
        if scope["method"] == "OPTIONS":
            headers += [
                (b"access-control-allow-methods", _METHODS),
                (b"access-control-allow-headers", _ALLOWED),
                (b"access-control-max-age", b"600"),
            ]
        return headers

    def _may_call(self, origin: bytes) -> bool:
        if self._cors_origin:
            return origin == self._cors_origin
        return _LOCAL_ORIGIN.fullmatch(origin) is not None


def _whence(scope: Scope) -> tuple[str, str | None]:
    """Return the other end's address and `X-Forwarded-For`."""
    client = scope.get("client")
    return client[0] if client else "", forwarded_for(scope)


def _says_too_much(scope: Scope) -> bool:
    said = header(scope, b"content-length")
    return said is not None and said.isdigit() and int(said) > MAX_BODY_BYTES


async def _no_content(send: Send) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b"", "more_body": False})
