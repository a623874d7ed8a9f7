"""Natural batches: what waits travels together, and nobody disturbs his neighbours."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from darkbloom_billing.batch import MAX_ROWS, NaturalBatch
from darkbloom_mesh.errors import OverloadedError, StoreUnavailableError, UnavailableError
from darkbloom_mesh.testing import settle


class Work:
    """Doubles numbers when it is let; -13 breaks it, 500 is a store that is away."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, rows: Sequence[int]) -> list[int]:
        self.batches.append(list(rows))
        await self.gate.wait()
        if 500 in rows:
            raise StoreUnavailableError("away")
        if -13 in rows:
            raise ValueError("poison")
        return [2 * row for row in rows]


@asynccontextmanager
async def running(work: Work, **options: int) -> AsyncIterator[NaturalBatch[int, int]]:
    batch: NaturalBatch[int, int] = NaturalBatch(work, **options)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(batch.run())
        yield batch
        task.cancel()


async def test_what_waits_during_a_batch_travels_in_the_next() -> None:
    work = Work()
    work.gate.clear()
    async with running(work) as batch:
        calls = [asyncio.ensure_future(batch.submit([n])) for n in range(5)]
        await settle()
        assert work.batches == [[0, 1, 2, 3, 4]]
        more = [asyncio.ensure_future(batch.submit([n])) for n in range(5, 8)]
        await settle()
        assert len(work.batches) == 1
        work.gate.set()
        assert await asyncio.gather(*calls, *more) == [[2 * n] for n in range(8)]
        assert work.batches[1:] == [[5, 6, 7]]


async def test_a_batch_has_a_bound() -> None:
    work = Work()
    async with running(work) as batch:
        assert await batch.submit(range(150)) == [2 * n for n in range(150)]
    assert [len(rows) for rows in work.batches] == [MAX_ROWS, MAX_ROWS, 150 - 2 * MAX_ROWS]


async def test_a_caller_that_leaves_does_not_disturb_its_batch() -> None:
    work = Work()
    work.gate.clear()
    async with running(work) as batch:
        leaving = asyncio.ensure_future(batch.submit([1]))
        staying = asyncio.ensure_future(batch.submit([2]))
        await settle()
        queued = asyncio.ensure_future(batch.submit([3]))
        await settle()
        leaving.cancel()
        queued.cancel()
        await settle()
        work.gate.set()
        assert await staying == [4]
        assert await batch.submit([5]) == [10]
        assert work.batches == [[1, 2], [5]]


async def test_a_row_that_breaks_the_work_fails_alone() -> None:
    work = Work()
    async with running(work) as batch:
        calls = (batch.submit([1]), batch.submit([-13]), batch.submit([2]))
        results = await asyncio.gather(*calls, return_exceptions=True)
    assert results[0] == [2]
    assert isinstance(results[1], ValueError)
    assert results[2] == [4]


async def test_a_store_that_is_away_fails_the_batch_once() -> None:
    work = Work()
    async with running(work) as batch:
        results = await asyncio.gather(
            batch.submit([1]), batch.submit([500]), return_exceptions=True
        )
    assert [type(result) for result in results] == [StoreUnavailableError] * 2
    assert len(work.batches) == 1


async def test_too_many_waiting_rows_are_refused() -> None:
    work = Work()
    work.gate.clear()
    async with running(work, max_waiting=3) as batch:
        waiting = asyncio.ensure_future(batch.submit([1]))
        await settle()
        queued = asyncio.ensure_future(batch.submit([1, 2, 3]))
        await settle()
        with pytest.raises(OverloadedError):
            await batch.submit([4])
        work.gate.set()
        assert await queued == [2, 4, 6]
        await waiting


async def test_whoever_waits_at_the_end_is_told() -> None:
    work = Work()
    work.gate.clear()
    async with running(work) as batch:
        calls = [asyncio.ensure_future(batch.submit([1]))]
        await settle()
        calls.append(asyncio.ensure_future(batch.submit([2])))
        await settle()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(result) for result in results] == [UnavailableError] * 2
