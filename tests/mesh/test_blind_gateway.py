"""The gateway's process is searched for a secret: in edge mode it is there, end to end it is not.

The client is the one that consumers get, under a stock SDK. Every place is first shown to be one
where the secret would be found.
"""

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import openai
import psutil
import pytest
from darkbloom_client import AsyncTransport, Pins, Policy
from darkbloom_local.mesh import Mesh

from tests.mesh import places
from tests.mesh.collector import Collector
from tests.mesh.harness import Books, Consumer, script, until
from tests.mesh.valves import Valve, to_port, valve

pytestmark = [pytest.mark.mesh, pytest.mark.asyncio(loop_scope="session")]

PIECE = 1 << 20


def memory_of(pid: int) -> dict[str, bytes]:
    """Return every writable piece of memory of a process and its children, as it is now."""
    process = psutil.Process(pid)
    found = {}
    for one in (process, *process.children(recursive=True)):
        with Path(f"/proc/{one.pid}/mem").open("rb", buffering=0) as memory:
            for row in Path(f"/proc/{one.pid}/maps").read_text().splitlines():
                span, rights, *_, name = (*row.split(maxsplit=5), "")[:6]
                if not rights.startswith("rw") or name.startswith(("[vvar", "[vsyscall")):
                    continue
                start, end = (int(part, 16) for part in span.split("-"))
                found[f"{one.pid} {row}"] = _read(memory, start, end)
    return found


def _read(memory: Any, start: int, end: int) -> bytes:
    pieces = []
    try:
        memory.seek(start)
        while start < end:
            piece = memory.read(min(PIECE, end - start))
            if not piece:
                break
            pieces.append(piece)
            start += len(piece)
    except OSError:
        # Guard pages, and what was unmapped meanwhile.
        pass
    return b"".join(pieces)


@pytest.fixture(scope="module")
def searchable(mesh: Mesh) -> None:
    try:
        memory_of(mesh.pids["gateway"])
    except (OSError, psutil.Error):
        pytest.skip("the memory of other processes cannot be read here")


class Spy:
    """Looks for a song in everything that is the gateway's."""

    def __init__(self, mesh: Mesh, collector: Collector, wire: Valve) -> None:
        self._mesh = mesh
        self._collector = collector
        self.wire = wire

    async def found(self, song: str) -> set[str]:
        """Return where it is."""
        # Memory is large, and nobody keeps anything but the text and perhaps its base64 there.
        raw, base64s = song.encode(), places.spellings(song)[3:8:2]
        found = {
            f"memory of the {name}"
            for name in ("gateway", "router")
            if places.holding(memory_of(self._mesh.pids[name]), [raw, *base64s])
        }
        return found | await self.outside(song)

    async def outside(self, song: str) -> set[str]:
        """Return where it is outside of memory."""
        needles = places.spellings(song)
        mesh, traces = self._mesh, list(self._collector.bodies)
        rooms = {
            "logs": places.files_of(mesh.state.log("gateway").parent),
            "metrics": await places.metrics(mesh),
            "traces": {str(number): body for number, body in enumerate(traces)},
            "rows": places.rows_of(mesh),
            "keys": places.keys_of(mesh),
            "wire": {"consumer": bytes(self.wire.heard or b"")},
        }
        return {name for name, pieces in rooms.items() if places.holding(pieces, needles)}


@asynccontextmanager
async def spying(mesh: Mesh, collector: Collector) -> AsyncIterator[Spy]:
    async with valve(to_port(mesh.url.removeprefix("http://"))) as wire:
        wire.heard = bytearray()
        yield Spy(mesh, collector, wire)


class Sampled(httpx2.AsyncBaseTransport):
    """Carries requests, each with a trace that is kept: else few would ever be."""

    def __init__(self) -> None:
        self._carrier = httpx2.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        request.headers["traceparent"] = f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"
        return await self._carrier.handle_async_request(request)

    async def aclose(self) -> None:
        await self._carrier.aclose()


def stock(mesh: Mesh, wire: Valve, transport: AsyncTransport | Sampled) -> openai.AsyncOpenAI:
    """Return an SDK whose every byte passes the valve."""
    return openai.AsyncOpenAI(
        base_url=f"http://127.0.0.1:{wire.port}/v1",
        api_key=mesh.api_key,
        http_client=httpx2.AsyncClient(transport=transport, timeout=30),
        max_retries=0,
    )


async def sung(
    client: openai.AsyncOpenAI, song: str, halfway: Callable[[], Awaitable[set[str]]]
) -> tuple[str, set[str], Any]:
    """Let the song be asked for and answered; return text, what was found halfway, the receipt."""
    stream: Any = await client.chat.completions.create(
        model="scripted",
        messages=script(text=f"{song} " * 60, interval_s=0.02),  # type: ignore[arg-type] - plain
        stream=True,
        max_tokens=200,
    )
    text, found, receipt = "", set[str](), None
    async for chunk in stream:
        text += "".join(choice.delta.content or "" for choice in chunk.choices)
        receipt = (chunk.model_extra or {}).get("receipt", receipt)
        if not found and text.count(song) > 5:
            found = await halfway() or {"nowhere"}
    return text, found, receipt


async def test_end_to_end_the_gateway_never_has_what_in_edge_mode_it_has(
    mesh: Mesh, consumer: Consumer, books: Books, collector: Collector, searchable: None
) -> None:
    pins = Pins.parse((await consumer.get("/v1/receipts/keys")).content)
    policy = Policy(pins=pins, trust="none", allow_unattested=True)
    async with spying(mesh, collector) as spy:
        song = f"canary-{secrets.token_hex(16)}"
        async with stock(mesh, spy.wire, AsyncTransport(policy, inner=Sampled())) as client:
            text, found, receipt = await sung(client, song, lambda: spy.found(song))
        assert text.split() == [song] * 60
        assert found == {"nowhere"}
        assert await spy.found(song) == set()
        assert (await consumer.verify(receipt, answer=text)).ok
        await books.quiet()

    async with spying(mesh, collector) as spy:
        other = f"canary-{secrets.token_hex(16)}"
        async with stock(mesh, spy.wire, Sampled()) as client:
            text, found, _ = await sung(client, other, lambda: spy.found(other))
        assert text.split() == [other] * 60
        assert found == {"memory of the gateway", "wire"}
        # The other places would show it as well: they do show what is in them.
        assert await spy.outside("scripted") >= {"metrics", "rows", "wire"}

        async def named() -> bool:
            return await spy.outside("gateway") >= {"logs", "traces"}

        await until(named, "logs and traces name the gateway")
    await books.clean()
