"""Two routers in this process: what one of them does with providers whose streams the other has."""

from darkbloom.router.v1 import gateway_lane_pb2 as gw
from darkbloom.router.v1 import provider_link_pb2 as pl

from tests.component.router.harness import K, ScriptedGateway, ScriptedProvider
from tests.component.router.pairs import Pair


async def answering(pair: Pair) -> tuple[ScriptedProvider, ScriptedGateway, int, int, str]:
    """Begin an answer through both; returns the streams at provider and gateway, and the id."""
    provider, gateway = await pair.provider(), await pair.asker.gateway()
    _, _, offer = await gateway.dispatched()
    stream, request = await provider.request()
    provider.accept(stream)
    provider.chunk(stream, 0, 1)
    await gateway.box.take(K.FRAME_KIND_CHUNK, stream=offer.attempt_stream)
    return provider, gateway, stream, offer.attempt_stream, request.attempt_id


async def test_an_answer_comes_from_a_provider_of_the_other_replica(pair: Pair) -> None:
    provider, gateway = await pair.provider(), await pair.asker.gateway()
    _, request_id, offer = await gateway.dispatched()
    _, request = await provider.serve()
    assert request.epoch > 0

    kinds = await gateway.whole(offer.attempt_stream)
    assert kinds[0] == K.FRAME_KIND_COMMITTED
    assert kinds.count(K.FRAME_KIND_CHUNK) == 3
    gateway.close(offer.attempt_stream)
    await pair.asker.turn(0.2)
    ack = await provider.box.message(K.FRAME_KIND_TERMINAL_ACK, pl.TerminalAck)
    assert ack.attempt_id == request.attempt_id
    assert await pair.asker.ledger.ending(request_id) == "settled"
    assert pair.holder.ledger.settlements == []
    await pair.told()
    await pair.asker.until(lambda: pair.places(provider) == (0, 0))


async def test_a_place_that_the_holder_has_given_is_not_given_again(pair: Pair) -> None:
    provider, far = await pair.provider(), await pair.asker.gateway()
    near = await pair.holder.gateway()
    _, _, offer = await near.dispatched()
    await provider.request()

    # The asker has not heard yet that the only place is taken: the holder says no.
    stream, _ = far.open()
    await pair.asker.turn(0.01)
    refused = await far.refused(stream)
    assert refused.http_status == 429
    assert pair.places(provider)[0] == 1
    assert offer.attempt_id


async def test_a_cancel_reaches_the_provider_and_frees_its_place_at_both(pair: Pair) -> None:
    provider, gateway, stream, far_stream, attempt_id = await answering(pair)
    gateway.cancel(far_stream, frames=1, tokens=1)
    await provider.box.take(K.FRAME_KIND_CANCEL, stream=stream)
    await pair.asker.until(lambda: pair.places(provider) == (0, 0))

    # Its last word still reaches whoever settles.
    provider.terminal(stream, attempt_id)
    await provider.box.message(K.FRAME_KIND_TERMINAL_ACK, pl.TerminalAck)


async def test_a_lost_asker_frees_what_it_had(pair: Pair) -> None:
    provider, _, stream, _, _ = await answering(pair)
    cluster = pair.asker.router.replicas.cluster
    assert cluster is not None
    for peer in cluster.peers:
        peer.close()
    await provider.box.take(K.FRAME_KIND_CANCEL, stream=stream)
    await pair.holder.until(
        lambda: pair.holder.router.fleet.providers[provider.provider_id].inflight == 0
    )


async def test_a_provider_that_is_lost_at_its_holder_breaks_the_answer_once(pair: Pair) -> None:
    provider, gateway, _, far_stream, _ = await answering(pair)
    provider.call.cancel()
    failed = await gateway.box.message(
        K.FRAME_KIND_ATTEMPT_FAILED, gw.AttemptFailed, stream=far_stream
    )
    assert failed.failure == gw.ATTEMPT_FAILURE_PROVIDER_LOST
    assert provider.provider_id not in pair.asker.router.fleet.providers


async def test_before_content_the_request_moves_to_a_provider_of_its_own_replica(
    pair: Pair,
) -> None:
    far, gateway = await pair.provider("far"), await pair.asker.gateway()
    stream, _, offer = await gateway.dispatched()
    await far.request()
    near = await pair.asker.provider("near")
    far.call.cancel()

    second = await gateway.offer(stream)
    assert second.attempt_id != offer.attempt_id
    gateway.seal(second)
    await near.serve()
    assert K.FRAME_KIND_TERMINAL in await gateway.whole(second.attempt_stream)


async def test_a_lost_holder_is_no_fault_of_its_providers(pair: Pair) -> None:
    provider, gateway, _, far_stream, _ = await answering(pair)
    mirror = pair.asker.router.fleet.providers[provider.provider_id]
    cluster = pair.asker.router.replicas.cluster
    assert cluster is not None
    for peer in cluster.peers:
        peer.close()
    await gateway.box.message(K.FRAME_KIND_ATTEMPT_FAILED, gw.AttemptFailed, stream=far_stream)
    assert mirror.provider_id not in pair.asker.router.fleet.providers
    known = pair.asker.router.fleet.faults.find(mirror.stable_id)
    assert known is None or not any(outcome.bad for _, outcome in known.node.events)


async def test_an_identity_that_proves_itself_elsewhere_moves_with_a_higher_epoch(
    pair: Pair,
) -> None:
    old = await pair.provider()
    before = pair.holder.router.fleet.providers[old.provider_id].epoch
    new = await pair.asker.provider("one")

    go_away = await old.box.message(K.FRAME_KIND_GO_AWAY, pl.GoAway)
    assert go_away.reason == "superseded"
    assert pair.asker.router.fleet.providers[new.provider_id].epoch > before
    assert pair.holder.router.fleet.providers[old.provider_id].drain_fence


async def test_a_violation_seen_at_the_asker_is_believed_at_the_holder(pair: Pair) -> None:
    provider, gateway, _, far_stream, _ = await answering(pair)
    gateway.violation(far_stream, frames=1, tokens=1)
    held = pair.holder.router.fleet.providers[provider.provider_id]
    await pair.holder.until(lambda: bool(held.untrusted))
    assert held.untrusted == "violation"


async def test_trust_lost_after_the_offer_stops_the_body_at_the_holder(pair: Pair) -> None:
    provider, gateway = await pair.provider(), await pair.asker.gateway()
    stream, _ = gateway.open()
    offer = await gateway.offer(stream)
    held = pair.holder.router.fleet.providers[provider.provider_id]
    pair.holder.router.fleet.set_verdict(held, None)

    gateway.seal(offer)
    refused = await gateway.refused(stream)
    assert refused.http_status in {429, 503}
    assert K.FRAME_KIND_REQUEST not in provider.box.kinds()
