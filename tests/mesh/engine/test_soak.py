"""Hours of traffic in little time: requests come, go and are cancelled, models come and go."""

import asyncio
import dataclasses
import gc
import os
import random  # noqa: TID251 - seeded: the traffic
import secrets
from pathlib import Path

import psutil
import pytest
from darkbloom_mesh.clock import SystemClock
from darkbloom_provider.engine.arenas import limit_arenas
from darkbloom_provider.engine.interface import Build, Job
from darkbloom_provider.engine.limits import EngineLimits
from darkbloom_provider.engine.local import LocalEngine
from darkbloom_provider.engine.mlx.loader import MlxLoader
from darkbloom_provider.engine.prefix.cache import PrefixCache

from tests.mesh.engine.tiny import import_tiny
from tests.unit.provider.engine.support import RecordingSink, job

pytestmark = pytest.mark.engine

ROUNDS = int(os.environ.get("DARKBLOOM_SOAK_ENGINE_ROUNDS", "4"))  # noqa: TID251 - tests choose their size here
WARM_ROUNDS = 2
AT_ONCE = 8
MOST_GROWTH = 1.05
MOST_NEW_THREADS = 2
"""Of the loop's own pool, which grows when two calls meet; a load more must not bring one more."""
_BUILDS = ("org/tiny", "org/other")
_CACHE_BYTES = 1 << 20
_SCOPES = (b"a" * 32, b"b" * 32, b"")


class Traffic:
    """Rounds of requests to two builds, one of which is loaded anew each time."""

    def __init__(self, engine: LocalEngine, directory: Path) -> None:
        self.engine, self.directory = engine, directory
        self.draw = random.Random(11)
        self.served = 0

    async def load(self, build_id: str) -> None:
        await self.engine.load(
            Build(build_id=build_id, directory=self.directory, weight_hash="0" * 64)
        )

    async def round(self) -> None:
        await self.load(_BUILDS[0])
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.load(_BUILDS[1]))
            await self.crowd(_BUILDS[:1])
        await self.crowd(_BUILDS)
        late = RecordingSink()
        await self.engine.submit(self.some(_BUILDS[1], 300), late)
        await self.engine.unload(_BUILDS[1])
        await late.end()

    async def crowd(self, builds: tuple[str, ...]) -> None:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(AT_ONCE):
                tasks.create_task(self.ask(self.draw.choice(builds)))

    async def ask(self, build_id: str) -> None:
        sink, asked = RecordingSink(), self.some(build_id, self.draw.randint(1, 24))
        await self.engine.submit(asked, sink)
        fate = self.draw.random()
        if fate < 0.3:
            await sink.more(1)
            self.engine.cancel(asked.job_id)
        elif fate < 0.5:
            self.engine.pause(asked.job_id)
            self.engine.resume(asked.job_id)
        await sink.end()
        self.served += 1

    def some(self, build_id: str, tokens: int) -> Job:
        text = "".join(self.draw.choices("abcdef ", k=self.draw.randint(1, 200)))
        asked = job(f"job-{self.draw.getrandbits(60)}", text, build_id=build_id, max_tokens=tokens)
        # Of a few accounts, with beginnings of their own that fill the prefix cache.
        return dataclasses.replace(asked, cache_scope=self.draw.choice(_SCOPES))


@pytest.mark.timeout(1800)
async def test_memory_and_threads_stay_flat_under_traffic(tmp_path: Path) -> None:
    limit_arenas()
    prefixes = PrefixCache(_CACHE_BYTES)
    engine = LocalEngine(
        loader=MlxLoader(prefixes=prefixes),
        limits=EngineLimits(kv_budget_bytes=1 << 28, max_concurrency=4),
        clock=SystemClock(),
        draw=secrets.randbits,
        prefixes=prefixes,
    )
    traffic = Traffic(engine, import_tiny(tmp_path).directory)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(engine.run())
        for _ in range(WARM_ROUNDS):
            await traffic.round()
        before, threads = resident(), native_threads()
        for _ in range(ROUNDS):
            await traffic.round()
        after, threads_after = resident(), native_threads()
        (slot,) = engine.slots()
        await engine.close()

    assert traffic.served == (WARM_ROUNDS + ROUNDS) * 2 * AT_ONCE
    assert after <= before * MOST_GROWTH, f"{before} bytes have become {after}"
    assert threads_after <= threads + MOST_NEW_THREADS
    assert (slot.model, slot.num_running, slot.active_token_budget_used) == (_BUILDS[0], 0, 0)


def resident() -> int:
    """Return the resident bytes of this process, garbage collected."""
    gc.collect()
    return int(psutil.Process().memory_info().rss)


def native_threads() -> int:
    """Return all threads of this process, those that Python does not know included."""
    return psutil.Process().num_threads()
