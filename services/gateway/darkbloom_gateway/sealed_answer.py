"""Seals what a handler sends: a whole body at once, a stream event by event."""

from typing import final

import orjson
import structlog
from darkbloom_edge.errors import EdgeError
from darkbloom_edge.sealed_request import AnswerSealer

from darkbloom_gateway.envelopes import error_body
from darkbloom_gateway.errors import ClientGoneError, encryption_failed
from darkbloom_gateway.wire import Message, Send, send_error

_EVENT_STREAM = b"text/event-stream"
_BREAK = b"\n\n"
_COMMENT = b":"
_REPLACED = (b"content-type", b"content-length")
_log = structlog.get_logger()


@final
class SealedSend:
    """An ASGI `send` whose bodies leave sealed; status and headers stay as they are.

    Args:
        send: where sealed messages go.
        sealer: of this answer.
        kid: names the key that the request was sealed to.
        media_type: of the request, and of a whole answer.
        path: of the request.
    """

    def __init__(
        self, send: Send, sealer: AnswerSealer, *, kid: str, media_type: bytes, path: str
    ) -> None:
        self._send = send
        self._sealer = sealer
        self._kid = kid
        self._media_type = media_type
        self._path = path
        self._start: Message | None = None
        self._streams = False
        self._parts: list[bytes] = []
        self._rest = b""
        self.started = False
        """Whether anything has left."""

    async def __call__(self, message: Message) -> None:
        """Take one message of the handler."""
        if message["type"] == "http.response.start":
            await self._begin(message)
            return
        body, more = message.get("body", b""), message.get("more_body", False)
        if self._streams:
            await self._events(body, more=more)
        else:
            self._parts.append(body)
            if not more:
                await self._whole(b"".join(self._parts))

    async def _begin(self, message: Message) -> None:
        self._start, self._parts = message, []
        kept = [pair for pair in message["headers"] if pair[0] not in _REPLACED]
        kind = next((value for name, value in message["headers"] if name == _REPLACED[0]), b"")
        self._streams = kind.partition(b";")[0].strip() == _EVENT_STREAM
        name = self._kid.encode("ascii")
        message["headers"] = [
            (b"content-type", kind if self._streams else self._media_type),
            *kept,
            (b"x-eigen-sealed", b"true"),
            (b"x-eigen-sealed-kid", name),
            (b"x-darkbloom-sealed", b"true"),
            (b"x-darkbloom-sealed-kid", name),
        ]
        if self._streams:
            self.started = True
            await self._send(message)

    async def _whole(self, body: bytes) -> None:
        start = self._start
        if start is None:
            raise RuntimeError("a body came before its start")
        try:
            sealed = self._sealer.seal(body, status=start["status"], final=True)
        except EdgeError as error:
            _log.error("answer_not_sealed", reason=str(error))
            self.started = True
            await send_error(self._send, encryption_failed(), path=self._path)
            return
        content = orjson.dumps({"kid": self._kid, "ciphertext": sealed.decode("ascii")})
        start["headers"].append((b"content-length", b"%d" % len(content)))
        self.started = True
        await self._send(start)
        await self._send({"type": "http.response.body", "body": content, "more_body": False})

    async def _events(self, body: bytes, *, more: bool) -> None:
        """Seal every event that is complete, and at the end what is left."""
        *events, self._rest = (self._rest + body).split(_BREAK)
        if not more and self._rest:
            events.append(self._rest)
        try:
            written = self._written(events, more=more)
        except EdgeError as error:
            _log.error("answer_not_sealed", reason=str(error))
            event = b"data: " + error_body(encryption_failed(), self._path) + _BREAK
            await self._send({"type": "http.response.body", "body": event, "more_body": False})
            # The terminator is out; whoever writes this answer must stop.
            raise ClientGoneError from None
        if written or not more:
            await self._send({"type": "http.response.body", "body": written, "more_body": more})

    def _written(self, events: list[bytes], *, more: bool) -> bytes:
        status = 200 if self._start is None else self._start["status"]
        # A comment keeps a line alive and says nothing; sealed, nobody on the way would know it.
        comments = [event + _BREAK for event in events if event.startswith(_COMMENT)]
        said = [event for event in events if not event.startswith(_COMMENT)]
        if not more and not said and self._sealer.framed:
            # The end itself must be authentic.
            said.append(b"")
        last = len(said) - 1
        sealed = [
            self._sealer.seal(event, status=status, final=not more and place == last)
            for place, event in enumerate(said)
        ]
        return b"".join([*comments, *(b"data: " + box + _BREAK for box in sealed)])
