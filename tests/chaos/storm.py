"""A PostgreSQL that loses connections all the time and, now and then, everything at once."""

import asyncio
import random  # noqa: TID251 - seeded: the same storm each time
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import asyncpg
from darkbloom_local import stores
from darkbloom_local.process import Child

_KILL = """
    SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
    WHERE application_name = 'darkbloom-billing' AND random() < $1
"""
_STOP_S = 20.0
_CUT_EVERY_S = (0.1, 0.25)
_SHARE = 0.15


class Storm:
    """The database of a run, and what befalls it. Its commits are durable.

    Launches from the thread that made it, because the server is tied to that thread.
    """

    def __init__(self, store: stores.Postgres) -> None:
        self._store = store
        self._server: Child = store.launch()
        self.url = store.url
        self.cut = 0
        """Connections that were ended."""
        self.restarts = 0
        """Ends of the whole server without a word to anybody."""

    async def ready(self) -> None:
        """Return once the server answers."""
        await asyncio.to_thread(self._store.wait_ready, self._server)

    async def rage(self, rng: random.Random, seconds: float, *, restarts: int) -> None:
        """Cut connections for a while, and end the whole server so many times in between."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        falls = [loop.time() + seconds * (n + 1) / (restarts + 1) for n in range(restarts)]
        while loop.time() < end:
            if falls and loop.time() >= falls[0]:
                falls.pop(0)
                await self._fall()
            await asyncio.sleep(rng.uniform(*_CUT_EVERY_S))  # noqa: TID251 - a storm has no clock
            with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                await self._cut_some()

    async def _cut_some(self) -> None:
        connection = await asyncpg.connect(self.url, timeout=5)
        try:
            self.cut += await connection.fetchval(_KILL, _SHARE)
        finally:
            connection.terminate()

    async def _fall(self) -> None:
        # Immediate mode: no checkpoint, no farewell; the next start recovers from the log.
        self._server.send(signal.SIGQUIT)
        if await asyncio.to_thread(self._server.wait, _STOP_S) is None:
            self._server.kill()
        self._server = self._store.launch()
        self.restarts += 1
        await self.ready()

    def stop(self) -> None:
        """End the server."""
        self._server.stop(_STOP_S)


@contextmanager
def storm(home: Path) -> Iterator[Storm]:
    """Run a database in a directory for the length of the block."""
    store = stores.Postgres(home)
    store.prepare()
    made = Storm(store)
    try:
        yield made
    finally:
        made.stop()
