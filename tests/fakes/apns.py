"""A stand-in for Apple's push service: HTTP/2 over TLS, as strict about requests as Apple is."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import orjson

from tests.fakes.certificates import tls_pair


@dataclass(frozen=True)
class Received:
    """One request, as it came over the wire."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class FakeApple:
    """Answers pushes; what it says next is the test's to decide."""

    status: int = 200
    reason: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    raw_answer: bytes | None = None
    silent: bool = False
    hangs_up: bool = False
    received: list[Received] = field(default_factory=list)
    connections: int = 0
    origin: str = ""
    _open: set[asyncio.StreamWriter] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._open.add(writer)
        try:
            await self._converse(reader, writer)
        except (OSError, h2.exceptions.ProtocolError):
            pass
        finally:
            self._open.discard(writer)
            writer.close()

    def drop_all(self) -> None:
        for writer in list(self._open):
            writer.transport.abort()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        config = h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        connection = h2.connection.H2Connection(config)
        connection.initiate_connection()
        writer.write(connection.data_to_send())
        heads: dict[int, dict[str, str]] = {}
        bodies: dict[int, bytearray] = {}
        while data := await reader.read(65536):
            for event in connection.receive_data(data):
                if isinstance(event, h2.events.RequestReceived):
                    heads[event.stream_id] = dict(event.headers)
                    bodies[event.stream_id] = bytearray()
                elif isinstance(event, h2.events.DataReceived):
                    bodies[event.stream_id] += event.data
                    connection.acknowledge_received_data(
                        event.flow_controlled_length, event.stream_id
                    )
                elif isinstance(event, h2.events.StreamEnded):
                    head = heads.pop(event.stream_id)
                    body = bytes(bodies.pop(event.stream_id))
                    self.received.append(Received(head[":path"], head, body))
                    if self.hangs_up:
                        writer.transport.abort()
                        return
                    if not self.silent:
                        self._answer(connection, event.stream_id)
            writer.write(connection.data_to_send())
            await writer.drain()

    def _answer(self, connection: h2.connection.H2Connection, stream: int) -> None:
        body = self.raw_answer
        if body is None:
            body = orjson.dumps({"reason": self.reason}) if self.reason else b""
        connection.send_headers(
            stream, [(":status", str(self.status)), *self.headers.items()], end_stream=not body
        )
        if body:
            connection.send_data(stream, body, end_stream=True)


def tls(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return (server, client) trust of an Apple on this machine, which speaks HTTP/2 alone."""
    server, client = tls_pair(folder, ["localhost"])
    server.set_alpn_protocols(["h2"])
    return server, client


@asynccontextmanager
async def running(tls: ssl.SSLContext) -> AsyncIterator[FakeApple]:
    """Serve on a free port until the end of the block."""
    apple = FakeApple()
    server = await asyncio.start_server(apple.serve, "127.0.0.1", 0, ssl=tls)
    apple.origin = f"https://localhost:{server.sockets[0].getsockname()[1]}"
    try:
        yield apple
    finally:
        server.close()
        apple.drop_all()
        async with asyncio.timeout(5):
            await server.wait_closed()
