"""What is held against a machine is one thing, whichever replica asked and whoever holds it."""

from darkbloom.router.v1 import fleet_service_pb2 as fleet_pb
from darkbloom.router.v1 import machine_faults_pb2 as words
from darkbloom.router.v1 import provider_link_pb2 as pl
from darkbloom_router.provider import Provider

from tests.component.router.harness import PATIENCE_S, K, ScriptedProvider, World
from tests.component.router.pairs import Pair

FAILED = pl.FAILURE_CODE_GENERATION_FAILURE


def known(world: World, provider: ScriptedProvider) -> Provider:
    return world.router.fleet.providers[provider.provider_id]


async def fail_once(pair: Pair, at: World, provider: ScriptedProvider, code: int = FAILED) -> None:
    """Let one request through a replica fail on a provider."""
    gateway = await at.gateway()
    stream, _, _ = await gateway.dispatched()
    sent, _ = await provider.request()
    provider.error(sent, code)
    assert (await gateway.refused(stream)).http_status
    await pair.told()


async def gates(world: World, provider: ScriptedProvider) -> list[pl.GateReason.ValueType]:
    found = await world.fleet.ExplainProvider(
        fleet_pb.ExplainProviderRequest(provider=provider.provider_id), timeout=PATIENCE_S
    )
    return [item.reason for item in found.explanations]


async def test_faults_seen_by_two_replicas_are_strikes_of_one_machine(pair: Pair) -> None:
    provider = await pair.provider()
    await fail_once(pair, pair.holder, provider)
    held = known(pair.holder, provider)
    assert held.faults is not None
    assert not held.faults.pairs["dev/scripted"].strikes[0].flush

    await fail_once(pair, pair.asker, provider)
    assert [len(held.faults.node.events), len(held.faults.pairs["dev/scripted"].strikes)] == [2, 2]
    mirror = known(pair.asker, provider)
    await pair.asker.until(
        lambda: mirror.faults is not None and len(mirror.faults.node.events) == 2
    )
    for world in (pair.holder, pair.asker):
        assert await gates(world, provider) == [pl.GATE_REASON_ERROR_COOLDOWN]


async def test_a_machine_that_is_full_at_one_replica_is_full_at_the_other(pair: Pair) -> None:
    provider = await pair.provider()
    await fail_once(pair, pair.asker, provider, pl.FAILURE_CODE_CAPACITY)
    assert await gates(pair.holder, provider) == [pl.GATE_REASON_FREE_MEMORY]

    # A heartbeat shows room, and one request finds out, wherever it comes from.
    provider.heartbeat(slots=[pl.Slot(model="dev/scripted", active_token_budget_max=100_000)])
    await pair.told()
    gateway = await pair.holder.gateway()
    _, _, offer = await gateway.dispatched()
    sent, _ = await provider.request()
    provider.accept(sent)
    await pair.holder.accepted(offer.attempt_stream)
    await pair.told()
    mirror = known(pair.asker, provider)
    await pair.asker.until(
        lambda: mirror.faults is not None and mirror.faults.pairs["dev/scripted"].clamped_at is None
    )


async def test_a_stream_that_breaks_under_two_replicas_is_one_fault(pair: Pair) -> None:
    provider = await pair.provider()
    provider.heartbeat(
        slots=[pl.Slot(model="dev/scripted", max_concurrency=4, active_token_budget_max=100_000)]
    )
    await pair.told()
    near, far = await pair.holder.gateway(), await pair.asker.gateway()
    for gateway in (near, far):
        await gateway.dispatched()
        await provider.request()
    identity = known(pair.holder, provider).stable_id
    provider.call.cancel()
    await pair.holder.until(lambda: pair.holder.router.fleet.faults.find(identity) is not None)
    await pair.asker.until(lambda: provider.provider_id not in pair.asker.router.fleet.providers)

    found = pair.holder.router.fleet.faults.find(identity)
    assert found is not None
    assert len(found.node.events) == 1


async def test_what_is_held_against_a_machine_follows_it_to_another_replica(pair: Pair) -> None:
    provider = await pair.provider()
    for _ in range(2):
        await fail_once(pair, pair.asker, provider)
    again = await pair.asker.provider("one")
    assert await gates(pair.asker, again) == [pl.GATE_REASON_ERROR_COOLDOWN]


async def test_a_holder_that_has_forgotten_a_machine_is_reminded(pair: Pair) -> None:
    provider = await pair.provider()
    for _ in range(2):
        await fail_once(pair, pair.holder, provider)
    mirror = known(pair.asker, provider)
    await pair.asker.until(lambda: mirror.faults is not None and mirror.faults.until > 0)
    provider.lane.close("gone")
    await pair.asker.until(lambda: provider.provider_id not in pair.asker.router.fleet.providers)

    # As if the holder had been started anew.
    pair.holder.router.fleet.faults._faults.clear()
    again = await pair.provider()
    await pair.holder.until(lambda: known(pair.holder, again).faults is not None)
    assert await gates(pair.holder, again) == [pl.GATE_REASON_ERROR_COOLDOWN]


async def test_a_lesson_about_a_stranger_or_of_an_unknown_kind_is_ignored(pair: Pair) -> None:
    provider = await pair.provider()
    cluster = pair.asker.router.replicas.cluster
    assert cluster is not None
    [peer] = cluster.peers
    assert peer._lane is not None
    name, build, fault = provider.provider_id, "dev/scripted", words.LESSON_FAULT
    for message in (
        words.Outcome(provider_id="prov_nobody", build=build, lesson=fault),
        words.Outcome(provider_id=name, build="other/build", lesson=fault),
        words.Outcome(provider_id=name, build=build, lesson=words.Lesson.ValueType(99)),
        words.Outcome(provider_id=name, build=build, lesson=fault, shape=99),
    ):
        peer._lane.send_control(K.FRAME_KIND_OUTCOME, 0, message)
    peer._lane.send_control(K.FRAME_KIND_REMEMBERED, 0, b"\xff")
    await fail_once(pair, pair.asker, provider)
    found = known(pair.holder, provider).faults
    assert found is not None
    assert len(found.node.events) == 1
