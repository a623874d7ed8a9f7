"""Builds come into memory by command or by a request, and the longest unused makes room."""

import asyncio
from pathlib import Path

import pytest
from darkbloom.common.v1.frame_pb2 import FrameKind
from darkbloom.router.v1.provider_link_pb2 import (
    Accepted,
    Heartbeat,
    LoadModel,
    LoadModelStatus,
    OperationStatus,
)
from darkbloom_edge.memory import GIB, Memory
from darkbloom_mesh.testing import FakeClock
from darkbloom_provider.claims import Claims
from darkbloom_provider.engine.errors import EngineError
from darkbloom_provider.engine.interface import Build
from darkbloom_provider.engine.scripted import ScriptedEngine
from darkbloom_provider.loads import Loads

from tests.component.provider.harness import BUILD, COLD_BUILD, staged


async def status(link) -> tuple[str, int, str]:
    frame = await link.take(FrameKind.FRAME_KIND_LOAD_MODEL_STATUS)
    message = LoadModelStatus.FromString(frame.payload)
    return message.model_id, message.status, message.error


async def test_a_command_loads_a_build_and_says_so(tmp_path):
    async with staged(tmp_path) as stage:
        link = await stage.link()
        link.send(FrameKind.FRAME_KIND_LOAD_MODEL, 0, LoadModel(model_id=COLD_BUILD))
        assert await status(link) == (COLD_BUILD, OperationStatus.OPERATION_STATUS_STARTED, "")
        assert await status(link) == (COLD_BUILD, OperationStatus.OPERATION_STATUS_SUCCEEDED, "")
        while True:
            beat = await link.take(FrameKind.FRAME_KIND_HEARTBEAT)
            slots = Heartbeat.FromString(beat.payload).capacity.slots
            if [slot.model for slot in slots] == [COLD_BUILD]:
                break  # the other one made room: one slot is all there is


async def test_a_command_for_a_build_that_is_not_here_is_refused(tmp_path):
    async with staged(tmp_path) as stage:
        link = await stage.link()
        link.send(FrameKind.FRAME_KIND_LOAD_MODEL, 0, LoadModel(model_id="dev/other"))
        failed = OperationStatus.OPERATION_STATUS_FAILED
        assert await status(link) == ("dev/other", failed, "unknown_build")


async def test_a_command_does_not_evict_what_is_in_use(tmp_path):
    async with staged(tmp_path) as stage:
        link = await stage.link()
        ask = stage.ask(link, script={"tokens": 5000, "interval_s": 0.01}).send()
        await ask.delta()
        link.send(FrameKind.FRAME_KIND_LOAD_MODEL, 0, LoadModel(model_id=COLD_BUILD))
        await status(link)
        failed = OperationStatus.OPERATION_STATUS_FAILED
        assert await status(link) == (COLD_BUILD, failed, "insufficient_memory")
        link.cancel(ask.stream)
        await ask.terminal()


async def test_a_request_for_a_cold_build_loads_it_and_is_answered(tmp_path):
    async with staged(tmp_path) as stage:
        link = await stage.link()
        await stage.desk.loads.load(COLD_BUILD)
        ask = stage.ask(link, script={"text": "woken"}).send()
        frame = await link.take(FrameKind.FRAME_KIND_ACCEPTED, ask.stream)
        assert Accepted.FromString(frame.payload).cold
        assert (await ask.answer()).text == "woken"
        assert stage.desk.loads.warm(BUILD)
        assert not stage.desk.loads.warm(COLD_BUILD)


async def test_the_longest_unused_build_makes_room():
    clock = FakeClock()
    engine = ScriptedEngine(clock=clock)
    builds = [Build(build_id=f"dev/{name}") for name in "abc"]
    loads = Loads(engine, builds, slots=2, clock=clock)
    for build_id in ("dev/a", "dev/b", "dev/a", "dev/c"):
        await loads.load(build_id)
        await clock.advance(1.0)
    assert [loads.warm(build.build_id) for build in builds] == [True, False, True]


async def test_a_build_that_a_request_is_about_to_use_stays():
    engine = ScriptedEngine(clock=FakeClock())
    builds = [Build(build_id="dev/a"), Build(build_id="dev/b")]
    loads = Loads(engine, builds, slots=1, clock=FakeClock())
    async with loads.held("dev/a"):
        with pytest.raises(EngineError):
            await loads.load("dev/b")
    await loads.load("dev/b")
    assert not loads.warm("dev/a")


async def test_a_build_that_nobody_asks_for_is_unloaded_and_comes_back() -> None:
    clock = FakeClock()
    engine = ScriptedEngine(clock=clock)
    builds = [Build(build_id=f"dev/{name}") for name in "ab"]
    loads = Loads(engine, builds, slots=2, clock=clock, idle_s=300.0)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(loads.run())
        await loads.load("dev/a")
        await loads.load("dev/b")
        await clock.advance(200.0)
        async with loads.held("dev/b"):
            await clock.advance(200.0)
            assert [slot.model for slot in engine.slots()] == ["dev/b"]
        await clock.advance(200.0)
        assert [slot.model for slot in engine.slots()] == ["dev/b"]
        await clock.advance(200.0)
        assert engine.slots() == []
        await loads.load("dev/a")
        assert loads.warm("dev/a")
        running.cancel()


def claims_of(free_gib: float) -> Claims:
    """Judge by a machine of 64 GiB of which so much is free for loads."""
    reserve = 8 * GIB
    available = int(free_gib * GIB) + reserve

    def memory(pending: int) -> Memory:
        return Memory(
            physical=64 * GIB, available=available, reserve=reserve, pending_loads=pending
        )

    return Claims(memory)


def sparse_build(folder: Path, name: str, gib: int) -> Build:
    directory = folder / name
    directory.mkdir()
    with (directory / "model.safetensors").open("wb") as file:
        file.truncate(gib * GIB)
    return Build(build_id=f"dev/{name}", directory=directory)


async def test_loads_beside_each_other_do_not_count_on_the_same_memory(tmp_path):
    one, other = sparse_build(tmp_path, "one", 10), sparse_build(tmp_path, "other", 10)
    claims = claims_of(20.0)  # 10 x 1.2 + 5.5 + 1 fit, twice they do not

    assert await claims.claim(one)
    assert not await claims.claim(other)
    claims.settle(one.build_id)
    assert await claims.claim(other)


async def test_a_build_that_memory_does_not_hold_is_refused_when_nothing_can_make_room(tmp_path):
    clock = FakeClock()
    engine = ScriptedEngine(clock=clock)
    builds = [sparse_build(tmp_path, "small", 1), sparse_build(tmp_path, "large", 40)]
    loads = Loads(engine, builds, slots=2, clock=clock, claims=claims_of(20.0))
    await loads.load("dev/small")
    with pytest.raises(EngineError, match="memory is in use"):
        await loads.load("dev/large")
    assert engine.slots() == [], "room was made as far as it could be"
