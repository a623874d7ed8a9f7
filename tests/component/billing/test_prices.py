"""Providers' own prices, wholesale and quotes, over the wire."""

from typing import Any

import grpc
import pytest
from darkbloom.billing.v1 import ledger_pb2
from darkbloom.billing.v1 import ledger_service_pb2 as ledger_pb
from darkbloom.billing.v1 import price_service_pb2 as prices_pb
from darkbloom.billing.v1 import report_service_pb2 as reports_pb
from darkbloom.common.v1 import error_reason_pb2 as reasons
from darkbloom.common.v1 import price_pb2
from darkbloom_edge.signatures import P256Signer
from darkbloom_mesh.errors import MeshError, from_rpc_error

from tests.component.billing.world import (
    BUILD,
    CONSUMER,
    PROVIDER,
    World,
    owner,
    request_id,
    world,
)

SETTLED, REJECTED = ledger_pb2.SETTLEMENT_STATUS_SETTLED, ledger_pb2.SETTLEMENT_STATUS_REJECTED
RIVAL = "acct_rival"
WORST_CASE = 100 * 10 + 50 * 20


async def refused(call: Any) -> MeshError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return from_rpc_error(caught.value)


def delete(w: World, name: str, account_id: str = PROVIDER) -> Any:
    request = prices_pb.DeletePriceRequest(request_id=name, account_id=account_id, build=BUILD)
    return w.prices.DeletePrice(request, timeout=30)


async def own(w: World, account_id: str = PROVIDER) -> list[price_pb2.PriceRow]:
    request = prices_pb.ListOwnPricesRequest(account_id=account_id)
    return list((await w.prices.ListOwnPrices(request, timeout=30)).prices)


async def extend(
    w: World, name: str, price: price_pb2.PriceRow, number: int = 1, *, replaces: bool = False
) -> int:
    request = ledger_pb.ExtendHoldRequest(
        request_id=name, extension=number, price=price, replaces=replaces
    )
    return int((await w.ledger.ExtendHold(request, timeout=30)).hold.amount_micros)


async def held(w: World) -> str:
    (result,) = await w.hold(w.order())
    assert result.HasField("hold")
    return result.request_id


async def test_a_dearer_provider_is_held_for_and_paid_at_its_own_price(url: str) -> None:
    async with world(url) as w:
        await w.people(100_000)
        row = await w.price("own", 30_000_000, 60_000_000, account_id=PROVIDER)
        name = await held(w)
        assert await extend(w, name, row) == 100 * 30 + 50 * 60
        await w.price("later", 10_000_000, 20_000_000, account_id=PROVIDER)

        (result,) = await w.settle(w.settlement(name, price_id=row.price_id))
        assert (result.status, result.charge_micros) == (SETTLED, 40 * 30 + 20 * 60)
        assert (await w.balance(CONSUMER))[0] == 100_000 - result.charge_micros
        await w.sound()


async def test_a_cheaper_provider_needs_no_more_money_and_charges_less(url: str) -> None:
    async with world(url) as w:
        await w.people(100_000)
        row = await w.price("own", 5_000_000, 10_000_000, account_id=PROVIDER)
        (result,) = await w.settle(w.settlement(await held(w), price_id=row.price_id))
        assert (result.status, result.charge_micros) == (SETTLED, 40 * 5 + 20 * 10)


async def test_what_a_failed_provider_would_have_cost_is_given_back_before_the_end(
    url: str,
) -> None:
    async with world(url) as w:
        await w.people(WORST_CASE + 3_000)
        dear = await w.price("dear", 30_000_000, 40_000_000, account_id=PROVIDER)
        await w.account(RIVAL)
        rival = await w.price("rival", 20_000_000, 20_000_000, account_id=RIVAL)
        (result,) = await w.hold(w.order())
        name, first = result.request_id, result.hold.price
        assert await extend(w, name, dear) == WORST_CASE + 3_000
        assert (await w.balance(CONSUMER))[0] == 0

        for _ in range(2):
            assert await extend(w, name, rival, 2, replaces=True) == WORST_CASE + 1_000
        assert (await w.balance(CONSUMER))[0] == 2_000
        assert await extend(w, name, first, 3, replaces=True) == WORST_CASE
        assert (await w.balance(CONSUMER))[0] == 3_000
        await w.sound()

        # The router's word that the dear one did it after all finds nothing that covers it.
        whole = w.terminal(name, prompt_tokens=100, completion_tokens=50)
        (late,) = await w.settle(
            w.settlement(name, terminal=whole, opened=(100, 50), price_id=dear.price_id)
        )
        assert (late.status, late.rejection) == (REJECTED, "price")
        (paid,) = await w.settle(w.settlement(name))
        assert (paid.status, paid.charge_micros) == (SETTLED, 40 * 10 + 20 * 20)
        assert (await w.balance(CONSUMER))[0] == WORST_CASE + 3_000 - paid.charge_micros
        await w.sound()


async def test_a_replacement_that_is_dearer_needs_only_the_difference(url: str) -> None:
    async with world(url) as w:
        await w.people(WORST_CASE + 3_000)
        some = await w.price("some", 20_000_000, 30_000_000, account_id=PROVIDER)
        await w.account(RIVAL)
        dear = await w.price("dear", 30_000_000, 40_000_000, account_id=RIVAL)
        dearest = await w.price("dearest", 40_000_000, 80_000_000, account_id=PROVIDER)
        name = await held(w)
        assert await extend(w, name, some) == WORST_CASE + 1_500
        assert await extend(w, name, dear, 2, replaces=True) == WORST_CASE + 3_000

        error = await refused(extend(w, name, dearest, 3, replaces=True))
        assert error.reason == reasons.ERROR_REASON_INSUFFICIENT_FUNDS
        assert error.metadata["darkbloom-required-micros"] == "3000"
        assert error.metadata["darkbloom-available-micros"] == "0"
        assert (await refused(extend(w, name, some, 2, replaces=True))).reason == (
            reasons.ERROR_REASON_IDEMPOTENCY_CONFLICT
        )
        await w.release(name)
        assert (await w.balance(CONSUMER))[0] == WORST_CASE + 3_000
        assert (await refused(extend(w, name, some, 3, replaces=True))).reason == (
            reasons.ERROR_REASON_HOLD_ENDED
        )
        await w.sound()


async def test_the_statement_shows_an_extension_and_what_came_back_of_it(url: str) -> None:
    async with world(url) as w:
        await w.people(100_000)
        dear = await w.price("dear", 30_000_000, 40_000_000, account_id=PROVIDER)
        (result,) = await w.hold(w.order())
        name = result.request_id
        await extend(w, name, dear)
        await extend(w, name, result.hold.price, 2, replaces=True)

        request = reports_pb.ListStatementRequest(account_id=CONSUMER)
        entries = (await w.reports.ListStatement(request, timeout=30)).entries
        of_it = [(e.type, e.amount_micros) for e in entries if e.reference == name]
        assert of_it == [("refund", 3_000), ("charge", -3_000), ("charge", -WORST_CASE)]
        assert sum(e.amount_micros for e in entries) == 100_000 - WORST_CASE


async def test_a_router_cannot_pay_one_provider_at_the_price_of_another(url: str) -> None:
    async with world(url) as w:
        await w.people(100_000)
        await w.account(RIVAL)
        await w.link(P256Signer.generate(), RIVAL)
        row = await w.price("rival", 40_000_000, 80_000_000, account_id=RIVAL)
        name = await held(w)
        await extend(w, name, row)
        (result,) = await w.settle(w.settlement(name, price_id=row.price_id))
        assert (result.status, result.rejection) == (REJECTED, "price")
        (result,) = await w.settle(w.settlement(name))
        assert (result.status, result.charge_micros) == (SETTLED, 40 * 10 + 20 * 20)
        await w.sound()


async def test_an_own_price_is_at_most_four_times_the_platforms(url: str) -> None:
    async with world(url) as w:
        await w.people()
        error = await refused(w.price("own", 40_000_001, 1, account_id=PROVIDER))
        assert error.reason == reasons.ERROR_REASON_PRICE_TOO_HIGH
        assert error.metadata["darkbloom-field"] == "input_micros"
        assert error.metadata["darkbloom-limit-micros"] == "40000000"
        error = await refused(w.price("own", 1, 80_000_001, account_id=PROVIDER))
        assert error.metadata["darkbloom-field"] == "output_micros"
        assert await own(w) == []
        row = await w.price("own", 40_000_000, 80_000_000, account_id=PROVIDER)
        assert (row.cache_read_micros, await own(w)) == (20_000_000, [row])


async def test_an_own_price_rests_while_the_platform_is_more_than_four_times_cheaper(
    url: str,
) -> None:
    async with world(url) as w:
        await w.people()
        row = await w.price("own", 40_000_000, 80_000_000, account_id=PROVIDER)
        await w.clock.advance(3600)
        await w.price("cheaper", 9_000_000, 20_000_000)
        assert await own(w) == []
        await w.clock.advance(3600)
        name = await held(w)
        error = await refused(extend(w, name, row))
        assert error.metadata["darkbloom-field"] == "price"
        await w.price("again", 10_000_000, 20_000_000)
        assert await own(w) == [row]


async def test_a_price_that_was_taken_back_counts_for_requests_of_its_time_only(url: str) -> None:
    async with world(url) as w:
        await w.people(100_000)
        row = await w.price("own", 5_000_000, 10_000_000, account_id=PROVIDER)
        before = await held(w)
        await w.clock.advance(1)
        await delete(w, "end")
        await delete(w, "end")
        assert await own(w) == []
        assert (await refused(delete(w, "other"))).reason == reasons.ERROR_REASON_NOT_FOUND
        await w.clock.advance(300)
        after = await held(w)
        first, second = await w.settle(
            w.settlement(before, price_id=row.price_id), w.settlement(after, price_id=row.price_id)
        )
        assert (first.status, first.charge_micros) == (SETTLED, 400)
        assert (second.status, second.rejection) == (REJECTED, "price")


async def test_a_service_account_pays_the_platforms_price_without_its_minimum(url: str) -> None:
    async with world(url) as w:
        await w.people(100_000)
        await w.price("cheap", 1_000, 2_000)
        async with owner(url) as connection:
            await connection.execute(
                "UPDATE billing.account SET role = 'service' WHERE account_id = $1", CONSUMER
            )
        row = await w.price("own", 4_000, 8_000, account_id=PROVIDER)
        assert (await quote(w)).price.minimum_charge_micros == 1
        name = await held(w)
        assert await extend(w, name, row) == 1
        (result,) = await w.settle(w.settlement(name, price_id=row.price_id))
        assert (result.status, result.charge_micros) == (SETTLED, 1)
        await w.sound()


def quote(w: World, **more: Any) -> Any:
    request = prices_pb.QuoteRequest(
        account_id=CONSUMER, build=BUILD, prompt_bound=100, output_bound=50, **more
    )
    return w.prices.Quote(request, timeout=30)


async def test_a_quote_says_what_a_hold_takes_and_how_far_the_money_reaches(url: str) -> None:
    async with world(url) as w:
        await w.people(1_500)
        found = await quote(w)
        assert (found.amount_micros, found.available_micros) == (2_000, 1_500)
        assert found.max_affordable_tokens == 25
        (result,) = await w.hold(w.order(output_bound=found.max_affordable_tokens))
        assert result.HasField("hold")
        (result,) = await w.hold(w.order(request_id(), output_bound=1))
        assert result.required_micros == 1_020
        assert (await quote(w, available_micros=0)).max_affordable_tokens == 0


async def test_a_watcher_gets_all_own_prices_and_then_each_change(url: str) -> None:
    async with world(url) as w:
        await w.people()
        row = await w.price("own", 1_000_000, 1_000_000, account_id=PROVIDER)
        call = w.prices.WatchOwnPrices(prices_pb.WatchOwnPricesRequest(), timeout=20)
        first = await call.read()
        assert [(found.account_id, found.price) for found in first.prices] == [(PROVIDER, row)]
        assert (await call.read()).complete

        await w.clock.advance(1)
        await delete(w, "end")
        while not (message := await call.read()).ended:
            assert not message.prices
        assert [(end.account_id, end.build) for end in message.ended] == [(PROVIDER, BUILD)]
        call.cancel()


async def test_what_a_price_may_not_be(url: str) -> None:
    async with world(url) as w:
        await w.people()
        for fields in (
            {"input_micros": 0},
            {"output_micros": -1},
            {"cache_read_micros": 1_000_001},
            {"account_id": "a b"},
            {"build": ""},
        ):
            values: dict[str, Any] = {
                "request_id": "odd",
                "build": BUILD,
                "input_micros": 1_000_000,
                "output_micros": 1,
                "account_id": PROVIDER,
            }
            error = await refused(
                w.prices.SetPrice(prices_pb.SetPriceRequest(**{**values, **fields}), timeout=30)
            )
            assert error.reason == reasons.ERROR_REASON_INVALID_ARGUMENT
            assert error.metadata["darkbloom-field"] == next(iter(fields))


async def test_an_aliass_other_build_is_settled_at_its_own_price_where_the_hold_covers_it(
    url: str,
) -> None:
    async with world(url) as w:
        await w.people(100_000)
        for build, output in (("cheaper", 10_000_000), ("dearer", 90_000_000)):
            request = prices_pb.SetPriceRequest(
                request_id=build, build=build, input_micros=10_000_000, output_micros=output
            )
            await w.prices.SetPrice(request, timeout=30)
        charges = []
        for build in ("cheaper", "dearer"):
            name = request_id()
            await w.hold(w.order(name, fallback_build=build))
            (result,) = await w.settle(w.settlement(name, terminal=w.terminal(name, build=build)))
            assert result.status == SETTLED
            charges.append(result.charge_micros)
        assert charges == [40 * 10 + 20 * 10, 40 * 10 + 20 * 20]
        request = reports_pb.SearchUsageRequest(account_id=CONSUMER)
        found = await w.reports.SearchUsage(request, timeout=30)
        assert {row.build for row in found.usage} == {"cheaper", "dearer"}

        name = request_id()
        await w.hold(w.order(name, fallback_build="cheaper"))
        (result,) = await w.settle(w.settlement(name, terminal=w.terminal(name, build="third")))
        assert (result.status, result.rejection) == (REJECTED, "ids")
        await w.release(name)
        await w.sound()
