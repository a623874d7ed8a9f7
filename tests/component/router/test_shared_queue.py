"""One line for all replicas in a real Valkey: first come is first, and its loss loses nobody."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio
from darkbloom_local.stores import Valkey, running
from darkbloom_mesh.testing import FakeClock
from darkbloom_router.replicas.queue import FRESH_S, HOLD_S, SharedQueue
from darkbloom_router.replicas.store import open_store
from redis.asyncio import Redis

from tests.stores import valkey

BUILD, OTHER = "dev/scripted", "org/other"


@pytest.fixture(scope="module")
def valkey_url() -> Iterator[str]:
    with valkey() as url:
        yield url


@pytest_asyncio.fixture
async def store(valkey_url: str) -> AsyncIterator[Redis]:
    found = open_store(valkey_url)
    await found.flushall()
    yield found
    await found.aclose()


@dataclass
class Replica:
    """One replica's line, as a table."""

    store: Redis
    name: str
    clock: FakeClock = field(default_factory=FakeClock)
    line: dict[str, list[tuple[str, float]]] = field(default_factory=dict)
    retried: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.queue = SharedQueue(
            self.store, f"{self.name}/1", lambda: self.line, self.retried.append, self.clock
        )

    def stands(self, build: str = BUILD) -> tuple[int, int]:
        """Return how many wait elsewhere, and how many of them before anybody here."""
        place = self.queue.place(build)
        return (place.others, place.ahead) if place is not None else (0, 0)


async def looked(*replicas: Replica) -> None:
    """Let everybody tell, then everybody learn."""
    for _ in range(2):
        for replica in replicas:
            await replica.queue.look()


async def test_who_has_waited_longest_goes_first_wherever_he_is(store: Redis) -> None:
    first, second = Replica(store, "a"), Replica(store, "b")
    first.line = {BUILD: [("r1", 9.0), ("r2", 3.0)]}
    second.line = {BUILD: [("r3", 5.0)]}
    await looked(first, second)
    assert first.stands() == (1, 0)
    assert first.queue.hold_s(BUILD) == 0
    assert second.stands() == (2, 1)
    assert second.queue.hold_s(BUILD) == HOLD_S

    # The oldest has been served: now it is the other's turn.
    first.line = {BUILD: [("r2", 3.1)]}
    await looked(first, second)
    assert first.queue.hold_s(BUILD) == HOLD_S
    assert second.queue.hold_s(BUILD) == 0


async def test_a_replica_where_nobody_waits_knows_of_those_elsewhere(store: Redis) -> None:
    first, second = Replica(store, "a"), Replica(store, "b")
    first.line = {BUILD: [("r1", 1.0)], OTHER: [("r2", 1.0)]}
    await looked(first, second)
    assert second.stands(BUILD) == second.stands(OTHER) == (1, 1)
    assert first.stands(BUILD) == (0, 0)

    first.line = {}
    await looked(first, second)
    assert second.stands(BUILD) == second.stands(OTHER) == (0, 0)


async def test_a_place_in_line_is_kept_however_often_it_is_told(store: Redis) -> None:
    first, second = Replica(store, "a"), Replica(store, "b")
    first.line = {BUILD: [("r1", 2.0)]}
    second.line = {BUILD: [("r2", 1.0)]}
    await looked(first, second)
    # A waiter who says that he has waited less does not move back, nor forward with more.
    first.line = {BUILD: [("r1", 0.0)]}
    second.line = {BUILD: [("r2", 60.0)]}
    await looked(first, second)
    assert first.queue.hold_s(BUILD) == 0
    assert second.queue.hold_s(BUILD) == HOLD_S


async def test_the_waiters_of_a_dead_replica_are_forgotten(
    store: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("darkbloom_router.replicas.queue.LIFE_S", 0.0)
    dead = Replica(store, "a")
    dead.line = {BUILD: [("r1", 5.0)]}
    await dead.queue.look()
    monkeypatch.undo()
    left = Replica(store, "b")
    left.line = {BUILD: [("r2", 1.0)]}
    await left.queue.look()
    assert left.stands() == (0, 0)
    assert await store.zcard(f"rt:q:{{{BUILD}}}") == 1


async def test_without_the_store_each_replica_serves_its_own_line(tmp_path: Path) -> None:
    with running(Valkey(tmp_path)) as server:
        store = open_store(server.url)
        first, second = Replica(store, "a"), Replica(store, "b")
        first.line = {BUILD: [("r1", 5.0)]}
        second.line = {BUILD: [("r2", 1.0)]}
        await looked(first, second)
        assert second.queue.hold_s(BUILD) == HOLD_S
    await second.queue.look()
    assert second.queue.hold_s(BUILD) == HOLD_S
    await second.clock.advance(FRESH_S + 0.1)
    assert second.queue.hold_s(BUILD) == 0
    assert second.queue.elsewhere(BUILD) == 0
    await store.aclose()
