import asyncio
from collections.abc import Callable
from typing import Self

import pytest
from darkbloom_mesh.backoff import Backoff
from darkbloom_mesh.errors import DrainingError, StoreUnavailableError
from darkbloom_mesh.testing import FakeClock, settle
from darkbloom_registry.feed import CatalogFeed, Heartbeat
from darkbloom_registry.model import Catalog


class Source:
    """A store whose generation a test moves, with or without a notification."""

    def __init__(self) -> None:
        self.newest = 1
        self.down = False
        self.notify: Callable[[], None] = lambda: None
        self.lost = asyncio.Event()

    async def generation(self) -> int:
        """Return what the test has set."""
        if self.down:
            raise StoreUnavailableError("away")
        return self.newest

    async def catalog(self) -> Catalog:
        """Return an empty catalog of that generation."""
        return Catalog(generation=await self.generation(), builds=(), aliases=())

    async def listen(self, notify: Callable[[], None]) -> None:
        """Listen until the test says that the connection is lost."""
        await self.generation()
        self.notify = notify
        notify()
        await self.lost.wait()
        self.lost.clear()


class Running:
    """A feed with its source, its clock and one watcher."""

    def __init__(self, after: int = 0) -> None:
        self.clock = FakeClock()
        self.source = Source()
        self.feed = CatalogFeed(self.source, self.clock, Backoff(lambda: 0.5))
        self.seen: list[object] = []
        self.after = after

    async def __aenter__(self) -> Self:
        await self.feed.load()
        self.tasks = asyncio.TaskGroup()
        await self.tasks.__aenter__()
        self.follower = self.tasks.create_task(self.feed.follow())
        self.watcher = self.tasks.create_task(self.watch())
        await settle()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.follower.cancel()
        self.watcher.cancel()
        await self.tasks.__aexit__(None, None, None)

    async def watch(self) -> None:
        """Note what a watcher sees."""
        async for event in self.feed.watch(self.after):
            self.seen.append(event.generation if isinstance(event, Catalog) else event)


async def test_a_new_watcher_gets_the_catalog_at_once() -> None:
    async with Running() as running:
        assert running.seen == [1]


async def test_a_watcher_that_has_it_gets_a_heartbeat_instead() -> None:
    async with Running(after=1) as running:
        assert running.seen == [Heartbeat(1)]


async def test_a_notified_write_reaches_the_watcher() -> None:
    async with Running() as running:
        running.source.newest = 2
        running.source.notify()
        await settle()
        assert running.seen == [1, 2]


async def test_heartbeats_come_every_ten_seconds() -> None:
    async with Running() as running:
        await running.clock.advance(30)
        assert running.seen == [1, *[Heartbeat(1)] * 3]


async def test_a_lost_notification_is_noticed_at_the_next_heartbeat() -> None:
    async with Running() as running:
        running.source.newest = 2
        await running.clock.advance(10)
        assert 2 in running.seen


async def test_an_outage_of_the_store_keeps_the_last_catalog_and_the_heartbeats() -> None:
    async with Running() as running:
        running.source.down = True
        running.source.lost.set()
        await running.clock.advance(20)
        assert running.seen == [1, Heartbeat(1), Heartbeat(1)]

        running.source.down, running.source.newest = False, 2
        await running.clock.advance(10)
        assert running.seen[3:] == [2] or running.seen[3:] == [Heartbeat(1), 2]


async def test_a_generation_from_the_past_is_sent_too() -> None:
    async with Running(after=57) as running:
        assert running.seen == [1]


async def test_a_blank_store_takes_nobodys_catalog_away() -> None:
    running = Running(after=57)
    running.source.newest = 0
    async with running:
        assert running.seen == [Heartbeat(57)]


async def test_a_slow_watcher_skips_to_the_newest() -> None:
    running = Running()
    await running.feed.load()
    events = running.feed.watch(0)
    await anext(events)
    async with asyncio.TaskGroup() as tasks:
        follower = tasks.create_task(running.feed.follow())
        for running.source.newest in range(2, 9):
            running.source.notify()
            await settle()
        newest = await anext(events)
        follower.cancel()
    assert isinstance(newest, Catalog)
    assert newest.generation == 8
    await events.aclose()


async def test_a_leaving_replica_ends_its_watches() -> None:
    running = Running()
    await running.feed.load()
    events = running.feed.watch(0)
    await anext(events)
    await running.feed.close()
    with pytest.raises(DrainingError):
        await anext(events)
