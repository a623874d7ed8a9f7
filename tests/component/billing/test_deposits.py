"""Money in: what was paid is credited once, whatever order and number of events."""

import json

import grpc
import pytest
from darkbloom.billing.v1 import payment_service_pb2 as pb
from darkbloom_billing.books import Budget
from darkbloom_mesh.config import Secret
from darkbloom_mesh.errors import from_rpc_error

from tests.component.billing.till import Till, till
from tests.stripe_local.delivery import sign
from tests.stripe_local.running import API_KEY, Webhook


def reason(error: grpc.aio.AioRpcError) -> str:
    return from_rpc_error(error).reason_name


async def totals(s: Till) -> tuple[int, int]:
    """What the books and Stripe hold for us, in micro-USD."""
    position = await s.books.stripe_position()
    balance = (await s.stripe.do("state"))["balance"] * 10_000
    return position.balance_micros, balance


async def test_a_paid_session_is_credited_once_and_its_line_pays_stripes_fee(url: str) -> None:
    async with till(url) as s:
        opened = await s.deposit(10_000_000)
        assert (opened.amount_micros, opened.fee_micros) == (10_000_000, 610_000)
        await s.stripe.do("pay", session=opened.stripe_session, fingerprint="card-a")
        await s.deliver(times=3, reverse=True)
        wallets = await s.wallets()
        assert (wallets.credit_micros, wallets.earned_micros) == (10_000_000, 0)
        assert (await s.found(opened)).status == pb.DEPOSIT_STATUS_COMPLETED
        books, stripe = await totals(s)
        assert books == stripe == 10_000_000
        cards = await s.value("SELECT count(*) FROM billing.fingerprint WHERE kind = 'card'")
        assert cards == 1
        await s.world.sound()


async def test_each_webhook_again_changes_nothing(url: str) -> None:
    async with till(url) as s:
        _, charge = await s.paid()
        await s.stripe.do("refund", charge=charge, amount=100)
        await s.deliver()
        before = await s.value("SELECT count(*) FROM ledger.event")
        for webhook in s.seen:
            assert not (await s.hand_in(webhook)).stored
        await s.acted()
        assert await s.value("SELECT count(*) FROM ledger.event") == before


async def test_an_event_whose_signature_does_not_fit_is_not_stored(url: str) -> None:
    async with till(url) as s:
        opened = await s.deposit()
        await s.stripe.do("pay", session=opened.stripe_session)
        good = (await s.stripe.take())[0]
        forged = [
            Webhook(good.url, good.body + b" ", good.signature),
            Webhook(good.url, good.body, "t=,v1="),
            Webhook("http://test.invalid/transfers", good.body, good.signature),
        ]
        for webhook in (*forged, good):
            if webhook is good:
                s.clock.jump(301)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await s.hand_in(webhook)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert await s.value("SELECT count(*) FROM billing.stripe_event") == 0


async def test_a_second_secret_is_valid_while_they_are_rotated(url: str) -> None:
    new = {"stripe_webhook_secret": Secret("whsec_new")}
    async with till(url, **new, stripe_legacy_webhook_secret=Secret("whsec_pay")) as s:
        await s.paid()
        assert (await s.wallets()).credit_micros == 10_000_000


async def test_without_a_secret_nothing_is_believed(url: str) -> None:
    async with till(url, stripe_webhook_secret=None) as s:
        opened = await s.deposit()
        await s.stripe.do("pay", session=opened.stripe_session)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await s.hand_in((await s.stripe.take())[0])
        assert reason(caught.value) == "PAYMENTS_NOT_CONFIGURED"


async def test_a_slow_payment_is_credited_when_the_bank_says_so(url: str) -> None:
    async with till(url) as s:
        good, bad = await s.deposit(), await s.deposit()
        for each in (good, bad):
            await s.stripe.do("pay", session=each.stripe_session, asynchronous=True)
        await s.deliver()
        assert (await s.found(good)).status == pb.DEPOSIT_STATUS_PROCESSING
        assert (await s.wallets()).credit_micros == 0
        await s.stripe.do("decide", session=good.stripe_session, succeeded=True)
        await s.stripe.do("decide", session=bad.stripe_session, succeeded=False)
        await s.deliver(reverse=True)
        assert (await s.found(good)).status == pb.DEPOSIT_STATUS_COMPLETED
        assert (await s.found(bad)).status == pb.DEPOSIT_STATUS_FAILED
        assert (await s.wallets()).credit_micros == 10_000_000


async def test_an_expired_session_credits_nothing(url: str) -> None:
    async with till(url) as s:
        opened = await s.deposit()
        await s.stripe.do("expire", session=opened.stripe_session)
        await s.deliver()
        assert (await s.found(opened)).status == pb.DEPOSIT_STATUS_EXPIRED
        assert (await s.wallets()).credit_micros == 0


@pytest.mark.parametrize("when", ["before", "after"])
async def test_an_opening_without_its_answer_is_repeated_safely(url: str, when: str) -> None:
    async with till(url) as s:
        await s.stripe.do("fault", path="/v1/checkout", kind="cut", when=when)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await s.deposit(name="once")
        assert reason(caught.value) == "STRIPE_FAILED"
        opened = await s.deposit(name="once")
        assert opened.url
        sessions = await s.stripe.objects("checkout.session")
        assert [each["id"] for each in sessions] == [opened.stripe_session]


async def test_a_payment_whose_opening_was_never_answered_is_credited(url: str) -> None:
    async with till(url) as s:
        await s.stripe.do("fault", path="/v1/checkout", kind="error", when="after")
        with pytest.raises(grpc.aio.AioRpcError):
            await s.deposit()
        (session,) = await s.stripe.objects("checkout.session")
        await s.stripe.do("pay", session=session["id"])
        await s.deliver()
        assert (await s.wallets()).credit_micros == 10_000_000


async def test_an_amount_that_cannot_be_paid_is_refused(url: str) -> None:
    async with till(url) as s:
        for micros in (0, 490_000, 505_000, 10_000_000_000_000):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await s.deposit(micros)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_one_request_is_one_session_and_another_amount_a_conflict(url: str) -> None:
    async with till(url) as s:
        first = await s.deposit(1_000_000, "same")
        assert await s.deposit(1_000_000, "same") == first
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await s.deposit(2_000_000, "same")
        assert reason(caught.value) == "IDEMPOTENCY_CONFLICT"


async def test_somebody_elses_session_is_not_there(url: str) -> None:
    async with till(url) as s:
        opened = await s.deposit()
        request = pb.GetDepositRequest(account_id="acct_provider", session_id=opened.session_id)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await s.payments.GetDeposit(request, timeout=30)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_payment_that_differs_from_its_session_waits_for_a_person(url: str) -> None:
    async with till(url) as s:
        opened = await s.deposit()
        await s.value(
            "UPDATE billing.stripe_session SET external_id = 'cs_other' RETURNING session_id"
        )
        await s.stripe.do("pay", session=opened.stripe_session)
        await s.deliver()
        waiting = "SELECT problem FROM billing.stripe_event WHERE state = 'waiting'"
        assert await s.value(waiting) == "NOT_FOUND"
        assert (await s.wallets()).credit_micros == 0
        s.clock.jump(3 * 86400)
        await s.until("SELECT state FROM billing.stripe_event WHERE problem <> ''", "stuck")


async def test_the_budget_pays_the_fee_and_deposits_stop_when_it_is_empty(url: str) -> None:
    async with till(url, stripe_fee_payer="budget") as s:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await s.deposit()
        assert reason(caught.value) == "DEPOSITS_STOPPED"
        await s.books.fund_equity("eq", 590_000, operator="ann")
        await s.books.fund_budget("b", Budget.FEES, 590_000, operators=("ann", "bob"))
        await s.paid(10_000_000)
        assert await s.free("platform:budget:fees") == 0
        assert (await s.wallets()).credit_micros == 10_000_000


async def test_stripe_being_away_delays_an_event_and_loses_nothing(url: str) -> None:
    async with till(url) as s:
        opened = await s.deposit()
        await s.stripe.do("pay", session=opened.stripe_session)
        await s.stripe.do(
            "fault", path="/v1/checkout/sessions", method="GET", kind="error", times=1
        )
        await s.deliver()
        assert (await s.wallets()).credit_micros == 0
        s.clock.jump(2)
        await s.until("SELECT count(*) FROM billing.stripe_event WHERE state = 'waiting'", 0)
        assert (await s.wallets()).credit_micros == 10_000_000


async def test_payments_without_a_key_say_so(url: str) -> None:
    async with till(url, stripe_secret_key=None) as s:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await s.deposit()
        assert reason(caught.value) == "PAYMENTS_NOT_CONFIGURED"
        options = await s.payments.GetPaymentOptions(pb.GetPaymentOptionsRequest(), timeout=30)
        assert (options.deposits, options.payouts) == (False, False)


async def test_an_event_that_nobody_here_can_act_on_waits(url: str) -> None:
    keys = {"stripe_secret_key": None, "stripe_connect_secret_key": Secret(API_KEY)}
    async with till(url, **keys) as s:
        event = {
            "id": "evt_1",
            "object": "event",
            "type": "checkout.session.completed",
            "created": 1,
            "data": {"object": {"id": "cs_1"}},
        }
        body = json.dumps(event).encode()
        header = sign(body, "whsec_pay", int(s.clock.now().timestamp()))
        assert (await s.hand_in(Webhook("http://test.invalid/payments", body, header))).stored
        await s.acted()
        assert await s.value("SELECT problem FROM billing.stripe_event") == "not_configured"


async def test_an_answer_in_another_shape_stops_nobody_else(url: str) -> None:
    async with till(url) as s:
        odd, good = await s.deposit(), await s.deposit()
        for each in (odd, good):
            await s.stripe.do("pay", session=each.stripe_session)
        await s.stripe.do("bend", id=odd.stripe_session, drop="payment_status")
        await s.deliver()
        assert (await s.found(good)).status == pb.DEPOSIT_STATUS_COMPLETED
        waiting = "SELECT problem FROM billing.stripe_event WHERE state = 'waiting'"
        assert await s.value(waiting) == "STRIPE_FAILED"


async def test_a_payment_whose_events_were_lost_is_found_after_a_day(url: str) -> None:
    async with till(url) as s:
        paid, left = await s.deposit(), await s.deposit()
        await s.stripe.do("pay", session=paid.stripe_session)
        await s.stripe.do("expire", session=left.stripe_session)
        await s.stripe.take()
        s.clock.jump(25 * 3600)
        await s.until(
            "SELECT status FROM billing.stripe_session WHERE session_id = $1",
            "completed",
            paid.session_id,
            nudge_s=600,
        )
        await s.until(
            "SELECT status FROM billing.stripe_session WHERE session_id = $1",
            "expired",
            left.session_id,
            nudge_s=600,
        )
        assert (await s.wallets()).credit_micros == 10_000_000
        await s.world.sound()
