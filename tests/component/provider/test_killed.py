"""kill -9 of a real agent in each stage of a request: it comes back, and nothing is left behind."""

import json
from collections.abc import Awaitable, Callable
from pathlib import Path

from darkbloom.common.v1.frame_pb2 import FrameKind
from darkbloom.router.v1.provider_link_pb2 import Accepted
from darkbloom_mesh.testing import serve_ephemeral
from darkbloom_provider import journal

from tests.component.provider.test_process import Process, now_ms, process
from tests.fakes.provider_router import Ask, FakeLink, FakeRouter

FOREVER_S = 3600
SCRIPT = "DARKBLOOM_PROVIDER_SCRIPT"
PRELOAD = "DARKBLOOM_PROVIDER_STARTUP_PRELOAD"


def scripted(link: FakeLink, **script: object) -> Ask:
    return link.ask(f"/script {json.dumps(script)}", now_ms=now_ms()).send()


async def accepted(link: FakeLink, ask: Ask) -> bool:
    """Return whether the request has to wait for a load."""
    frame = await link.take(FrameKind.FRAME_KIND_ACCEPTED, ask.stream)
    return Accepted.FromString(frame.payload).cold


async def until_it_loads(link: FakeLink) -> None:
    assert await accepted(link, scripted(link, text="never"))


async def until_it_reads(link: FakeLink) -> None:
    assert not await accepted(link, scripted(link, text="never", first_delay_s=FOREVER_S))


async def until_it_writes(link: FakeLink) -> None:
    ask = scripted(link, tokens=1000, interval_s=0.02)
    for _ in range(3):
        await ask.delta()


STAGES: tuple[tuple[dict[str, str], Callable[[FakeLink], Awaitable[None]]], ...] = (
    ({PRELOAD: "false", SCRIPT: json.dumps({"load_s": FOREVER_S})}, until_it_loads),
    ({}, until_it_reads),
    ({}, until_it_writes),
)
"""What the agent is started with, and how far its request has come when it is killed."""


async def serve_and_leave(agent: Process, router: FakeRouter) -> set[Path]:
    """Answer one request, drain, and return which files remain."""
    await agent.start()
    link = await router.next_link()
    await link.registration()
    answer = await scripted(link, text="here again").answer()
    assert (answer.text, answer.terminal.outcome) == ("here again", "completed")
    assert await agent.stop() == 0
    return {path.relative_to(agent.home) for path in agent.home.rglob("*")}


async def test_an_agent_killed_in_a_load_a_prefill_or_a_decode_serves_again_and_leaves_nothing(
    tmp_path,
):
    router = FakeRouter()
    async with serve_ephemeral(router.register) as target, process(tmp_path, target) as agent:
        untouched = await serve_and_leave(agent, router)
        keys = set()
        for more, reached in STAGES:
            await agent.start(**more)
            link = await router.next_link()
            keys.add((await link.registration()).encryption_key)
            await reached(link)
            agent.child.kill()
            assert await agent.child.wait() == -9
            await link.ended.wait()
            # Nothing was signed: the edge's count of what was opened is what it is paid by.
            assert FrameKind.FRAME_KIND_TERMINAL not in [frame.kind for frame in link.seen]
            assert journal.count(agent.home / "terminals.journal") == 0

        assert await serve_and_leave(agent, router) == untouched
    assert len(keys) == len(STAGES), "no key outlives its process"
