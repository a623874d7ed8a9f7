"""A steady load of streams, each of which is looked at to its last byte."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx
from darkbloom_local.mesh import Mesh
from darkbloom_local.models import SCRIPTED
from darkbloom_mesh.clock import SystemClock

from tests.mesh.harness import PATIENCE_S, Consumer, Reading, Stream, script


@dataclass(frozen=True)
class Asked:
    """One request and all that came of it."""

    stream: Stream
    asked_at: float
    first_at: float | None
    """When the first word came; None where none did."""
    refusal: str = ""
    """The body, where the status was another than 200."""

    @property
    def begun(self) -> bool:
        """Whether content came."""
        return self.stream.words > 0


@dataclass
class Load:
    """Streams, one after the other at each client."""

    mesh: Mesh
    tokens: int
    interval_s: float
    asked: list[Asked] = field(default_factory=list)
    flowing: int = 0
    """Answers of which something has come, and not all."""
    stopping: bool = False

    @property
    def whole(self) -> list[Asked]:
        """Every answer that is complete, to the trailing receipt."""
        return [one for one in self.asked if self._is_whole(one)]

    @property
    def broken(self) -> list[Asked]:
        """Every other one."""
        return [one for one in self.asked if not self._is_whole(one)]

    def _is_whole(self, one: Asked) -> bool:
        stream = one.stream
        return (
            (stream.status, stream.words, stream.done) == (200, self.tokens, 1)
            and stream.error is None
            and not stream.cut
        )

    async def client(self) -> None:
        """Ask until told to stop; the last answer is read to its end."""
        async with Consumer(self.mesh).client() as http:
            while not self.stopping:
                self.asked.append(await self._ask(http))

    async def _ask(self, http: httpx.AsyncClient) -> Asked:
        clock = SystemClock()
        asked_at = clock.monotonic()
        body = {
            "model": SCRIPTED,
            "messages": script(tokens=self.tokens, interval_s=self.interval_s),
            "stream": True,
        }
        async with http.stream("POST", "/v1/chat/completions", json=body) as response:
            if response.status_code != httpx.codes.OK:
                text = (await response.aread()).decode()
                stream = Stream(response.status_code, response.headers)
                return Asked(stream, asked_at, None, text)
            reading = Reading(response)
            first_at = None
            if await reading.begun():
                first_at = clock.monotonic()
            self.flowing += 1
            try:
                return Asked(await reading.rest(), asked_at, first_at)
            finally:
                self.flowing -= 1


@asynccontextmanager
async def steady(
    mesh: Mesh, *, clients: int, tokens: int = 40, interval_s: float = 0.02
) -> AsyncIterator[Load]:
    """Keep a load up for the length of the block; afterwards every answer has ended."""
    load = Load(mesh, tokens, interval_s)
    async with asyncio.timeout(PATIENCE_S * 6), asyncio.TaskGroup() as tasks:
        for _ in range(clients):
            tasks.create_task(load.client())
        try:
            yield load
        finally:
            load.stopping = True
