"""A real HTTP server of files on the loopback, that misbehaves as it is told."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import unquote

from darkbloom_edge.manifest import parse_manifest
from darkbloom_edge.signatures import Ed25519Signer, to_base64
from darkbloom_edge.signed_manifest import KEY_ID_HEADER, SIGNATURE_HEADER, sign_manifest

_BLOCK = 1 << 16


@dataclass
class FileServer:
    """Files by path; what was asked is recorded."""

    files: dict[str, bytes] = field(default_factory=dict)
    headers: dict[str, dict[str, str]] = field(default_factory=dict)
    """More headers of an answer, by path."""
    redirects: dict[str, str] = field(default_factory=dict)
    cuts: dict[str, list[int]] = field(default_factory=dict)
    """Bytes after which the next answers for a path break off, one each."""
    statuses: dict[str, list[int]] = field(default_factory=dict)
    """Statuses of the next answers for a path, one each."""
    ranges: bool = True
    """Whether it resumes."""
    stalls: dict[str, int] = field(default_factory=dict)
    """Bytes after which a path says nothing more, until `let_go`."""
    admit: Callable[[str, dict[str, str]], bool] = lambda _path, _headers: True
    """Whether a request may have its file; else 403."""
    asked: list[tuple[str, int]] = field(default_factory=list)
    """(path, first byte) of every request."""
    seen: list[dict[str, str]] = field(default_factory=list)
    """Headers of every request."""
    stalled: asyncio.Event = field(default_factory=asyncio.Event)
    let_go: asyncio.Event = field(default_factory=asyncio.Event)
    url: str = ""

    def publish(self, document: bytes, signer: Ed25519Signer, *, sources: list[str]) -> None:
        """Serve a version as a gateway's catalog does."""
        manifest = parse_manifest(document)
        one = {
            "version": manifest.version,
            "aggregate_sha256": manifest.aggregate_sha256,
            "identity_sha256": manifest.identity_sha256,
            "size_bytes": manifest.total_size_bytes,
            "file_count": manifest.file_count,
            "sources": sources,
        }
        entry = {"id": manifest.model_id, "version": manifest.version, "versions": [one]}
        self._json("/v1/models/catalog", {"models": [entry]})
        self._json(f"/v1/models/catalog/{manifest.model_id}", entry)
        key = {"key_id": signer.key_id, "public_key": to_base64(signer.public)}
        self._json("/v1/catalog/keys", {"manifest_keys": [key]})
        path = f"/v1/models/catalog/manifest/{manifest.model_id}"
        self.files[path] = document
        self.headers[path] = {
            SIGNATURE_HEADER: to_base64(sign_manifest(document, signer)),
            KEY_ID_HEADER: signer.key_id,
        }

    def _json(self, path: str, content: object) -> None:
        self.files[path] = json.dumps(content).encode()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request and hang up."""
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = {
                name.lower(): value.strip()
                for name, _, value in (line.partition(":") for line in head[1:] if line)
            }
            path = unquote(head[0].split(" ")[1].partition("?")[0])
            await self._send(path, headers, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _send(self, path: str, headers: dict[str, str], writer: asyncio.StreamWriter) -> None:
        wanted = headers.get("range", "")
        offset = int(wanted.removeprefix("bytes=").partition("-")[0] or 0) if wanted else 0
        self.asked.append((path, offset))
        self.seen.append(headers)
        data = self.files.get(path)
        status, body, more = 200, data or b"", dict(self.headers.get(path, {}))
        if self.statuses.get(path):
            status, body = self.statuses[path].pop(0), b""
        elif path in self.redirects:
            status, body, more = 302, b"", {"location": self.redirects[path]}
        elif data is None:
            status = 404
        elif not self.admit(path, headers):
            status, body = 403, b""
        elif wanted and self.ranges:
            status, body = (206, data[offset:]) if offset < len(data) else (416, b"")
            more["content-range"] = f"bytes {offset}-{len(data) - 1}/{len(data)}"
        more |= {
            "content-length": str(len(body)),
            "connection": "close",
            "etag": '"1"',
            "last-modified": "Thu, 01 Jan 2026 00:00:00 GMT",
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in more.items())
        writer.write(f"HTTP/1.1 {status} X\r\n{lines}\r\n".encode("latin-1"))
        cut = self.cuts[path].pop(0) if self.cuts.get(path) else len(body)
        stall = self.stalls.get(path, len(body))
        for at in range(0, min(cut, stall, len(body)), _BLOCK):
            writer.write(body[at : min(at + _BLOCK, cut, stall)])
            await writer.drain()
        if stall < len(body):
            self.stalled.set()
            await self.let_go.wait()


@asynccontextmanager
async def file_server() -> AsyncIterator[FileServer]:
    """Serve on a free port of the loopback."""
    server = FileServer()
    listener = await asyncio.start_server(server.answer, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        server.let_go.set()
        listener.close()
        async with asyncio.timeout(10):
            await listener.wait_closed()
