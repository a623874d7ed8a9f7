"""Sealed requests (docs/sealed.md): one layer around every inference route.

    hot = {("POST", CHAT_PATH): sealed(chat), …}

A sealed body is opened before the handler sees it, and whatever the handler says afterwards leaves
sealed, errors as well. The opened body lives in memory only, for as long as the handler keeps it.
"""

import asyncio
from collections.abc import Callable
from typing import final

import structlog
from darkbloom_edge.sealed_request import (
    FRAMED_TYPE,
    PLAIN_TYPE,
    Asked,
    OpenedRequest,
    SealedError,
    SealedFault,
    open_request,
    read_envelope,
    unpack,
)

from darkbloom_gateway import errors
from darkbloom_gateway.auth import Authenticator
from darkbloom_gateway.errors import ApiError, ClientGoneError, internal
from darkbloom_gateway.gate import Gate
from darkbloom_gateway.meters import Meters
from darkbloom_gateway.prompt import THREAD_BYTES
from darkbloom_gateway.replays import Replays
from darkbloom_gateway.sealed_answer import SealedSend
from darkbloom_gateway.sealing_ring import SealingRing
from darkbloom_gateway.stage import Stage
from darkbloom_gateway.wire import (
    SEALED,
    App,
    Message,
    Receive,
    Scope,
    Send,
    header,
    presented,
    read_body,
    send_error,
)

"""Key in the scope of a request that was opened: nothing that it names may be fetched from here."""
_TYPES = frozenset({PLAIN_TYPE, FRAMED_TYPE})
_GONE = 499
_log = structlog.get_logger()


@final
class SealedRequests:
    """Makes layers around handlers; see the module.

    Args:
        stage: configuration, clock and meters.
        authenticator: who asks; a stranger's envelope is not opened.
        gate: counts what is in flight.
        ring: keys.
        replays: what came before.
        entropy: for nonces.
    """

    def __init__(
        self,
        stage: Stage,
        authenticator: Authenticator,
        gate: Gate,
        *,
        ring: SealingRing,
        replays: Replays,
        entropy: Callable[[int], bytes],
    ) -> None:
        self._config = stage.config
        self._clock = stage.clock
        self._meters: Meters = stage.meters
        self._authenticator = authenticator
        self._gate = gate
        self._ring = ring
        self._replays = replays
        self._entropy = entropy

    def __call__(self, app: App) -> App:
        """Return the handler with the layer around it."""
        return _Layer(self, app)

    async def serve(
        self, app: App, media_type: bytes, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Open one request, let the handler answer, and seal what it says."""
        try:
            with self._gate.entered():
                kid, opened = await self._open(media_type, scope, receive)
        except ClientGoneError:
            self._meters.client_gone("unknown", committed=False)
            self._meters.outcome("unknown", _GONE)
            return
        except ApiError as error:
            self._meters.outcome("unknown", error.http_status)
            # Nothing was opened, so there is nobody to seal to.
            await self._refuse(send, error, scope["path"])
            return

        self._meters.sealed("opened")
        outward = SealedSend(
            send, opened.answer, kid=kid, media_type=media_type, path=scope["path"]
        )
        inner, inward = _plain(scope, opened.body), _receive(opened.body, receive)
        # The handler drops the prompt once its answer begins; nothing here may keep it.
        del opened
        try:
            await app(inner, inward, outward)
        except Exception as error:
            if outward.started:
                raise
            _log.error("request_failed", exc_info=error)
            await self._refuse(outward, internal(), scope["path"])

    async def _open(
        self, media_type: bytes, scope: Scope, receive: Receive
    ) -> tuple[str, OpenedRequest]:
        authorization = presented(scope)
        await self._authenticator.authenticate(authorization)
        if self._ring.off:
            self._meters.sealed("off")
            raise errors.encryption_unavailable()
        body = await self._read(scope, receive)
        asked = None
        if media_type == FRAMED_TYPE:
            credential = (authorization or b"").partition(b" ")[2].strip()
            now_ms = int(self._clock.now().timestamp() * 1000)
            asked = Asked(f"{scope['method']} {scope['path']}", credential, now_ms)
        try:
            if len(body) > THREAD_BYTES:
                kid, opened = await asyncio.to_thread(self._unseal, body, asked)
            else:
                kid, opened = self._unseal(body, asked)
        except SealedError as error:
            self._meters.sealed(error.fault.value)
            refusal = _ERRORS[error.fault]
            raise refusal() from None
        if not await self._replays.first(opened.mark):
            self._meters.sealed("replayed")
            raise errors.envelope_replayed()
        return kid, opened

    def _unseal(self, body: bytes, asked: Asked | None) -> tuple[str, OpenedRequest]:
        envelope = read_envelope(body)
        key = self._ring.accepted(envelope.kid)
        if key is None:
            raise SealedError(SealedFault.UNKNOWN_KEY)
        return key.kid, open_request(unpack(envelope), key.pair, asked, self._entropy)

    async def _read(self, scope: Scope, receive: Receive) -> bytes:
        """Read the envelope; whatever is wrong with its bytes is one error."""
        config = self._config
        try:
            return await read_body(
                scope, receive, limit=config.max_body_bytes, idle_s=config.body_idle_s
            )
        except ApiError as error:
            self._meters.sealed("unreadable")
            raise errors.envelope_unreadable(error) from None

    async def _refuse(self, send: Send, error: ApiError, path: str) -> None:
        try:
            async with asyncio.timeout(self._config.send_stall_s):
                await send_error(send, error, path=path)
        except TimeoutError:
            return


@final
class _Layer:
    """A handler with the layer around it; an instance, which is an ASGI application to all."""

    def __init__(self, requests: SealedRequests, app: App) -> None:
        self._requests = requests
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        media_type = sealed_type(scope)
        if media_type is None:
            await self._app(scope, receive, send)
        else:
            await self._requests.serve(self._app, media_type, scope, receive, send)


def sealed_type(scope: Scope) -> bytes | None:
    """Return the media type that makes this request a sealed one; its parameters do not matter."""
    given = (header(scope, b"content-type") or b"").partition(b";")[0].strip().lower()
    return given if given in _TYPES else None


def _plain(scope: Scope, body: bytes) -> Scope:
    """Return the scope as a handler of plaintext expects it."""
    replaced = (b"content-type", b"content-length", b"transfer-encoding")
    headers = [pair for pair in scope["headers"] if pair[0] not in replaced]
    headers += [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    return {**scope, "headers": headers, SEALED: True}


def _receive(body: bytes, receive: Receive) -> Receive:
    """Hand out the opened body once, and then what the connection says."""
    waiting = [body]

    async def next_message() -> Message:
        if waiting:
            return {"type": "http.request", "body": waiting.pop(), "more_body": False}
        return await receive()

    return next_message


_ERRORS: dict[SealedFault, Callable[[], ApiError]] = {
    SealedFault.MALFORMED: errors.envelope_invalid,
    SealedFault.UNKNOWN_KEY: errors.kid_mismatch,
    SealedFault.NOT_OPENABLE: errors.decryption_failed,
    SealedFault.WRONG_HEADER: errors.envelope_misdirected,
    SealedFault.STALE: errors.envelope_stale,
}
