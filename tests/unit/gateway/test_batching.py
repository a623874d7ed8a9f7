import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from darkbloom_gateway.batching import Batcher, Outbox
from darkbloom_mesh.backoff import Backoff
from darkbloom_mesh.errors import OverloadedError, UnavailableError
from darkbloom_mesh.testing import FakeClock, settle


@asynccontextmanager
async def running(runner: Any) -> AsyncIterator[None]:
    task = asyncio.get_running_loop().create_task(runner.run())
    yield
    task.cancel()
    await asyncio.wait({task})


class Calls:
    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = asyncio.Event()
        self.fails = False

    async def __call__(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        await self.gate.wait()
        if self.fails:
            raise UnavailableError("down")
        return [item * 2 for item in items]


async def test_what_waits_for_a_call_travels_in_the_next_one() -> None:
    calls = Calls()
    batcher: Batcher[int, int] = Batcher(calls, max_batch=3)
    async with running(batcher):
        first = batcher.submit(1)
        await settle()
        others = [batcher.submit(item) for item in (2, 3, 4, 5)]
        calls.gate.set()

        assert await first == 2
        assert [await other for other in others] == [4, 6, 8, 10]
    assert calls.batches == [[1], [2, 3, 4], [5]]


async def test_a_failed_call_fails_its_batch_and_no_other() -> None:
    calls = Calls()
    calls.gate.set()
    calls.fails = True
    batcher: Batcher[int, int] = Batcher(calls)
    async with running(batcher):
        with pytest.raises(UnavailableError):
            await batcher.submit(1)
        calls.fails = False
        assert await batcher.submit(2) == 4


async def test_the_queue_is_bounded_and_told_when_we_stop() -> None:
    calls = Calls()
    batcher: Batcher[int, int] = Batcher(calls, max_waiting=2)
    async with running(batcher):
        running_now = batcher.submit(0)
        await settle()
        waiting = [batcher.submit(1), batcher.submit(2)]
        with pytest.raises(OverloadedError):
            batcher.submit(3)
    for answer in (running_now, *waiting):
        with pytest.raises(UnavailableError):
            await answer


async def test_an_outbox_delivers_again_until_it_is_taken() -> None:
    clock, taken, dropped = FakeClock(), [], []
    failures = iter([True, True, False, False])

    async def call(items: Sequence[int]) -> None:
        if next(failures):
            raise UnavailableError("down")
        taken.extend(items)

    outbox: Outbox[int] = Outbox(
        call,
        backoff=Backoff(lambda: 0.5),
        clock=clock,
        on_dropped=lambda: dropped.append(1),
        max_batch=2,
        max_waiting=3,
    )
    for item in range(4):
        outbox.put(item)
    async with running(outbox):
        await clock.advance(10)
        await outbox.flushed()
    assert taken == [0, 1, 2]
    assert dropped == [1]
