"""What hangs, breaks or gets nowhere: its jobs end, its slot is replaced, all else goes on."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from darkbloom_mesh.testing import FakeClock
from darkbloom_provider.engine.errors import ErrorReason, FailureCode
from darkbloom_provider.engine.interface import Build, OutcomeKind, SlotState, SlotStatus
from darkbloom_provider.engine.leases import LEASE_S, STEP_S, WEDGE_S, Lease
from darkbloom_provider.engine.limits import EngineLimits
from darkbloom_provider.engine.local import WATCH_S, LocalEngine
from darkbloom_provider.engine.slot import MAX_RESTARTS, RESTART_WINDOW_S, Restarts

from tests.unit.provider.engine.support import (
    PlannedLoader,
    RecordingSink,
    job,
    tiny_tokenizer,
    write_tokenizer,
)

ENDLESS = tiny_tokenizer().encode(" x")
ONE, OTHER = "org/tiny", "org/other"


class Stage:
    """An engine with a clock that stands still unless it is told."""

    def __init__(self, files: Path) -> None:
        self.files = files
        self.clock = FakeClock()
        self.loader = PlannedLoader(lambda _spec: ENDLESS)
        self.engine = LocalEngine(
            loader=self.loader,
            limits=EngineLimits(kv_budget_bytes=1_000_000, max_concurrency=1),
            clock=self.clock,
            draw=lambda bits: (1 << bits) - 1,
        )

    async def load(self, build_id: str) -> None:
        await self.engine.load(Build(build_id=build_id, directory=self.files))

    def slot(self, build_id: str) -> SlotState:
        (state,) = [slot for slot in self.engine.slots() if slot.model == build_id]
        return state

    async def until(self, met: Callable[[], bool]) -> None:
        """Let the watch look again and again until something has become true."""
        async with asyncio.timeout(20):
            while not met():
                await self.clock.advance(WATCH_S)
                await asyncio.to_thread(lambda: None)

    async def hang(self) -> threading.Event:
        """Hold the first model up inside a step; setting the event lets it go."""
        model, gate = self.loader.models[0], threading.Event()
        model.gate = gate
        assert await asyncio.to_thread(model.inside.wait, 20)
        return gate

    async def asleep(self) -> None:
        """Wait until the thread of the first model has nothing that it could do."""
        assert await asyncio.to_thread(self.loader.models[0].asleep.wait, 20)


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Path]:
    write_tokenizer(tmp_path)
    return tmp_path


@asynccontextmanager
async def staged(files: Path) -> AsyncIterator[Stage]:
    stage = Stage(files)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(stage.engine.run())
        try:
            await stage.load(ONE)
            yield stage
        finally:
            await stage.engine.close()


async def test_a_hung_step_ends_its_jobs_and_restarts_its_slot_alone(files: Path) -> None:
    async with staged(files) as stage:
        await stage.load(OTHER)
        stuck, well = RecordingSink(), RecordingSink()
        await stage.engine.submit(job("stuck", max_tokens=400), stuck)
        gate = await stage.hang()
        await stage.engine.submit(job("well", build_id=OTHER, max_tokens=300), well)
        kept = await well.end()
        await stage.clock.advance(STEP_S + WATCH_S)
        once = stuck.outcome
        await stage.clock.advance(WATCH_S)
        failed = await stuck.end()
        await stage.until(lambda: stage.slot(ONE).state is SlotStatus.IDLE)
        again = RecordingSink()
        await stage.engine.submit(job("again", max_tokens=3), again)
        answered = await again.end()
        said = len(stuck.deltas)
        gate.set()
        assert len(stage.loader.models) == 3

    assert once is None, "a machine that stood still has not hung"
    assert failed.kind is OutcomeKind.ERROR
    assert failed.error is not None
    assert failed.error.code is FailureCode.GENERATION_FAILURE
    assert answered.kind is OutcomeKind.COMPLETED
    assert kept.usage.completion_tokens == 300
    assert len(stuck.deltas) == said


async def test_a_thread_that_dies_is_replaced(files: Path) -> None:
    async with staged(files) as stage:
        sink = RecordingSink()
        await stage.engine.submit(job(max_tokens=400), sink)
        stage.loader.models[0].die_next = RuntimeError("gone")
        outcome = await sink.end()
        await stage.until(lambda: len(stage.loader.models) > 1)
        await stage.until(lambda: stage.slot(ONE).state is SlotStatus.IDLE)

    assert outcome.kind is OutcomeKind.ERROR


async def test_a_model_that_broke_is_loaded_again_by_the_watch(files: Path) -> None:
    async with staged(files) as stage:
        sink = RecordingSink()
        await stage.engine.submit(job(max_tokens=400), sink)
        stage.loader.models[0].fail_next = RuntimeError("boom")
        await sink.end()
        crashed = stage.slot(ONE).state
        await stage.until(lambda: stage.slot(ONE).state is SlotStatus.IDLE)

    assert crashed is SlotStatus.CRASHED


async def test_a_job_that_finds_no_place_is_refused_when_its_lease_is_over(files: Path) -> None:
    async with staged(files) as stage:
        first, second = RecordingSink(), RecordingSink()
        model = stage.loader.models[0]
        model.concurrency = 0  # nobody is admitted
        await stage.engine.submit(job("a", max_tokens=400), first)
        await stage.asleep()
        await stage.clock.advance(LEASE_S + WATCH_S)
        outcome = await first.end()
        model.concurrency = 1
        await stage.engine.submit(job("b", max_tokens=3), second)
        after = await second.end()

    assert outcome.error is not None
    assert (outcome.error.code, outcome.error.reason) == (
        FailureCode.CAPACITY,
        ErrorReason.QUEUE_FULL,
    )
    assert after.kind is OutcomeKind.COMPLETED


async def test_a_job_whose_consumer_takes_nothing_is_cancelled(files: Path) -> None:
    async with staged(files) as stage:
        sink = RecordingSink()
        await stage.engine.submit(job(max_tokens=400), sink)
        await sink.more(2)
        stage.engine.pause("j")
        await stage.asleep()
        await stage.clock.advance(LEASE_S - WATCH_S)
        early = sink.outcome
        await stage.clock.advance(2 * WATCH_S)
        outcome = await sink.end()
        used = stage.slot(ONE).active_token_budget_used

    assert early is None
    assert outcome.kind is OutcomeKind.CANCELLED
    assert outcome.usage.completion_tokens >= 2
    assert used == 0


async def test_a_slot_with_work_that_gets_nowhere_is_suspected(files: Path) -> None:
    async with staged(files) as stage:
        idle_for_long = WEDGE_S * 3
        await stage.clock.advance(idle_for_long)
        idle = stage.slot(ONE).wedge_suspected
        sink = RecordingSink()
        await stage.engine.submit(job(max_tokens=400), sink)
        gate = await stage.hang()
        fresh = stage.slot(ONE).wedge_suspected
        await stage.clock.advance(WEDGE_S + WATCH_S)
        suspected = stage.slot(ONE).wedge_suspected
        gate.set()

    assert (idle, fresh, suspected) == (False, False, True)


async def test_a_load_holds_up_nobody_else(files: Path) -> None:
    async with staged(files) as stage:
        stage.loader.gate = threading.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(stage.load(OTHER))
            sink, cancelled = RecordingSink(), RecordingSink()
            await stage.engine.submit(job("a", max_tokens=20), sink)
            answered = await sink.end()
            await stage.engine.submit(job("b", max_tokens=400), cancelled)
            await cancelled.more(1)
            stage.engine.cancel("b")
            ended = await cancelled.end()
            loading = stage.slot(OTHER).state
            stage.loader.gate.set()

    assert answered.usage.completion_tokens == 20
    assert ended.kind is OutcomeKind.CANCELLED
    assert loading is SlotStatus.RELOADING


def test_a_slot_that_breaks_again_and_again_stays_down_for_a_while() -> None:
    clock = FakeClock()
    restarts = Restarts(clock.monotonic)
    assert all(restarts.allowed(ONE) for _ in range(MAX_RESTARTS))
    assert not restarts.allowed(ONE)
    assert restarts.allowed(OTHER)
    clock.jump(RESTART_WINDOW_S)
    assert restarts.allowed(ONE)


def test_a_lease_says_what_it_was_over() -> None:
    waiting, reading, paused = Lease(0.0), Lease(0.0), Lease(0.0)
    reading.renew(5.0)
    paused.renew(5.0)
    paused.pause(6.0, paused=True)

    assert not waiting.expired(LEASE_S)
    assert waiting.expired(LEASE_S + 0.1)
    assert not reading.expired(LEASE_S + 5.0)
    full, slow = waiting.error(), reading.error()
    assert full is not None
    assert full.reason is ErrorReason.QUEUE_FULL
    assert slow is not None
    assert slow.code is FailureCode.GENERATION_FAILURE
    assert paused.error() is None
