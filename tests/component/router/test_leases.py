"""Leases of identities in a real Valkey: never two live epochs, never an epoch that goes back."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from darkbloom_mesh.errors import StoreUnavailableError
from darkbloom_router.replicas.leases import Held, Leases, _key
from darkbloom_router.replicas.members import Member, Members
from darkbloom_router.replicas.store import open_store
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from tests.stores import valkey

IDENTITIES = [b"\x04" + bytes([number]) * 64 for number in range(2)]
SESSIONS = ["a/1", "b/1", "c/1"]


@pytest.fixture(scope="module")
def valkey_url() -> Iterator[str]:
    with valkey() as url:
        yield url


@dataclass
class Belief:
    """What a replica thinks that it holds."""

    epoch: int


class Ownership(RuleBasedStateMachine):
    """Replicas claim, renew, die and come back; the store forgets, as a whole or one lease."""

    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.store = open_store(self.url)
        self.run(self.store.flushall())
        self.leases = {session: Leases(self.store, session) for session in SESSIONS}
        self.beliefs: dict[tuple[str, bytes], Belief] = {}
        self.highest = dict.fromkeys(IDENTITIES, 0)
        self.winner: dict[bytes, tuple[str, int]] = {}

    def run(self, work):  # type: ignore[no-untyped-def]
        return self.loop.run_until_complete(work)

    @rule(session=st.sampled_from(SESSIONS), identity=st.sampled_from(IDENTITIES))
    def claim(self, session: str, identity: bytes) -> None:
        claim = self.run(self.leases[session].claim(identity))
        assert claim.epoch > self.highest[identity]
        self.highest[identity] = claim.epoch
        self.winner[identity] = (session, claim.epoch)
        self.beliefs[session, identity] = Belief(claim.epoch)

    @rule(session=st.sampled_from(SESSIONS))
    def renew(self, session: str) -> None:
        mine = [
            Held(identity, belief.epoch)
            for (owner, identity), belief in self.beliefs.items()
            if owner == session
        ]
        for lost in self.run(self.leases[session].renew(mine)):
            assert self.winner[lost.identity_key] != (session, lost.epoch)
            del self.beliefs[session, lost.identity_key]

    @rule(identity=st.sampled_from(IDENTITIES))
    def a_lease_runs_out(self, identity: bytes) -> None:
        self.run(self.store.delete(_key(identity)))

    @rule()
    def the_store_loses_its_memory(self) -> None:
        self.run(self.store.flushall())

    @invariant()
    def once_everybody_has_renewed_the_store_names_the_last_winner(self) -> None:
        for session in SESSIONS:
            self.renew(session)
        for identity, (session, epoch) in self.winner.items():
            held = self.run(self.store.get(_key(identity)))
            if held is not None and (session, identity) in self.beliefs:
                assert held.decode() == f"{session}|{epoch}"

    def teardown(self) -> None:
        self.run(self.store.aclose())
        self.loop.close()


def test_no_interleaving_gives_two_live_epochs(valkey_url: str) -> None:
    machine = type("Machine", (Ownership,), {"url": valkey_url})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=30,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


async def test_a_claim_names_who_had_it(valkey_url: str) -> None:
    store = open_store(valkey_url)
    await store.flushall()
    first = await Leases(store, "a/1").claim(IDENTITIES[0])
    again = await Leases(store, "a/1").claim(IDENTITIES[0])
    taken = await Leases(store, "b/1").claim(IDENTITIES[0])
    assert (first.former, again.former, taken.former) == ("", "", "a/1")
    assert first.epoch < again.epoch < taken.epoch
    await store.aclose()


async def test_without_a_store_nothing_changes_hands() -> None:
    store = open_store("unix:///nowhere/valkey.sock")
    with pytest.raises(StoreUnavailableError):
        await Leases(store, "a/1").claim(IDENTITIES[0])
    with pytest.raises(StoreUnavailableError):
        await Leases(store, "a/1").renew([Held(IDENTITIES[0], 1)])
    with pytest.raises(StoreUnavailableError):
        await Members(store, Member("a", "a/1", "127.0.0.1:1")).beat()
    await store.aclose()


async def test_who_asks_the_store_for_ever_can_be_cancelled_at_any_moment(valkey_url: str) -> None:
    store = open_store(valkey_url)
    await store.ping()

    async def ask_for_ever() -> None:
        while True:
            await store.ping()

    for turns in range(60):
        task = asyncio.create_task(ask_for_ever())
        for _ in range(turns):
            await asyncio.sleep(0)  # noqa: TID251 - a turn of the loop, no time
        task.cancel()
        ended, _ = await asyncio.wait({task}, timeout=5.0)
        assert ended, turns
        assert task.cancelled()
    # No answer that was left behind is taken for another's.
    assert await store.echo("one") == b"one"
    await store.aclose()


async def test_members_see_each_other_and_the_newest_process_of_a_name(valkey_url: str) -> None:
    store = open_store(valkey_url)
    await store.flushall()
    a = Members(store, Member("a", "a/1", "127.0.0.1:1"))
    dead, reborn = Member("b", "b/1", "127.0.0.1:2"), Member("b", "b/2", "127.0.0.1:2")
    assert await a.beat() == []
    assert [item.replica for item in await Members(store, dead).beat()] == ["a"]
    await Members(store, reborn, life_s=16.0).beat()
    assert await a.beat() == [reborn]
    await Members(store, reborn).leave()
    assert await a.beat() == [dead]
    await store.aclose()
