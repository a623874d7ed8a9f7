import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Self

from darkbloom_attestation.feed import Heartbeat, RevocationFeed, Revoked, Synced
from darkbloom_attestation.model import IssuedRevocation, Signed
from darkbloom_mesh.backoff import Backoff
from darkbloom_mesh.errors import StoreUnavailableError
from darkbloom_mesh.testing import FakeClock, settle

SIGNED = Signed(document=b"{}", signature=b"s", key_id="k")


class Source:
    """A store of revocations that a test fills and takes away."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.rows: list[tuple[int, IssuedRevocation]] = []
        self.down = False
        self.notify: Callable[[], None] = lambda: None
        self.lost = asyncio.Event()

    def revoke(self) -> None:
        """Write one more."""
        number = len(self.rows) + 1
        revocation = IssuedRevocation(
            revocation_id=f"rev_{number}",
            verdict_id=f"ver_{number}",
            reason="test",
            signed=SIGNED,
            issue_time=self.clock.now(),
        )
        self.rows.append((number, revocation))

    async def revocations(
        self, after: int, since: datetime
    ) -> tuple[int, Sequence[tuple[int, IssuedRevocation]]]:
        """Return what came after."""
        if self.down:
            raise StoreUnavailableError("away")
        found = [row for row in self.rows if row[0] > after and row[1].issue_time >= since]
        return len(self.rows), found

    async def listen(self, notify: Callable[[], None]) -> None:
        """Listen until the test says that the connection is lost."""
        if self.down:
            raise StoreUnavailableError("away")
        self.notify = notify
        notify()
        await self.lost.wait()
        self.lost.clear()


class Running:
    """A feed with its source, its clock and one watcher."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.source = Source(self.clock)
        self.feed = RevocationFeed(self.source, self.clock, Backoff(lambda: 0.5))
        self.seen: list[str] = []

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
        names = {Revoked: "revoked", Synced: "synced", Heartbeat: "alive"}
        async for event in self.feed.watch(0):
            self.seen.append(f"{names[type(event)]} {event.generation}")


async def test_a_watcher_is_synced_first_and_sees_each_revocation_once() -> None:
    async with Running() as running:
        for _ in range(3):
            running.source.revoke()
            running.source.notify()
            await settle()
        assert running.seen == ["synced 0", "revoked 1", "revoked 2", "revoked 3"]


async def test_a_lost_notification_is_noticed_before_the_next_heartbeat() -> None:
    async with Running() as running:
        running.source.revoke()
        await running.clock.advance(10)
        assert running.seen == ["synced 0", "revoked 1", "alive 1"]


async def test_a_blind_replica_sends_no_heartbeat() -> None:
    async with Running() as running:
        running.source.down = True
        running.source.lost.set()
        await running.clock.advance(60)
        assert running.seen == ["synced 0"]

        running.source.down = False
        running.source.revoke()
        await running.clock.advance(40)
        assert running.seen[:2] == ["synced 0", "revoked 1"]
        assert "alive 1" in running.seen


async def test_what_no_longer_matters_is_forgotten() -> None:
    async with Running() as running:
        running.source.revoke()
        running.source.notify()
        await running.clock.advance(19 * 60)
        events = running.feed.watch(0)
        assert await anext(events) == Synced(1)
        await events.aclose()


async def test_a_slow_watcher_misses_nothing() -> None:
    running = Running()
    await running.feed.load()
    events = running.feed.watch(0)
    assert await anext(events) == Synced(0)
    async with asyncio.TaskGroup() as tasks:
        follower = tasks.create_task(running.feed.follow())
        await settle()
        for _ in range(500):
            running.source.revoke()
            running.source.notify()
            await settle()
        seen = [(await anext(events)).generation for _ in range(500)]
        follower.cancel()
    assert seen == list(range(1, 501))
    await events.aclose()
