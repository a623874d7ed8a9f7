"""Holds: who gets one, for how much, and how often."""

import asyncio

import grpc
import pytest
from darkbloom.billing.v1 import account_service_pb2 as accounts_pb
from darkbloom.billing.v1 import ledger_service_pb2 as ledger_pb
from darkbloom.common.v1 import error_reason_pb2 as reasons
from darkbloom_mesh.errors import from_rpc_error
from google.protobuf.duration_pb2 import Duration

from tests.component.billing.world import CONSUMER, World, owner, request_id, world

WORST_CASE = 100 * 10 + 50 * 20


async def test_a_hold_reserves_the_worst_case_at_the_platform_price(url: str) -> None:
    async with world(url) as w:
        await w.people(10_000)
        (result,) = await w.hold(w.order())

        assert result.hold.amount_micros == WORST_CASE
        assert result.hold.price.input_micros == 10_000_000
        assert await w.balance(CONSUMER) == (10_000 - WORST_CASE, 0, WORST_CASE)
        await w.sound()


async def test_a_build_without_a_price_row_costs_the_fallback_and_the_minimum(url: str) -> None:
    async with world(url) as w:
        await w.people()
        (result,) = await w.hold(w.order(build="other"))

        assert result.hold.price.price_id == "price_fallback"
        assert result.hold.amount_micros == 100


async def test_a_repeat_returns_the_first_hold_even_after_a_price_change(url: str) -> None:
    async with world(url) as w:
        await w.people()
        order = w.order()
        (first,) = await w.hold(order)
        await w.price("dearer", 90_000_000, 90_000_000)
        (second,) = await w.hold(order)

        assert second == first
        assert (await w.balance(CONSUMER))[2] == WORST_CASE


async def test_the_same_request_id_with_other_contents_is_a_conflict(url: str) -> None:
    async with world(url) as w:
        await w.people()
        order = w.order()
        await w.hold(order)
        (result,) = await w.hold(w.order(order.request_id, prompt_bound=99))

        assert result.refusal == reasons.ERROR_REASON_IDEMPOTENCY_CONFLICT
        assert not result.HasField("hold")


async def test_a_hold_that_has_ended_is_not_placed_again(url: str) -> None:
    async with world(url) as w:
        await w.people()
        order = w.order()
        await w.hold(order)
        await w.release(order.request_id)
        (result,) = await w.hold(order)

        assert result.refusal == reasons.ERROR_REASON_HOLD_ENDED


async def test_a_refusal_says_what_is_needed_and_leaves_nothing_behind(url: str) -> None:
    async with world(url) as w:
        await w.people(WORST_CASE - 1)
        order = w.order()
        (result,) = await w.hold(order)

        assert result.refusal == reasons.ERROR_REASON_INSUFFICIENT_FUNDS
        assert (result.required_micros, result.available_micros) == (WORST_CASE, WORST_CASE - 1)
        await w.account(CONSUMER, 1)
        (result,) = await w.hold(order)
        assert result.HasField("hold")


async def test_each_order_of_a_batch_is_judged_alone(url: str) -> None:
    async with world(url) as w:
        await w.people()
        good = w.order()
        results = await w.hold(
            w.order("nonsense"),
            w.order(account_id="acct_nobody"),
            good,
            w.order(output_bound=0),
            w.order(key_id="key_nobody"),
        )

        assert [result.refusal for result in results] == [
            reasons.ERROR_REASON_INVALID_ARGUMENT,
            reasons.ERROR_REASON_NOT_FOUND,
            reasons.ERROR_REASON_UNSPECIFIED,
            reasons.ERROR_REASON_INVALID_ARGUMENT,
            reasons.ERROR_REASON_NOT_FOUND,
        ]
        assert results[2].hold.request_id == good.request_id


async def test_a_batch_above_64_is_refused_as_a_whole(url: str) -> None:
    async with world(url) as w:
        await w.people()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await w.hold(*(w.order() for _ in range(65)))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_of_a_thousand_parallel_holds_on_money_for_ten_ten_are_placed(url: str) -> None:
    async with world(url) as w:
        await w.people(10 * WORST_CASE + 3)
        batches = ([w.order() for _ in range(10)] for _ in range(100))
        results = await asyncio.gather(*(w.hold(*orders) for orders in batches))

        told = [item for result in results for item in result]
        assert (len(told), sum(item.HasField("hold") for item in told)) == (1000, 10)
        assert await w.balance(CONSUMER) == (3, 0, 10 * WORST_CASE)
        await w.sound()


async def test_a_key_cap_is_hard_under_parallel_holds(url: str) -> None:
    async with world(url) as w:
        await w.people()
        key = await w.key(b"secret", limit=3 * WORST_CASE + 1)
        results = await asyncio.gather(*(w.hold(w.order(key_id=key)) for _ in range(20)))

        refused = [result for (result,) in results if not result.HasField("hold")]
        assert len(refused) == 17
        assert {result.refusal for result in refused} == {reasons.ERROR_REASON_KEY_CAP_REACHED}
        assert {result.available_micros for result in refused} == {1}
        await w.sound()


async def test_a_cap_of_zero_refuses_and_a_returned_hold_gives_its_cap_back(url: str) -> None:
    async with world(url) as w:
        await w.people()
        nothing = await w.key(b"nothing", limit=0)
        once = await w.key(b"once", limit=WORST_CASE)
        (refused,) = await w.hold(w.order(key_id=nothing))
        assert refused.refusal == reasons.ERROR_REASON_KEY_CAP_REACHED

        order = w.order(key_id=once)
        await w.hold(order)
        await w.release(order.request_id)
        (result,) = await w.hold(w.order(key_id=once))
        assert result.HasField("hold")


async def test_a_revoked_key_places_no_hold(url: str) -> None:
    async with world(url) as w:
        await w.people()
        key = await w.key(b"secret")
        await w.accounts.RevokeKey(accounts_pb.RevokeKeyRequest(key_id=key), timeout=30)
        (result,) = await w.hold(w.order(key_id=key))

        assert result.refusal == reasons.ERROR_REASON_KEY_REVOKED


@pytest.mark.parametrize("change", ["disabled = true", "expires_at = '2026-05-01 12:00Z'"])
async def test_a_key_that_is_switched_off_or_expired_gets_no_hold(url: str, change: str) -> None:
    async with world(url) as w:
        await w.people()
        key = await w.key(b"secret")
        async with owner(url) as db:
            await db.execute(f"UPDATE billing.api_key SET {change}")  # noqa: S608 - our own
        (result,) = await w.hold(w.order(key_id=key))
        assert result.refusal == reasons.ERROR_REASON_KEY_REVOKED


async def test_a_frozen_account_gets_no_hold_and_no_extension(url: str) -> None:
    async with world(url) as w:
        await w.people()
        before = w.order()
        await w.hold(before)
        dear = await w.price("dear", 20_000_000, 20_000_000)
        async with owner(url) as db:
            await db.execute("UPDATE billing.account SET frozen_at = now()")
        (result,) = await w.hold(w.order())
        assert result.refusal == reasons.ERROR_REASON_ACCOUNT_FROZEN

        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await w.ledger.ExtendHold(
                ledger_pb.ExtendHoldRequest(request_id=before.request_id, extension=1, price=dear),
                timeout=30,
            )
        assert from_rpc_error(caught.value).reason_name == "ACCOUNT_FROZEN"
        # What was held before may still be settled: the work is done.
        (settled,) = await w.settle(w.settlement(before.request_id))
        assert settled.status == 1
        await w.sound()


async def test_an_account_in_debt_gets_no_hold_until_it_has_repaid(url: str) -> None:
    async with world(url) as w:
        await w.people()
        await move(w, "refund", f"user:{CONSUMER}:debt", "platform:stripe_payable", 5)
        (refused,) = await w.hold(w.order())
        assert refused.refusal == reasons.ERROR_REASON_ACCOUNT_FROZEN

        await credit(w, "user_credit", 5)
        await move(w, "repay", f"user:{CONSUMER}:credit", f"user:{CONSUMER}:debt", 5)
        (result,) = await w.hold(w.order())
        assert result.HasField("hold")


async def test_closed_wallets_refuse_alone(url: str) -> None:
    async with world(url) as w:
        await w.people()
        await w.account("acct_gone", 10_000)
        async with owner(url) as db:
            await db.execute(
                "UPDATE ledger.account SET closed = true WHERE path LIKE 'user:acct_gone:%'"
            )
        gone, here = await w.hold(w.order(account_id="acct_gone"), w.order())
        assert gone.refusal == reasons.ERROR_REASON_NOT_FOUND
        assert here.HasField("hold")


async def test_money_is_held_promotional_first_then_purchased_then_earned(url: str) -> None:
    async with world(url) as w:
        await w.people(500)
        await credit(w, "user_credit", 1_000)
        await credit(w, "user_earned", 10_000)
        order = w.order()
        await w.hold(order)

        async with owner(url) as db:
            legs = await db.fetch(
                "SELECT debit_class, amount FROM billing.legs($1)", order.request_id
            )
        assert [tuple(leg) for leg in legs] == [
            ("user_promo", 500),
            ("user_credit", 1_000),
            ("user_earned", 500),
        ]
        # The charge of 800 takes promo and 300 of credit; the rest goes back where it came from.
        await w.settle(w.settlement(order.request_id))
        assert await w.balance(CONSUMER) == (10_700, 10_000, 0)
        await w.sound()


async def credit(w: World, kind: str, micros: int) -> None:
    """Plant a rule that does not exist yet, as the owner, and move money by it."""
    async with owner(w.url) as db:
        await db.execute(
            "INSERT INTO ledger.rule VALUES ('test', 'budget', $1) ON CONFLICT DO NOTHING", kind
        )
        await w.account("acct_other", micros)
        await db.execute(
            "INSERT INTO ledger.rule VALUES ('test', 'user_promo', $1) ON CONFLICT DO NOTHING", kind
        )
    target = f"user:{CONSUMER}:{kind.removeprefix('user_')}"
    await move(w, "test", "user:acct_other:promo", target, micros)


async def move(w: World, code: str, source: str, target: str, micros: int) -> None:
    """Book one transfer as the owner."""
    async with owner(w.url) as db:
        await db.execute(
            """WITH e AS (INSERT INTO ledger.event (idem_key, kind, body_hash, body, result,
                 occurred_at) VALUES ('test:' || $1 || $3, 'test', '', '{}', '{}', now())
                 RETURNING id)
               INSERT INTO ledger.transfer (event_id, mode, code, unit, debit_id, debit_class,
                 credit_id, credit_class, amount)
               SELECT e.id, 'single', $1, 'uUSD', f.id, f.class, t.id, t.class, $4
               FROM e, ledger.account f, ledger.account t WHERE f.path = $2 AND t.path = $3""",
            code,
            source,
            target,
            micros,
        )


async def extend(w: World, name: str, number: int, price: object) -> ledger_pb.ExtendHoldResponse:
    return await w.ledger.ExtendHold(
        ledger_pb.ExtendHoldRequest(request_id=name, extension=number, price=price), timeout=30
    )


async def test_an_extension_adds_the_difference_and_is_idempotent(url: str) -> None:
    async with world(url) as w:
        await w.people()
        order = w.order()
        await w.hold(order)
        dearer = await w.price("dearer", 30_000_000, 40_000_000)
        for _ in range(3):
            response = await extend(w, order.request_id, 1, dearer)
            assert response.hold.amount_micros == 5_000
            assert response.hold.price == dearer

        assert (await w.balance(CONSUMER))[2] == 5_000
        await w.sound()


async def test_an_extension_takes_only_prices_of_ours(url: str) -> None:
    async with world(url) as w:
        await w.people()
        order = w.order()
        (held,) = await w.hold(order)
        invented = held.hold.price
        invented.input_micros = 500_000_000
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await extend(w, order.request_id, 1, invented)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert (await w.balance(CONSUMER))[2] == WORST_CASE


async def test_an_extension_is_refused_without_money_with_a_gap_or_after_the_end(url: str) -> None:
    async with world(url) as w:
        await w.people(WORST_CASE + 10)
        order = w.order()
        await w.hold(order)
        dearer = await w.price("dearer", 30_000_000, 40_000_000)
        with pytest.raises(grpc.aio.AioRpcError) as short:
            await extend(w, order.request_id, 1, dearer)
        error = from_rpc_error(short.value)
        assert error.reason == reasons.ERROR_REASON_INSUFFICIENT_FUNDS
        assert error.metadata == {
            "darkbloom-required-micros": "3000",
            "darkbloom-available-micros": "10",
        }

        with pytest.raises(grpc.aio.AioRpcError) as gap:
            await extend(w, order.request_id, 2, dearer)
        assert gap.value.code() is grpc.StatusCode.INVALID_ARGUMENT

        await w.release(order.request_id)
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await extend(w, order.request_id, 1, dearer)
        assert from_rpc_error(ended.value).reason == reasons.ERROR_REASON_HOLD_ENDED
        await w.sound()


async def test_an_expired_lease_is_swept_and_a_renewed_one_is_not(url: str) -> None:
    async with world(url, sweep_period_s=4) as w:
        await w.people()
        lost, kept = w.order(), w.order()
        await w.hold(lost, kept)
        await w.clock.advance(800)
        renewed = await w.ledger.RenewHolds(
            ledger_pb.RenewHoldsRequest(
                request_ids=[kept.request_id, request_id()], lease=Duration(seconds=10_000)
            ),
            timeout=30,
        )
        assert len(renewed.ended_request_ids) == 1
        assert renewed.expire_time.ToDatetime().minute == 28
        await w.clock.advance(200)

        async with asyncio.timeout(30):
            while (await w.balance(CONSUMER))[2] != WORST_CASE:
                await w.clock.advance(4)
        (late,) = await w.settle(w.settlement(lost.request_id))
        assert late.status == 4
        (replayed,) = await w.release(lost.request_id)
        assert replayed.status == 3
        await w.sound()


async def test_renewals_end_two_hours_after_the_hold(url: str) -> None:
    async with world(url, sweep_period_s=60) as w:
        await w.people()
        order = w.order()
        await w.hold(order)
        renewal = ledger_pb.RenewHoldsRequest(
            request_ids=[order.request_id], lease=Duration(seconds=900)
        )
        for _ in range(9):
            await w.ledger.RenewHolds(renewal, timeout=30)
            await w.clock.advance(850)

        async with asyncio.timeout(30):
            while (await w.balance(CONSUMER))[2]:
                await w.clock.advance(60)
        await w.sound()
