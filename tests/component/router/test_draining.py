"""A replica that leaves: its providers move first, and what they had begun is not cut."""

import asyncio

from darkbloom.common.v1.frame_pb2 import FrameKind
from darkbloom_router.upkeep import _MOVING

from tests.component.router.pairs import Pair
from tests.fakes.registry import SCRIPTED_BUILD

K = FrameKind


async def test_providers_may_move_though_the_other_replica_was_restarted_just_before(
    pair: Pair,
) -> None:
    """Its lane is down this moment: that is no reason to cut a fleet that has somewhere to go."""
    holder = pair.holder
    provider = await pair.provider()
    cluster = holder.router.replicas.cluster
    assert cluster is not None
    for peer in cluster.peers:
        peer.close()
    await holder.until(lambda: not any(peer.connected for peer in cluster.peers))

    leaving = asyncio.create_task(holder.router.drain())
    await provider.box.take(K.FRAME_KIND_GO_AWAY)
    await holder.turn(holder.router.drain_grace_s * 0.1)
    assert len(holder.router.links) == 1
    assert holder.provider_state(provider).status == "online"

    await pair.asker.provider(provider.name)
    provider.lane.close("moved")
    await holder.until(lambda: not holder.router.links)
    while not leaving.done():
        await holder.turn(0.2)


async def test_who_finds_no_other_replica_finishes_what_runs_and_gets_nothing_new(
    pair: Pair,
) -> None:
    holder, asker = pair.holder, pair.asker
    provider, gateway = await pair.provider(), await asker.gateway()
    _, _, offer = await gateway.dispatched()
    stream, request = await provider.request()
    provider.accept(stream)
    provider.chunk(stream, 0, 1)
    await gateway.box.take(K.FRAME_KIND_CHUNK, stream=offer.attempt_stream)

    leaving = asyncio.create_task(holder.router.drain())
    await provider.box.take(K.FRAME_KIND_GO_AWAY)
    await holder.turn(holder.router.drain_grace_s / 2 * _MOVING + 0.2)
    await holder.until(lambda: holder.provider_state(provider).drain_fence)
    await pair.told()
    await asker.until(lambda: asker.provider_state(provider).drain_fence)
    assert not leaving.done()

    # Nobody else is there: a request waits for the machine, which is on its way.
    gateway.open()
    await asker.until(lambda: bool(asker.router.dispatcher.line.depth(SCRIPTED_BUILD)))
    assert K.FRAME_KIND_REFUSED not in gateway.box.kinds()

    provider.chunk(stream, 1, 2, kind=K.FRAME_KIND_CHUNK_FINAL)
    provider.terminal(stream, request.attempt_id)
    await gateway.box.take(K.FRAME_KIND_CHUNK_FINAL, stream=offer.attempt_stream)
    await gateway.box.take(K.FRAME_KIND_TERMINAL, stream=offer.attempt_stream)
    gateway.close(offer.attempt_stream)
    while not leaving.done():
        await holder.turn(0.2)
    await asker.provider(provider.name)
    await gateway.box.take(K.FRAME_KIND_OFFER)
