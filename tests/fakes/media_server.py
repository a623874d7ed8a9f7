"""A TLS server of images under many names, and an internet that leads to it."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from darkbloom_gateway.media.network import PublicNetwork
from httpcore import AnyIOBackend, AsyncNetworkBackend, AsyncNetworkStream

from tests.fakes.certificates import tls_pair

PUBLIC = "93.184.216.34"
HOST = "pictures.example"
OTHER = "elsewhere.example"


@dataclass
class MediaServer:
    """Answers by path; what was asked is recorded, headers included."""

    trust: ssl.SSLContext
    answers: dict[str, bytes] = field(default_factory=dict)
    """Raw answers by path; else 404."""
    asked: list[bytes] = field(default_factory=list)
    stall: asyncio.Event = field(default_factory=asyncio.Event)
    """`/stall` says nothing until this is set."""
    port: int = 0
    came: asyncio.Event = field(default_factory=asyncio.Event)

    async def until(self, requests: int) -> None:
        """Wait for so many requests."""
        while len(self.asked) < requests:
            self.came.clear()
            await self.came.wait()

    def file(self, path: str, data: bytes, *headers: str) -> str:
        """Serve a file and return its address."""
        head = ["HTTP/1.1 200 OK", f"content-length: {len(data)}", *headers]
        self.answers[path] = "\r\n".join([*head, "", ""]).encode() + data
        return f"https://{HOST}{path}"

    def redirect(self, path: str, location: str) -> str:
        """Send who asks for a path elsewhere."""
        self.answers[path] = (
            f"HTTP/1.1 302 Found\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n".encode()
        )
        return f"https://{HOST}{path}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request of one connection."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            self.asked.append(head)
            self.came.set()
            path = head.split(b" ")[1].decode()
            if path == "/stall":
                await self.stall.wait()
            writer.write(self.answers.get(path, b"HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n"))
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@dataclass
class Internet(AsyncNetworkBackend):
    """Names and addresses as a test wants them; every public address is the server."""

    port: int
    names: dict[str, Sequence[str]] = field(
        default_factory=lambda: {HOST: [PUBLIC], OTHER: [PUBLIC]}
    )
    resolved: list[str] = field(default_factory=list)
    called: list[tuple[str, int]] = field(default_factory=list)
    wire: AnyIOBackend = field(default_factory=AnyIOBackend)

    async def resolve(self, host: str) -> Sequence[str]:
        """Return what the next question for a name is answered with."""
        self.resolved.append(host)
        if host not in self.names:
            raise OSError
        return self.names[host]

    async def connect_tcp(self, host: str, port: int, *rest: object) -> AsyncNetworkStream:
        """Connect to the server, whatever address was called."""
        self.called.append((host, port))
        return await self.wire.connect_tcp("127.0.0.1", self.port, 5.0)

    def network(self) -> PublicNetwork:
        """Return the gateway's way into this internet."""
        return PublicNetwork(self.resolve, self)


@asynccontextmanager
async def media_server(folder: Path) -> AsyncIterator[MediaServer]:
    """Serve until the end of the block."""
    inside, outside = tls_pair(folder, [HOST, OTHER, "xn--bcher-kva.example"])
    found = MediaServer(outside)
    server = await asyncio.start_server(found.serve, "127.0.0.1", 0, ssl=inside)
    async with server:
        found.port = server.sockets[0].getsockname()[1]
        yield found
        found.stall.set()
