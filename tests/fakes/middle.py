"""A real man in the middle: an HTTP server in front of a gateway, who changes what he likes."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import httpx
import uvicorn

Change = Callable[[bytes], bytes]
_HOP = frozenset({"connection", "transfer-encoding", "content-length", "keep-alive", "date"})
_PATIENCE_S = 30.0


@dataclass
class Middle:
    """Passes everything on; `lies` changes whole replies by path."""

    upstream: str
    url: str = ""
    lies: dict[str, Change] = field(default_factory=dict)
    orders: dict[str, Change] = field(default_factory=dict)
    """The same for requests."""
    seen: list[tuple[str, str, bytes]] = field(default_factory=list)
    """Method, path and body of every request: all that a gateway gets to read."""
    told: list[tuple[str, bytes]] = field(default_factory=list)
    """Path and body of every reply, as it was passed on."""

    def edit(self, path: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        """Change JSON."""
        self.lies[path] = lambda data: json.dumps(change(json.loads(data))).encode()

    def honest(self) -> None:
        """Change nothing any more, and forget."""
        for found in (self.lies, self.orders):
            found.clear()
        self.seen.clear()
        self.told.clear()

    def last(self, path: str) -> bytes:
        """Return the newest reply of a path."""
        return next(body for where, body in reversed(self.told) if where == path)

    async def __call__(
        self,
        scope: dict[str, Any],
        receive: Callable[[], Awaitable[dict[str, Any]]],
        send: Callable[[dict[str, Any]], Awaitable[None]],
    ) -> None:
        """Serve one request."""
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        path, query = scope["path"], scope["query_string"].decode()
        self.seen.append((scope["method"], path, body))
        if path in self.orders:
            body = self.orders[path](body)
        headers = [(k, v) for k, v in scope["headers"] if k.decode() not in {*_HOP, "host"}]
        async with httpx.AsyncClient(trust_env=False, timeout=_PATIENCE_S) as client:
            answer = await client.request(
                scope["method"],
                f"{self.upstream}{path}" + (f"?{query}" if query else ""),
                headers=headers,
                content=body or None,
            )
        content = answer.content
        if path in self.lies and answer.status_code == httpx.codes.OK:
            content = self.lies[path](content)
        self.told.append((path, content))
        kept = [(k, v) for k, v in answer.headers.raw if k.lower().decode() not in _HOP]
        await send({"type": "http.response.start", "status": answer.status_code, "headers": kept})
        await send({"type": "http.response.body", "body": content, "more_body": False})


@asynccontextmanager
async def middle(upstream: str) -> AsyncIterator[Middle]:
    """Serve on a free port until the block ends."""
    found = Middle(upstream)
    server = uvicorn.Server(
        uvicorn.Config(found, port=0, http="h11", lifespan="off", log_config=None)  # type: ignore[arg-type]
    )
    server.capture_signals = nullcontext  # type: ignore[method-assign, assignment]
    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(server.serve())
        async with asyncio.timeout(_PATIENCE_S):
            while not server.started:
                await asyncio.wait({serving}, timeout=0.01)
        host, port = server.servers[0].sockets[0].getsockname()[:2]
        found.url = f"http://{host}:{port}"
        try:
            yield found
        finally:
            server.should_exit = True
            await serving


def cut(stream: bytes) -> list[bytes]:
    """Cut a sealed stream into its records."""

    def records() -> Iterator[bytes]:
        at = 0
        while at < len(stream):
            end = at + 9 + int.from_bytes(stream[at + 5 : at + 9], "big")
            yield stream[at:end]
            at = end

    return list(records())
