"""Providers' own prices: in the offer, in the settlement, and declined."""

from darkbloom.common.v1.price_pb2 import PriceRow
from darkbloom.router.v1 import gateway_lane_pb2 as gw

from tests.component.router.harness import K, ScriptedGateway, World
from tests.fakes.registry import SCRIPTED_BUILD

OWNER = "acct_provider"
ROW = PriceRow(price_id="price_own", build=SCRIPTED_BUILD, input_micros=9, output_micros=9)


async def priced(mesh: World) -> None:
    await mesh.prices.set(OWNER, ROW)
    known = mesh.router.dispatcher._offers._prices
    await mesh.until(lambda: known.of(OWNER, SCRIPTED_BUILD) is not None)


def decline(gateway: ScriptedGateway, offer: gw.Offer) -> None:
    message = gw.Decline(reason=gw.DECLINE_REASON_PRICE)
    gateway.lane.send_control(K.FRAME_KIND_DECLINE, offer.attempt_stream, message)


async def test_an_offer_names_the_providers_own_row_and_so_does_its_settlement(
    mesh: World,
) -> None:
    provider, gateway = await mesh.provider(), await mesh.gateway()
    stream, _ = gateway.open()
    assert not (await gateway.offer(stream)).HasField("price")
    await priced(mesh)
    _, request_id, offer = await gateway.dispatched()
    assert offer.price == ROW

    attempt, _ = await provider.request()
    provider.chunk(attempt, 0, 1)
    await gateway.box.take(K.FRAME_KIND_CHUNK)
    gateway.cancel(attempt, frames=1, tokens=1)
    await provider.box.take(K.FRAME_KIND_CANCEL)
    await mesh.clock.advance(6)
    assert await mesh.ledger.ending(request_id) == "settled"
    assert mesh.ledger.settlements[0].price_id == "price_own"


async def test_ones_own_machine_is_offered_without_a_price(mesh: World) -> None:
    await mesh.provider()
    gateway = await mesh.gateway()
    await priced(mesh)
    stream, _ = gateway.open(account_id=OWNER)
    assert not (await gateway.offer(stream)).HasField("price")


async def test_a_declined_offer_goes_to_the_next_and_its_place_is_free_again(mesh: World) -> None:
    await priced(mesh)
    first, second = await mesh.provider("one"), await mesh.provider("two")
    gateway = await mesh.gateway()
    stream, request_id = gateway.open()
    offer = await gateway.offer(stream)
    decline(gateway, offer)
    other = await gateway.offer(stream)

    assert {offer.provider.provider_id, other.provider.provider_id} == {
        first.provider_id,
        second.provider_id,
    }
    decline(gateway, other)
    refused = await gateway.refused(stream)
    assert (refused.http_status, refused.type) == (402, "provider_error")
    assert refused.reason == gw.REFUSAL_REASON_PRICE
    assert refused.message.endswith("insufficient funds for provider price")
    assert not refused.HasField("retry_after")
    assert await mesh.ledger.ending(request_id) == "released"
    assert [mesh.provider_state(p).inflight for p in (first, second)] == [0, 0]


async def test_a_sealed_attempt_cannot_be_declined(mesh: World) -> None:
    provider, gateway = await mesh.provider(), await mesh.gateway()
    _, _, offer = await gateway.dispatched()
    attempt, _ = await provider.request()
    decline(gateway, offer)
    provider.chunk(attempt, 0, 1)

    await gateway.box.take(K.FRAME_KIND_CHUNK)
