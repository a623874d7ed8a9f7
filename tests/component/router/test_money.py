"""What ends a hold, once, whoever dies in between."""

import asyncio
from pathlib import Path

from darkbloom.billing.v1 import ledger_pb2
from darkbloom.router.v1 import gateway_lane_pb2 as gw
from darkbloom.router.v1 import provider_link_pb2 as pl

from tests.component.router.harness import K, ScriptedGateway, ScriptedProvider, World, world


async def committed(
    mesh: World, *, frames: int = 2
) -> tuple[ScriptedProvider, ScriptedGateway, int, str, pl.InferenceRequest]:
    """Bring one request to its first content and let the gateway open some of it."""
    provider, gateway = await mesh.provider(), await mesh.gateway()
    _, request_id, _ = await gateway.dispatched()
    attempt, request = await provider.request()
    for index in range(frames):
        provider.chunk(attempt, index, index + 1)
        await gateway.box.take(K.FRAME_KIND_CHUNK)
    return provider, gateway, attempt, request_id, request


async def test_a_cancel_before_content_releases_the_hold(mesh: World) -> None:
    provider, gateway = await mesh.provider(), await mesh.gateway()
    _, request_id, _ = await gateway.dispatched()
    attempt, request = await provider.request()
    gateway.cancel(attempt)

    await provider.box.take(K.FRAME_KIND_CANCEL, stream=attempt)
    assert await mesh.ledger.ending(request_id) == "released"
    provider.terminal(attempt, request.attempt_id)
    ack = await provider.box.message(K.FRAME_KIND_TERMINAL_ACK, pl.TerminalAck)
    assert ack.disposition == pl.DISPOSITION_RELEASED
    assert mesh.provider_state(provider).inflight == 0


async def test_a_cancel_after_content_settles_with_the_terminal(mesh: World) -> None:
    provider, gateway, attempt, request_id, request = await committed(mesh)
    gateway.cancel(attempt, frames=2, tokens=2)
    await provider.box.take(K.FRAME_KIND_CANCEL)
    assert mesh.provider_state(provider).inflight == 0
    provider.terminal(attempt, request.attempt_id)

    assert await mesh.ledger.ending(request_id) == "settled"
    [settlement] = mesh.ledger.settlements
    assert settlement.HasField("terminal")
    assert settlement.opened.completion_tokens == 2


async def test_a_cancel_that_no_terminal_answers_settles_what_was_opened(mesh: World) -> None:
    _, gateway, attempt, request_id, _ = await committed(mesh)
    gateway.cancel(attempt, frames=1, tokens=1)
    await mesh.until(lambda: mesh.router.dispatcher.live == 0)
    await mesh.clock.advance(6)

    assert await mesh.ledger.ending(request_id) == "settled"
    [settlement] = mesh.ledger.settlements
    assert not settlement.HasField("terminal")
    assert settlement.opened.frames == 1


async def test_a_lost_gateway_lane_cancels_and_settles_the_last_credit(mesh: World) -> None:
    provider, gateway, attempt, request_id, _ = await committed(mesh)
    gateway.credit(attempt, 48, frames=2, tokens=2)
    await provider.box.take(K.FRAME_KIND_CREDIT)
    gateway.call.cancel()

    await provider.box.take(K.FRAME_KIND_CANCEL, stream=attempt)
    await mesh.clock.advance(6)
    assert await mesh.ledger.ending(request_id) == "settled"
    assert mesh.ledger.settlements[0].opened.completion_tokens == 2


async def test_a_lost_gateway_lane_without_content_releases_after_the_delay(mesh: World) -> None:
    provider, gateway = await mesh.provider(), await mesh.gateway()
    _, request_id, _ = await gateway.dispatched()
    attempt, _ = await provider.request()
    gateway.call.cancel()
    await provider.box.take(K.FRAME_KIND_CANCEL, stream=attempt)
    await mesh.clock.advance(4)
    assert not mesh.ledger.releases
    await mesh.clock.advance(2)

    assert await mesh.ledger.ending(request_id) == "released"


async def test_a_request_opened_again_on_a_newer_lane_moves_there(mesh: World) -> None:
    provider, half_open = await mesh.provider(), await mesh.gateway()
    _, request_id, _ = await half_open.dispatched()
    attempt, _ = await provider.request()

    again = await mesh.gateway()
    await again.dispatched(request_id=request_id)
    await provider.box.take(K.FRAME_KIND_CANCEL, stream=attempt)
    stream, _ = await provider.serve()
    await again.whole(stream)
    again.close(stream)

    assert await mesh.ledger.ending(request_id) == "settled"
    assert len(mesh.ledger.settlements) == 1


async def test_what_was_opened_on_an_old_lane_is_not_opened_again_on_a_newer_one(
    mesh: World,
) -> None:
    provider, half_open, attempt, request_id, _ = await committed(mesh)
    half_open.credit(attempt, 48, frames=2, tokens=2)
    await provider.box.take(K.FRAME_KIND_CREDIT)

    again = await mesh.gateway()
    stream, _ = again.open(request_id=request_id)
    refused = await again.box.message(K.FRAME_KIND_REFUSED, gw.Refused, stream=stream)

    assert refused.http_status == 500


async def test_a_gateway_that_comes_back_keeps_its_hold(mesh: World) -> None:
    provider, gateway = await mesh.provider(), await mesh.gateway()
    _, request_id, _ = await gateway.dispatched()
    attempt, _ = await provider.request()
    gateway.call.cancel()
    await provider.box.take(K.FRAME_KIND_CANCEL, stream=attempt)

    again = await mesh.gateway()
    await again.dispatched(request_id=request_id)
    stream, _ = await provider.serve()
    await again.whole(stream)
    again.close(stream)
    assert await mesh.ledger.ending(request_id) == "settled"
    await mesh.clock.advance(6)
    assert not mesh.ledger.releases


async def test_a_gateway_that_had_not_seen_the_first_content_keeps_its_hold_too(
    mesh: World,
) -> None:
    provider, gateway, attempt, request_id, request = await committed(mesh)
    gateway.call.cancel()
    await provider.box.take(K.FRAME_KIND_CANCEL, stream=attempt)
    provider.terminal(attempt, request.attempt_id)
    await provider.box.take(K.FRAME_KIND_TERMINAL_ACK)

    again = await mesh.gateway()
    await again.dispatched(request_id=request_id)
    stream, _ = await provider.serve()
    await again.whole(stream)
    again.close(stream)
    assert await mesh.ledger.ending(request_id) == "settled"
    await mesh.clock.advance(6)
    assert not mesh.ledger.releases


async def test_a_terminal_is_acknowledged_only_after_billing_has_committed(mesh: World) -> None:
    provider, gateway = await mesh.provider(), await mesh.gateway()
    mesh.ledger.away = True
    _, request_id, _ = await gateway.dispatched()
    stream, _ = await provider.serve()
    await gateway.whole(stream)
    gateway.close(stream)
    await mesh.until(lambda: mesh.router.dispatcher.live == 0)
    await mesh.clock.advance(0.5)
    assert K.FRAME_KIND_TERMINAL_ACK not in provider.box.kinds()

    mesh.ledger.away = False
    ending = asyncio.ensure_future(mesh.ledger.ending(request_id))
    while not ending.done():
        await mesh.clock.advance(0.5)
    assert ending.result() == "settled"
    await provider.box.take(K.FRAME_KIND_TERMINAL_ACK)
    assert len(mesh.ledger.settlements) == 1


async def test_a_doubled_terminal_is_acknowledged_again_and_settles_once(mesh: World) -> None:
    provider, gateway = await mesh.provider(), await mesh.gateway()
    await gateway.dispatched()
    stream, request = await provider.serve()
    await gateway.whole(stream)
    gateway.close(stream)
    await provider.box.take(K.FRAME_KIND_TERMINAL_ACK)
    provider.terminal(stream, request.attempt_id)

    ack = await provider.box.message(K.FRAME_KIND_TERMINAL_ACK, pl.TerminalAck)
    assert ack.disposition == pl.DISPOSITION_SETTLED
    assert len(mesh.ledger.settlements) == 1


async def test_a_terminal_sent_again_after_a_reconnect_settles_within_the_delay(
    mesh: World,
) -> None:
    provider, gateway, attempt, request_id, request = await committed(mesh)
    gateway.credit(attempt, 48, frames=2, tokens=2)
    await provider.box.take(K.FRAME_KIND_CREDIT)
    provider.call.cancel()
    await gateway.box.take(K.FRAME_KIND_ATTEMPT_FAILED)
    gateway.close(attempt, frames=2, tokens=2)
    same = await mesh.provider(provider.name)
    same.terminal(0, request.attempt_id)

    ack = await same.box.message(K.FRAME_KIND_TERMINAL_ACK, pl.TerminalAck)
    assert ack.disposition == pl.DISPOSITION_SETTLED
    assert await mesh.ledger.ending(request_id) == "settled"
    assert mesh.ledger.settlements[0].HasField("terminal")


async def test_a_stranger_cannot_hand_in_somebody_elses_terminal(mesh: World) -> None:
    provider, gateway, attempt, _, request = await committed(mesh)
    provider.call.cancel()
    await gateway.box.take(K.FRAME_KIND_ATTEMPT_FAILED)
    gateway.close(attempt, frames=2, tokens=2)
    stranger = await mesh.provider("stranger")
    stranger.terminal(0, request.attempt_id)
    stranger.heartbeat()
    await mesh.clock.advance(4)

    assert not mesh.ledger.settlements


async def test_a_terminal_that_nothing_proves_is_late_once_its_hold_has_ended(
    mesh: World,
) -> None:
    provider = await mesh.provider()
    closing = mesh.router.closing
    closing._lease_s = 2.0
    provider.terminal(0, "att_" + "0" * 32)
    await mesh.until(lambda: bool(closing._late))
    assert K.FRAME_KIND_TERMINAL_ACK not in provider.box.kinds()
    await mesh.clock.advance(2.5)

    ack = await provider.box.message(K.FRAME_KIND_TERMINAL_ACK, pl.TerminalAck)
    assert ack.disposition == pl.DISPOSITION_LATE
    assert not mesh.ledger.settlements


async def test_a_terminal_that_nobody_knows_is_acknowledged_with_the_rescue_of_its_answer(
    mesh: World,
) -> None:
    provider, gateway = await mesh.provider(), await mesh.gateway()
    attempt_id = "att_" + "0" * 32
    provider.terminal(0, attempt_id)
    await mesh.until(lambda: bool(mesh.router.closing._late))
    # The replica that knew the answer is gone; its gateway says here what was opened.
    rescue = gw.SettleOpened(request_id="req_" + "0" * 32, attempt_id=attempt_id)
    gateway.lane.send_control(K.FRAME_KIND_SETTLE_OPENED, 0, rescue)

    ack = await provider.box.message(K.FRAME_KIND_TERMINAL_ACK, pl.TerminalAck)
    assert ack.attempt_id == attempt_id
    assert not mesh.router.closing._late
    assert len(mesh.ledger.settlements) == 1


async def test_a_rejected_terminal_leaves_what_was_opened(mesh: World) -> None:
    provider, gateway = await mesh.provider(), await mesh.gateway()
    mesh.ledger.rejections.append("terminal_signature")
    _, request_id, _ = await gateway.dispatched()
    stream, _ = await provider.serve()
    await gateway.whole(stream)
    gateway.close(stream)

    assert await mesh.ledger.ending(request_id) == "settled"
    first, second = mesh.ledger.settlements
    assert first.HasField("terminal")
    assert not second.HasField("terminal")
    ack = await provider.box.message(K.FRAME_KIND_TERMINAL_ACK, pl.TerminalAck)
    assert ack.disposition == pl.DISPOSITION_REJECTED


async def test_a_settlement_that_is_refused_altogether_gives_the_money_back(mesh: World) -> None:
    provider, gateway = await mesh.provider(), await mesh.gateway()
    mesh.ledger.rejections.extend(["unlinked", "unlinked"])
    _, request_id, _ = await gateway.dispatched()
    stream, _ = await provider.serve()
    await gateway.whole(stream)
    gateway.close(stream)

    assert await mesh.ledger.ending(request_id) == "released"


async def test_a_gateway_that_never_closes_cannot_keep_the_provider_unpaid(mesh: World) -> None:
    provider, gateway = await mesh.provider(), await mesh.gateway()
    _, request_id, _ = await gateway.dispatched()
    stream, _ = await provider.serve()
    gateway.credit(stream, 48, frames=3, tokens=3)
    await gateway.whole(stream)
    await provider.box.take(K.FRAME_KIND_CREDIT)
    await mesh.clock.advance(6)

    assert await mesh.ledger.ending(request_id) == "settled"
    assert mesh.ledger.settlements[0].opened.frames == 3
    assert mesh.router.dispatcher.live == 0


async def test_an_abandoned_offer_gives_place_and_money_back(mesh: World) -> None:
    _, gateway = await mesh.provider(), await mesh.gateway()
    stream, request_id = gateway.open()
    await gateway.offer(stream)
    abandon = gw.Abandon(reason=gw.ABANDON_REASON_CLIENT_GONE)
    gateway.lane.send_control(K.FRAME_KIND_ABANDON, stream, abandon)
    assert await mesh.ledger.ending(request_id) == "released"
    assert mesh.ledger.releases[0].reason == ledger_pb2.RELEASE_REASON_CLIENT_GONE
    assert mesh.router.dispatcher.live == 0


async def test_running_holds_are_renewed(tmp_path: Path) -> None:
    async with world(tmp_path, renew_interval_s=1.0) as mesh:
        _, _, _, request_id, _ = await committed(mesh)
        await mesh.clock.advance(1.1)
        await mesh.until(lambda: request_id in mesh.ledger.renewed)
