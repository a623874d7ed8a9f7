"""One public connection: uvicorn's protocol, bounded in every direction.

Who sends too much, too slowly, or does not read, is answered where that is possible and hung up on;
what one connection can make this process keep is a constant, whatever the other end does.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from darkbloom_gateway.arrivals import Lines
from darkbloom_gateway.envelopes import error_body
from darkbloom_gateway.errors import ApiError, headers_too_large, malformed_http
from darkbloom_gateway.wire import fresh_id

MAX_HEADER_BYTES = 64 * 1024
"""Of a request: its target and all its headers."""
MAX_HEADERS = 128
MAX_BODY_BYTES = 64 * 1024 * 1024
"""Of any request, whether somebody reads it or not; what a route takes is less."""
MAX_PIPELINED = 16
"""Requests on one line behind the one that is being answered."""


@dataclass(frozen=True, kw_only=True)
class Manners:
    """What every connection of a listener must keep to."""

    headers_s: float
    """From a request's first byte to the end of its headers."""
    body_idle_s: float
    """How long the rest of a body may come after its request was answered."""
    stall_s: float
    """How long the other end may read nothing at all."""
    entropy: Callable[[int], bytes]
    """For the ids of requests that never reach the application."""
    lines: Lines = field(default_factory=Lines)
    """Counts connections."""


class _RefusedError(Exception):
    """Ends the parsing of a request; uvicorn's parser carries it out of a callback."""

    def __init__(self, answer: ApiError | None) -> None:
        super().__init__()
        self.answer = answer


class BoundedProtocol(HttpToolsProtocol):
    """Subclass with `manners`.

    Invariant: whenever nothing is being answered, a timer runs that ends the connection.
    """

    manners: Manners

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Ends headers that do not come, and the rest of a body that nobody wants.
        self._patience: asyncio.TimerHandle | None = None
        # Ends a reader that does not read.
        self._stalled: asyncio.TimerHandle | None = None
        self._in_headers = True
        self._header_bytes = self._header_count = self._waiting_bytes = self._body_bytes = 0
        self._admitted = True
        self._declining = False
        self._has_host = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for headers, or hang up where there are too many lines."""
        super().connection_made(transport)
        self._admitted = self.manners.lines.join(self.client[0] if self.client else "")
        if not self._admitted:
            transport.close()
            return
        self._wait(self.manners.headers_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """Drop the timers."""
        if self._admitted:
            self.manners.lines.leave(self.client[0] if self.client else "")
        self._be_patient()
        self._keep_up()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse, and end what is malformed or too large."""
        self._unset_keepalive_if_required()
        if self._in_headers:
            if self._patience is None:
                self._wait(self.manners.headers_s)
            self._waiting_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            self._decline_upgrade(data[offer.args[0] :])
        except httptools.HttpParserError as error:
            cause = error.__context__
            self._refuse(cause.answer if isinstance(cause, _RefusedError) else malformed_http())
        else:
            if self._in_headers and self._waiting_bytes > MAX_HEADER_BYTES:
                self._refuse(headers_too_large())

    def on_message_begin(self) -> None:
        """Bound the line of requests behind the one that is being answered."""
        if self._declining:
            return
        if len(self.pipeline) >= MAX_PIPELINED:
            raise _RefusedError(None)
        self._header_bytes = self._header_count = self._body_bytes = 0
        self._has_host = False
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Count the target as a header."""
        if self._declining:
            return
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count headers; those that follow a body are not wanted."""
        if self._declining:
            return
        self._header_count += 1
        self._count(len(name) + len(value) + len(b": \r\n"))
        if not self._in_headers:
            return
        if name.lower() == b"host":
            if self._has_host:
                # Whoever stands in front may have believed the other one (RFC 9112 3.2).
                raise _RefusedError(malformed_http())
            self._has_host = True
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Stop waiting."""
        if self._declining:
            return
        self._in_headers = False
        self._waiting_bytes = 0
        self._be_patient()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Count the body, also of a request that was answered before its end."""
        self._body_bytes += len(body)
        if self._body_bytes > MAX_BODY_BYTES:
            raise _RefusedError(None)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Expect the next request's headers; how long the line may idle is uvicorn's business."""
        if self.parser.should_upgrade():
            # The parser has stopped at an offer, before the body.
            return
        super().on_message_complete()
        self._in_headers = True
        if self.cycle.response_complete and self._patience is not None:
            # The rest of a body that nobody wanted has come.
            self._be_patient()
            self._idle()

    def on_response_complete(self) -> None:
        """See to it that something ends this connection."""
        super().on_response_complete()
        if self.transport.is_closing():
            # What was written waits for a reader, who may never come.
            if self._stalled is None:
                self._watch_the_reader()
        elif not self._in_headers and self.cycle.response_complete:
            # Closing now could destroy the answer before it is read, so the rest may still come.
            self._unset_keepalive_if_required()
            self._wait(self.manners.body_idle_s)

    def pause_writing(self) -> None:
        """Give a reader that does not read some time."""
        super().pause_writing()
        if self._stalled is None:
            self._watch_the_reader()

    def resume_writing(self) -> None:
        """Go on."""
        self._keep_up()
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        """End an idle connection."""
        self._hang_up()

    @property
    def _answering(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is not None and not cycle.response_complete

    def _count(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > MAX_HEADER_BYTES or self._header_count > MAX_HEADERS:
            raise _RefusedError(headers_too_large())

    def _decline_upgrade(self, rest: bytes) -> None:
        """Read on as if no other protocol had been offered, of which there is none here.

        The parser stops at such an offer and loses the body, so another one takes its place, told
        how the body ends. Clients that offer HTTP/2 in clear text do so with every first request.
        """
        framing = [
            b"%b: %b\r\n" % pair
            for pair in self.headers
            if pair[0] in (b"content-length", b"transfer-encoding")
        ]
        self.parser = httptools.HttpRequestParser(self)
        self._declining = True
        try:
            self.parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n" % b"".join(framing))
        finally:
            self._declining = False
        if rest:
            self.data_received(rest)

    def _refuse(self, answer: ApiError | None) -> None:
        """Answer what never becomes a request, unless another answer is on the line; hang up."""
        if answer is not None and (not self._answering or self._withdrawn()):
            body = error_body(answer)
            name = fresh_id(self.manners.entropy)
            self.transport.write(
                STATUS_LINE[answer.http_status]
                + b"content-type: application/json\r\ncontent-length: %d\r\n" % len(body)
                + b"x-request-id: %b\r\nconnection: close\r\n\r\n%b" % (name, body)
            )
        self._hang_up()

    def _withdrawn(self) -> bool:
        """Take the request in hand from the application, if nothing of its answer was sent."""
        if self.pipeline or self.cycle.response_started:
            return False
        self.cycle.disconnected = True
        self.cycle.message_event.set()
        return True

    def _idle(self) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )

    def _wait(self, seconds: float) -> None:
        self._patience = self.loop.call_later(seconds, self._out_of_patience)

    def _be_patient(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _watch_the_reader(self) -> None:
        """End the connection unless less is left to read by the end of each wait."""
        left = self.transport.get_write_buffer_size()
        if left:
            self._stalled = self.loop.call_later(self.manners.stall_s, self._judge_reader, left)

    def _judge_reader(self, before: int) -> None:
        self._stalled = None
        if self.transport.get_write_buffer_size() < before:
            self._watch_the_reader()
        else:
            self.transport.abort()

    def _keep_up(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def _out_of_patience(self) -> None:
        self._patience = None
        if self._answering:
            # An answer is on the line, and ends it soon enough: nobody loses it for a stray byte.
            self._wait(self.manners.headers_s)
            return
        self._hang_up()

    def _hang_up(self) -> None:
        if self.transport.is_closing():
            return
        self.transport.close()
        # A close waits until everything is read.
        self._keep_up()
        self._watch_the_reader()
