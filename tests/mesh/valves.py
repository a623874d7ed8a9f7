"""Proxies of the tests that stand in a connection's way: they pass bytes on, or swallow them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

_PIECE = 65_536
_APART_S = 1e-6

Dial = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


@dataclass
class Valve:
    """What one proxy does with bytes; change it at any time.

    Shut, bytes vanish and nobody is told, as on a network that drops packets: neither side sees an
    end, and what was swallowed is not sent again, so a connection that was open then is of no use
    afterwards. `reset` ends those, as the kernel would after its retries.
    """

    port: int = 0
    shut: bool = False
    delay_s: float = 0.0
    """How long every piece is on its way, each way; one never overtakes another."""
    swallowed: int = 0
    """Bytes that vanished."""
    heard: bytearray | None = None
    """Everything that passed, both ways, where somebody wants to know."""
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    def reset(self) -> None:
        """Break every connection that is open now."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on what comes until either side ends."""
        self._writers.add(writer)
        loop = asyncio.get_running_loop()
        arrives_at = 0.0
        try:
            while piece := await reader.read(_PIECE):
                if self.shut:
                    self.swallowed += len(piece)
                    continue
                if self.heard is not None:
                    self.heard += piece
                arrives_at = max(arrives_at + _APART_S, loop.time() + self.delay_s)
                if self.delay_s or arrives_at > loop.time() + _APART_S:
                    loop.call_at(arrives_at, writer.write, piece)
                    continue
                writer.write(piece)
                await writer.drain()
        except OSError:
            pass
        finally:
            self._writers.discard(writer)
            writer.transport.abort()


@asynccontextmanager
async def valve(dial: Dial) -> AsyncIterator[Valve]:
    """Listen on a free port of this machine and pass everything on to what `dial` opens."""
    found = Valve()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await dial()
        except OSError:
            writer.transport.abort()
            return
        async with asyncio.TaskGroup() as pipes:
            pipes.create_task(found.pipe(reader, far_writer))
            pipes.create_task(found.pipe(far_reader, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    found.port = server.sockets[0].getsockname()[1]
    try:
        yield found
    finally:
        found.reset()
        server.close()
        await server.wait_closed()


def to_socket(path: Path) -> Dial:
    """Dial a unix socket."""
    return lambda: asyncio.open_unix_connection(path)


def to_port(address: str) -> Dial:
    """Dial host:port."""
    host, _, port = address.rpartition(":")
    return lambda: asyncio.open_connection(host, int(port))
