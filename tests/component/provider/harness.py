"""An agent with the scripted engine, in this process, in front of a fake router."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from darkbloom_edge.envelope import new_key_pair
from darkbloom_edge.replay import SenderKeyMemory
from darkbloom_edge.signatures import P256Signer
from darkbloom_mesh.clock import Clock, SystemClock
from darkbloom_mesh.testing import FakeClock, serve_ephemeral
from darkbloom_provider import code_release, hardware
from darkbloom_provider.agent import Agent
from darkbloom_provider.attempt import Hosted
from darkbloom_provider.desk import Desk
from darkbloom_provider.device_key import SoftwareKey
from darkbloom_provider.dialling import Dialler
from darkbloom_provider.engine.interface import Build
from darkbloom_provider.engine.scripted import ScriptedEngine
from darkbloom_provider.hardening import Hardening
from darkbloom_provider.isolation import measure
from darkbloom_provider.loads import Loads
from darkbloom_provider.presentation import Model, Presence
from darkbloom_provider.terminals import UnacknowledgedTerminals
from darkbloom_provider.witness import Witness

from tests.fakes.provider_router import PATIENCE_S, Ask, FakeLink, FakeRouter

BUILD = "dev/scripted"
COLD_BUILD = "dev/cold"
WEIGHT_HASH = "ab" * 32
MODEL = Model(
    id=BUILD,
    size_bytes=1,
    model_type="scripted",
    quantization="none",
    weight_hash=WEIGHT_HASH,
    identity_hash="cd" * 32,
    estimated_memory_gb=0.1,
)
RELEASE = code_release.CodeRelease(
    code_release="sha256:" + "ef" * 32,
    python_hash="12" * 32,
    runtime_hash="ef" * 32,
    template_hashes={},
    version="0.1.0",
    platform="linux-x86_64",
    packages=(),
    libraries=(),
)


class Stage:
    """The agent, its router and its clock."""

    def __init__(self, router: FakeRouter, agent: Agent, desk: Desk, state_file: Path) -> None:
        self.router = router
        self.agent = agent
        self.desk = desk
        self.state_file = state_file
        self.clock = desk.clock

    async def link(self) -> FakeLink:
        """Return the next stream, once its registration has been sent."""
        link = await self.router.next_link()
        await link.registration()
        return link

    def ask(self, link: FakeLink, content: str = "hello", **changes: Any) -> Ask:
        """Seal a request; `script` in `changes` becomes its directive."""
        script = changes.pop("script", None)
        if script is not None:
            content = f"/script {json.dumps(script)}"
        now_ms = int(self.clock.now().timestamp() * 1000)
        return link.ask(content, now_ms=now_ms, **changes)

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds, moving a fake clock in small steps."""
        async with asyncio.timeout(PATIENCE_S):
            while not holds():
                await self.tick()

    async def tick(self) -> None:
        """Let sockets and, on a fake clock, 50 ms pass."""
        await SystemClock().sleep(0.005)
        if isinstance(self.clock, FakeClock):
            await self.clock.advance(0.05)

    def state(self) -> dict[str, Any]:
        """Return the snapshot on disk."""
        return dict(json.loads(self.state_file.read_text()))


@asynccontextmanager
async def staged(
    tmp_path: Path,
    *,
    router: FakeRouter | None = None,
    clock: Clock | None = None,
    witness: Witness | None = None,
) -> AsyncIterator[Stage]:
    """Run an agent until the block ends, then drain it."""
    router, clock = router or FakeRouter(), clock or SystemClock()
    key_pair, signer = new_key_pair(), SoftwareKey(P256Signer.generate())
    engine = ScriptedEngine(clock=clock)
    builds = (Build(build_id=BUILD), Build(build_id=COLD_BUILD))
    loads = Loads(engine, builds, slots=1, clock=clock)
    desk = Desk(
        key_pair=key_pair,
        signer=signer,
        engine=engine,
        memory=SenderKeyMemory(),
        terminals=UnacknowledgedTerminals(),
        hosted={name: Hosted(build=name, weight_hash=WEIGHT_HASH) for name in (BUILD, COLD_BUILD)},
        loads=loads,
        clock=clock,
    )
    presence = Presence(
        encryption_key=key_pair.public,
        signer=signer,
        hardware=hardware.detect(),
        hardening=Hardening(
            core_dumps_disabled=False,
            anti_debug_enabled=False,
            env_scrubbed=True,
        ),
        release=RELEASE,
        models=(MODEL,),
        backend="scripted",
        name="stage",
        private_only=False,
        generation="generation-1",
        isolation=partial(measure, frozenset[int]()),
    )
    async with (
        serve_ephemeral(router.register) as target,
        asyncio.timeout(PATIENCE_S * 3),
    ):
        agent = Agent(
            presence=presence,
            witness=witness or Witness(),
            desk=desk,
            dialler=Dialler((target,), first=0, credentials=None),
            state_file=tmp_path / "state.json",
            heartbeat_interval_s=5.0,
            uniform=lambda: 0.0,
        )
        stage = Stage(router, agent, desk, tmp_path / "state.json")
        async with asyncio.TaskGroup() as tasks:
            playing = tasks.create_task(engine.run())
            loading = tasks.create_task(loads.run())
            running = tasks.create_task(agent.run())
            await engine.load(Build(build_id=BUILD))
            try:
                yield stage
            except BaseException:
                running.cancel()
                raise
            else:
                draining = tasks.create_task(agent.drain(5.0))
                while not (running.done() and draining.done()):
                    await stage.tick()
            finally:
                await engine.close()
                playing.cancel()
                loading.cancel()
