"""Owed work is done at least once, by one replica at a time, and never lost."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from darkbloom_billing.books.outbox import Dispatcher, Job, Outbox, put
from darkbloom_billing.store.database import Connection
from darkbloom_mesh.errors import ForbiddenError, UnavailableError

from tests.component.billing.shop import DOLLAR, Shop, shop
from tests.component.billing.world import owner


async def owe(s: Shop, key: str, kind: str = "call", **payload: Any) -> None:
    async def work(connection: Connection) -> None:
        await put(connection, kind, key, payload, now=s.clock.now())

    await s.database.run(work)


class Worker:
    """Does jobs, or fails as often as it is told."""

    def __init__(self, s: Shop, failures: int = 0) -> None:
        self.done: list[Job] = []
        self.failures = failures
        self.outbox = Outbox(s.database, s.clock)
        self.dispatcher = Dispatcher(self.outbox, {"call": self.call}, lambda: 1.0, deadline_s=1.0)

    async def call(self, job: Job) -> None:
        if self.failures:
            self.failures -= 1
            raise UnavailableError("stripe is away")
        self.done.append(job)


async def test_a_job_is_owed_with_its_command_or_not_at_all(url: str) -> None:
    async with shop(url) as s:
        await s.people("acct_a")
        worker = Worker(s)

        async def also(connection: Connection) -> None:
            await put(connection, "call", "cs_1", {"amount": 1}, now=s.clock.now())

        async def fails(connection: Connection) -> None:
            await also(connection)
            raise ForbiddenError("no")

        with pytest.raises(ForbiddenError):
            await s.books.deposit("cs_1", "acct_a", DOLLAR, also=fails)
        assert await worker.dispatcher.round() == 0
        for _ in range(2):
            await s.books.deposit("cs_1", "acct_a", DOLLAR, also=also)
        assert await worker.dispatcher.round() == 1
        assert await worker.dispatcher.round() == 0
        assert [(job.key, job.payload) for job in worker.done] == [("cs_1", {"amount": 1})]


async def test_the_same_key_is_owed_once(url: str) -> None:
    async with shop(url) as s:
        worker = Worker(s)
        for _ in range(3):
            await owe(s, "a")
        assert await worker.dispatcher.round() == 1
        await owe(s, "a")
        assert await worker.dispatcher.round() == 0


async def test_failures_are_repeated_with_growing_waits_for_ever(url: str) -> None:
    async with shop(url) as s:
        worker = Worker(s, failures=12)
        await owe(s, "a")
        waits = []
        while not worker.done:
            if not await worker.dispatcher.round():
                s.clock.jump(1)
                waits[-1] += 1
                continue
            waits.append(0)
        assert waits[:-1] == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]
        assert await worker.outbox.waiting() == (0, 0.0)


async def test_jobs_of_a_replica_that_died_are_taken_over(url: str) -> None:
    async with shop(url) as s:
        dead, worker = Worker(s), Worker(s)
        await owe(s, "a")
        (job,) = await dead.outbox.claim(["call"], lease=timedelta(seconds=60))
        assert await worker.dispatcher.round() == 0
        s.clock.jump(61)
        assert await worker.outbox.waiting() == (1, 61.0)
        assert await worker.dispatcher.round() == 1
        # The dead one comes back: its word no longer counts.
        await dead.outbox.again(job, wait_s=1, error="late")
        assert await worker.outbox.waiting() == (0, 0.0)


async def test_replicas_at_once_do_each_job_once(url: str) -> None:
    async with shop(url) as s:
        workers = [Worker(s) for _ in range(4)]
        for n in range(40):
            await owe(s, f"job_{n}")

        async def all_of_it(worker: Worker) -> None:
            while await worker.dispatcher.round():
                continue

        await asyncio.gather(*(all_of_it(worker) for worker in workers))
        keys = [job.key for worker in workers for job in worker.done]
        assert sorted(keys) == sorted(f"job_{n}" for n in range(40))


async def test_a_kind_that_nobody_here_knows_waits(url: str) -> None:
    async with shop(url) as s:
        worker = Worker(s)
        await owe(s, "a", kind="later")
        assert await worker.dispatcher.round() == 0
        assert (await worker.outbox.waiting())[0] == 1


async def test_a_handler_that_hangs_is_cut_off_and_repeated(url: str) -> None:
    async with shop(url) as s:
        worker = Worker(s)
        calls = 0

        async def hang(_job: Job) -> None:
            nonlocal calls
            calls += 1
            if calls == 1:
                await asyncio.Event().wait()

        dispatcher = Dispatcher(worker.outbox, {"call": hang}, lambda: 0.0, deadline_s=0.05)
        await owe(s, "a")
        assert await dispatcher.round() == 1
        s.clock.jump(1)
        assert await dispatcher.round() == 1
        assert await worker.outbox.waiting() == (0, 0.0)


async def test_a_job_that_was_written_wakes_the_dispatcher(url: str) -> None:
    async with shop(url) as s:
        worker = Worker(s)
        done = asyncio.Event()
        dispatcher = Dispatcher(worker.outbox, {"call": lambda _job: _set(done)}, lambda: 1.0)
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            running = group.create_task(dispatcher.run(3600))
            hearing = group.create_task(
                s.database.run_listener({"billing_outbox": dispatcher.wake})
            )
            await owe(s, "a")
            await done.wait()
            running.cancel()
            hearing.cancel()


async def _set(event: asyncio.Event) -> None:
    event.set()


async def test_finished_work_is_forgotten_after_a_time_and_nothing_else(url: str) -> None:
    async with shop(url) as s, owner(url) as db:
        worker = Worker(s)
        for key in ("old", "young"):
            await owe(s, key)
        await worker.dispatcher.round()
        await owe(s, "owed")
        await db.execute(
            "UPDATE billing.outbox SET done_at = CASE key "
            "WHEN 'old' THEN '2020-01-01'::timestamptz ELSE now() END WHERE done_at IS NOT NULL"
        )
        await db.execute(
            """INSERT INTO billing.stripe_event (event_id, source, kind, object_id, stripe_account,
                 payload_hash, facts, happened_at, received_at, state, next_at)
               SELECT 'evt_' || state, 'payments', 'charge.refunded', 'ch_1', '',
                 decode(repeat('00', 32), 'hex'), '{}', '2020-01-01', '2020-01-01', state,
                 '2020-01-01'
               FROM unnest(ARRAY['done', 'waiting', 'stuck']) AS state"""
        )
        await db.execute(
            """INSERT INTO billing.key_change (generation, key_id, key_hash, changed_at)
               VALUES (-2, 'old', '', '2020-01-01'), (-1, 'young', '', now())"""
        )
        far = s.clock.now() + timedelta(days=36500)
        assert await worker.outbox.forget(before=far, limit=10) == 3
        assert await worker.outbox.forget(before=far, limit=10) == 0
        assert await db.fetchval("SELECT count(*) FROM billing.stripe_event") == 2
        kept = "SELECT key_id FROM billing.key_change WHERE generation < 0"
        assert await db.fetchval(kept) == "young"
        left = await db.fetch("SELECT key FROM billing.outbox ORDER BY key")
        assert [row["key"] for row in left] == ["owed", "young"]
