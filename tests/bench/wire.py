"""One HTTP/1.1 exchange on a kept-alive connection, counted as it arrives.

A load generator must cost little, so this reads no more of an answer than it needs: status, length,
and when events came. It trusts its peer, which is a server under test on this machine.
"""

import asyncio
import time
from dataclasses import dataclass, field
from typing import cast

EVENT = b"data: "
_LAST_CHUNK = b"0\r\n\r\n"


@dataclass(slots=True)
class Exchange:
    """What one request took; times in seconds on the monotonic clock."""

    started: float
    first_byte: float = 0.0
    """When the first event came; of an answer that is no stream, the first byte of its body."""
    ended: float = 0.0
    status: int = 0
    events: int = 0
    done: bool = False
    arrivals: list[tuple[float, int]] = field(default_factory=list)
    """(time, events in this piece), kept only where asked for."""


class Connection(asyncio.Protocol):
    """A connection that carries one request at a time."""

    def __init__(self, *, done: bytes, keep_arrivals: bool) -> None:
        self._done = done
        self._keep_arrivals = keep_arrivals
        self._transport: asyncio.Transport | None = None
        self._exchange: Exchange | None = None
        self._waiter: asyncio.Future[Exchange] | None = None
        self._head = b""
        self._in_body = False
        self._left: int | None = None
        self._tail = b""
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(ConnectionError("connection lost"))

    async def send(self, request: bytes) -> Exchange:
        """Send one request and return once its answer has ended."""
        if self._transport is None or self.lost:
            raise ConnectionError("not connected")
        self._exchange = Exchange(started=time.monotonic())
        self._waiter = asyncio.get_running_loop().create_future()
        self._head, self._in_body, self._left, self._tail = b"", False, None, b""
        self._transport.write(request)
        return await self._waiter

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        exchange = self._exchange
        if exchange is None:
            return
        now = time.monotonic()
        if not self._in_body:
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return
            head, data = self._head[:end].lower(), self._head[end + 4 :]
            exchange.status = int(head[9:12])
            self._in_body = True
            if b"content-length:" in head:
                self._left = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
        if data or self._left == 0:
            self._body(exchange, data, now)

    def _body(self, exchange: Exchange, data: bytes, now: float) -> None:
        # An event may be cut between two pieces; the end of the last piece is looked at again.
        seen = self._tail + data
        events = seen.count(EVENT) - self._tail.count(EVENT)
        exchange.events += events
        if not exchange.first_byte and (events or self._left is not None):
            exchange.first_byte = now
        if self._keep_arrivals and events:
            exchange.arrivals.append((now, events))
        exchange.done = exchange.done or self._done in seen
        self._tail = seen[-(len(self._done) - 1) :]
        if self._left is not None:
            self._left -= len(data)
            ended = self._left <= 0
        else:
            ended = seen.endswith(_LAST_CHUNK)
        if ended and self._waiter is not None and not self._waiter.done():
            exchange.ended = now
            self._waiter.set_result(exchange)


def request_bytes(*, host: str, path: str, body: bytes, api_key: str) -> bytes:
    """Return a POST as it goes over the wire."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {api_key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
