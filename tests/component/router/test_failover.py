"""Before the first content a failure is invisible; after it, it is said once."""

from darkbloom.router.v1 import gateway_lane_pb2 as gw
from darkbloom.router.v1 import provider_link_pb2 as pl

from tests.component.router.harness import K, ScriptedGateway, ScriptedProvider, World


async def two(mesh: World) -> tuple[ScriptedProvider, ScriptedProvider, ScriptedGateway]:
    return await mesh.provider("one"), await mesh.provider("two"), await mesh.gateway()


def served_by(
    offer: gw.Offer, *providers: ScriptedProvider
) -> tuple[ScriptedProvider, ScriptedProvider]:
    """Return who was offered, and the other one."""
    first, second = providers
    chosen = offer.provider.provider_id == first.provider_id
    return (first, second) if chosen else (second, first)


async def test_a_fault_before_content_moves_the_request_to_another_provider(mesh: World) -> None:
    one, two_, gateway = await two(mesh)
    stream, request_id, offer = await gateway.dispatched()
    failing, other = served_by(offer, one, two_)
    attempt, _ = await failing.request()
    failing.error(attempt, pl.FAILURE_CODE_GENERATION_FAILURE)

    again = await gateway.offer(stream)
    assert again.attempt_number == 2
    assert again.provider.provider_id == other.provider_id
    assert again.attempt_stream != offer.attempt_stream
    gateway.seal(again)
    await other.serve()
    await gateway.whole(again.attempt_stream)
    gateway.close(again.attempt_stream)

    assert await mesh.ledger.ending(request_id) == "settled"
    assert mesh.provider_state(failing).inflight == 0


async def test_a_preamble_does_not_commit(mesh: World) -> None:
    one, two_, gateway = await two(mesh)
    stream, _, offer = await gateway.dispatched()
    failing, other = served_by(offer, one, two_)
    attempt, _ = await failing.request()
    failing.chunk(attempt, 0, 0, kind=K.FRAME_KIND_PREAMBLE)
    failing.error(attempt, pl.FAILURE_CODE_INTERNAL_FAILURE)

    assert (await gateway.offer(stream)).provider.provider_id == other.provider_id
    assert K.FRAME_KIND_COMMITTED not in gateway.box.kinds()


async def test_a_lost_provider_before_content_is_replaced(mesh: World) -> None:
    one, two_, gateway = await two(mesh)
    stream, _, offer = await gateway.dispatched()
    lost, other = served_by(offer, one, two_)
    await lost.request()
    lost.call.cancel()

    assert (await gateway.offer(stream)).provider.provider_id == other.provider_id


async def test_a_lost_provider_after_content_ends_the_answer_and_is_paid_for_what_was_opened(
    mesh: World,
) -> None:
    one, two_, gateway = await two(mesh)
    _, request_id, offer = await gateway.dispatched()
    lost, _ = served_by(offer, one, two_)
    attempt, _ = await lost.request()
    lost.chunk(attempt, 0, 1)
    await gateway.box.take(K.FRAME_KIND_CHUNK)
    gateway.credit(attempt, 48, frames=1, tokens=1)
    await lost.box.take(K.FRAME_KIND_CREDIT)
    lost.call.cancel()

    failed = await gateway.box.message(K.FRAME_KIND_ATTEMPT_FAILED, gw.AttemptFailed)
    assert failed.failure == gw.ATTEMPT_FAILURE_PROVIDER_LOST
    assert not mesh.ledger.settlements
    await mesh.clock.advance(6)
    assert await mesh.ledger.ending(request_id) == "settled"
    [settlement] = mesh.ledger.settlements
    assert not settlement.HasField("terminal")
    assert settlement.opened.frames == 1


async def test_a_client_error_stops_at_the_first_provider(mesh: World) -> None:
    one, two_, gateway = await two(mesh)
    stream, request_id, offer = await gateway.dispatched()
    failing, _ = served_by(offer, one, two_)
    attempt, _ = await failing.request()
    failing.error(attempt, pl.FAILURE_CODE_INVALID_REQUEST, status=400)

    refused = await gateway.refused(stream)
    assert (refused.http_status, refused.type) == (400, "invalid_request_error")
    assert refused.reason == gw.REFUSAL_REASON_CLIENT_ERROR
    assert not refused.HasField("retry_after")
    assert await mesh.ledger.ending(request_id) == "released"


async def test_a_template_that_cannot_render_is_not_tried_elsewhere(mesh: World) -> None:
    provider, gateway = await mesh.provider(), await mesh.gateway()
    stream, _, _ = await gateway.dispatched()
    attempt, _ = await provider.request()
    provider.error(attempt, pl.FAILURE_CODE_TEMPLATE_RENDER, pl.FAILURE_REASON_JINJA_TEMPLATE, 422)
    refused = await gateway.refused(stream)
    assert (refused.http_status, refused.code) == (422, "model_capability")


async def test_when_everybody_fails_the_fault_is_the_answer_and_the_hold_is_released(
    mesh: World,
) -> None:
    provider, gateway = await mesh.provider(), await mesh.gateway()
    stream, request_id, _ = await gateway.dispatched()
    attempt, _ = await provider.request()
    provider.error(attempt, pl.FAILURE_CODE_GENERATION_FAILURE, status=503)

    refused = await gateway.refused(stream)
    assert (refused.http_status, refused.type) == (503, "provider_error")
    assert refused.retry_after.seconds >= 2
    assert await mesh.ledger.ending(request_id) == "released"


async def test_a_provider_that_does_not_accept_is_cancelled_and_replaced(mesh: World) -> None:
    one, two_, gateway = await two(mesh)
    stream, _, offer = await gateway.dispatched()
    stalled, other = served_by(offer, one, two_)
    await stalled.request()
    await mesh.clock.advance(2.5)

    assert (await gateway.offer(stream)).provider.provider_id == other.provider_id
    await stalled.box.take(K.FRAME_KIND_CANCEL)


async def test_acceptance_does_not_extend_patience_for_ever(mesh: World) -> None:
    one, two_, gateway = await two(mesh)
    stream, _, offer = await gateway.dispatched()
    stalled, other = served_by(offer, one, two_)
    attempt, _ = await stalled.request()
    stalled.accept(attempt)
    await mesh.accepted(attempt)
    await mesh.clock.advance(2.5)
    assert not gateway.box.frames
    await mesh.clock.advance(2)

    assert (await gateway.offer(stream)).provider.provider_id == other.provider_id


async def test_the_deadline_is_absolute_and_becomes_429(mesh: World) -> None:
    provider, gateway = await mesh.provider(), await mesh.gateway()
    stream, request_id, _ = await gateway.dispatched(deadline_s=1.0)
    attempt, request = await provider.request()
    assert 0 < request.first_content_budget.ToTimedelta().total_seconds() <= 1.0
    await mesh.clock.advance(1.1)

    refused = await gateway.refused(stream)
    assert refused.http_status == 429
    assert refused.reason == gw.REFUSAL_REASON_FIRST_CHUNK_TIMEOUT
    assert refused.HasField("retry_after")
    await provider.box.take(K.FRAME_KIND_CANCEL, stream=attempt)
    assert await mesh.ledger.ending(request_id) == "released"


async def test_a_full_fleet_is_tried_three_times_only(mesh: World) -> None:
    providers = {}
    for name in ("one", "two", "three", "four"):
        provider = await mesh.provider(name)
        providers[provider.provider_id] = provider
    gateway = await mesh.gateway()
    stream, _ = gateway.open()
    for _ in range(3):
        offer = await gateway.offer(stream)
        gateway.seal(offer)
        provider = providers[offer.provider.provider_id]
        attempt, _ = await provider.request()
        provider.error(
            attempt, pl.FAILURE_CODE_CAPACITY, pl.FAILURE_REASON_TOKEN_BUDGET_EXHAUSTED, 503
        )
    refused = await gateway.refused(stream)
    assert (refused.http_status, refused.code) == (429, "oversized_request")


async def test_a_draining_provider_is_left_without_blame(mesh: World) -> None:
    one, two_, gateway = await two(mesh)
    stream, _, offer = await gateway.dispatched()
    draining, other = served_by(offer, one, two_)
    attempt, _ = await draining.request()
    draining.error(attempt, pl.FAILURE_CODE_CAPACITY, pl.FAILURE_REASON_DRAINING, 503)

    assert (await gateway.offer(stream)).provider.provider_id == other.provider_id
    assert mesh.provider_state(draining).status == "draining"
    assert not mesh.attestation.violations


async def test_an_error_after_content_breaks_the_answer(mesh: World) -> None:
    provider, gateway = await mesh.provider(), await mesh.gateway()
    await gateway.dispatched()
    attempt, _ = await provider.request()
    provider.chunk(attempt, 0, 1)
    provider.error(attempt, pl.FAILURE_CODE_GENERATION_FAILURE)
    await gateway.box.take(K.FRAME_KIND_CHUNK)

    failed = await gateway.box.message(K.FRAME_KIND_ATTEMPT_FAILED, gw.AttemptFailed)
    assert failed.failure == gw.ATTEMPT_FAILURE_PROVIDER_ERROR
    assert mesh.provider_state(provider).inflight == 0
