"""Money that Stripe takes back is always booked, and automatic top-ups ask for more."""

import asyncio

import pytest
from darkbloom.billing.v1 import payment_service_pb2 as pb
from darkbloom_mesh.clock import SystemClock

from tests.component.billing.till import Till, till
from tests.component.billing.world import CONSUMER


async def spend(s: Till) -> None:
    """Reserve what a request of 10 USD would cost."""
    await s.world.price("dear", 100_000_000, 100_000_000)
    order = s.world.order(prompt_bound=50_000, output_bound=49_000)
    (result,) = await s.world.hold(order)
    assert result.hold.amount_micros == 9_900_000


async def agree(s: Till) -> None:
    """The books and Stripe hold the same."""
    books = (await s.books.stripe_position()).balance_micros
    assert books == (await s.stripe.do("state"))["balance"] * 10_000


async def test_refunds_are_booked_one_by_one_and_their_lines_add_up(url: str) -> None:
    async with till(url) as s:
        _, charge = await s.paid(10_000_000)
        for cents in (333, 333, 1061 - 666):
            await s.stripe.do("refund", charge=charge, amount=cents)
        await s.deliver(times=2, reverse=True)
        wallets = await s.wallets()
        assert (wallets.credit_micros, wallets.debt_micros, wallets.frozen) == (0, 0, False)
        await agree(s)
        await s.world.sound()


async def test_a_refund_of_spent_money_is_a_debt_that_freezes_and_is_paid_first(url: str) -> None:
    async with till(url) as s:
        _, charge = await s.paid(10_000_000)
        await spend(s)
        await s.stripe.do("refund", charge=charge)
        await s.deliver()
        wallets = await s.wallets()
        assert (wallets.debt_micros, wallets.frozen) == (9_900_000, True)
        await s.paid(20_000_000)
        wallets = await s.wallets()
        assert (wallets.debt_micros, wallets.credit_micros) == (0, 10_100_000)
        assert not wallets.frozen
        await s.world.sound()


async def test_a_refund_may_be_told_before_its_payment(url: str) -> None:
    async with till(url) as s:
        opened = await s.deposit()
        await s.stripe.do("pay", session=opened.stripe_session)
        charges = await s.stripe.objects("charge")
        await s.stripe.do("refund", charge=charges[0]["id"])
        await s.deliver(reverse=True)
        s.clock.jump(5)
        await s.until("SELECT count(*) FROM billing.stripe_event WHERE state = 'waiting'", 0)
        assert (await s.wallets()).credit_micros == 0
        await agree(s)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("status", ["won", "lost"])
async def test_a_dispute_is_booked_in_any_order(url: str, status: str, reverse: bool) -> None:
    async with till(url) as s:
        _, charge = await s.paid(10_000_000)
        dispute = await s.stripe.do("dispute", charge=charge)
        if not reverse:
            await s.deliver()
            assert (await s.wallets()).credit_micros == 0
        await s.stripe.do("close_dispute", dispute=dispute["id"], status=status)
        await s.deliver(times=2, reverse=reverse)
        wallets = await s.wallets()
        won = status == "won"
        assert wallets.credit_micros == (10_000_000 if won else 0)
        # The consumer's own line for the fee was disputed as well.
        assert wallets.debt_micros == (0 if won else 610_000)
        await agree(s)
        await s.world.sound()


@pytest.mark.parametrize("reverse", [False, True])
async def test_a_dispute_may_be_told_before_its_payment(url: str, reverse: bool) -> None:
    """A dispute carries nothing of ours: only its charge says whose it is."""
    async with till(url) as s:
        opened = await s.deposit()
        await s.stripe.do("pay", session=opened.stripe_session)
        (charge,) = await s.stripe.objects("charge")
        paid = await s.stripe.take()
        await s.stripe.do("dispute", charge=charge["id"])
        await s.deliver(reverse=reverse)
        assert (await s.wallets()).credit_micros == 0
        for webhook in paid:
            await s.hand_in(webhook)
        s.clock.jump(5)
        await s.until("SELECT count(*) FROM billing.stripe_event WHERE state = 'waiting'", 0)
        assert await s.value("SELECT state FROM billing.stripe_dispute") == "open"
        assert (await s.wallets()).credit_micros == 0
        await agree(s)
        await s.world.sound()


async def test_a_refund_that_comes_back_leaves_everybody_as_before(url: str) -> None:
    """The line for Stripe's fee is the platform's again, and no money of the consumer."""
    async with till(url) as s:
        _, charge = await s.paid(10_000_000)
        for _ in range(2):
            refund = await s.stripe.do("refund", charge=charge)
            await s.deliver()
            assert (await s.wallets()).credit_micros == 0
            await s.stripe.do("fail_refund", refund=refund["id"])
            await s.deliver(times=2)
            assert (await s.wallets()).credit_micros == 10_000_000
            await agree(s)
        await s.stripe.do("refund", charge=charge)
        await s.deliver()
        wallets = await s.wallets()
        assert (wallets.credit_micros, wallets.debt_micros) == (0, 0)
        await agree(s)
        await s.world.sound()


async def test_every_page_of_a_charges_refunds_is_booked(url: str) -> None:
    async with till(url) as s:
        _, charge = await s.paid(10_000_000)
        for _ in range(103):
            await s.stripe.do("refund", charge=charge, amount=1)
        (last, *_) = reversed(await s.stripe.take())
        await s.hand_in(last)
        await s.acted()
        booked = "SELECT count(*) FROM ledger.event WHERE kind = 'refund'"
        assert await s.value(booked) == 103
        await agree(s)


async def test_a_lost_dispute_that_is_reinstated_is_given_back_in_parts(url: str) -> None:
    async with till(url) as s:
        _, charge = await s.paid(10_000_000)
        dispute = await s.stripe.do("dispute", charge=charge)
        await s.stripe.do("close_dispute", dispute=dispute["id"], status="lost")
        await s.deliver()
        assert (await s.wallets()).debt_micros == 610_000
        await s.stripe.do("reinstate", dispute=dispute["id"], amount=400, fee=500)
        await s.deliver(times=2)
        wallets = await s.wallets()
        assert (wallets.debt_micros, wallets.credit_micros) == (0, 4_000_000 - 610_000)
        await agree(s)
        await s.stripe.do("reinstate", dispute=dispute["id"], amount=661)
        await s.deliver(times=2)
        assert (await s.wallets()).credit_micros == 10_000_000
        assert await s.value("SELECT state FROM billing.stripe_dispute") == "won"
        await agree(s)
        await s.world.sound()


async def test_a_dispute_that_is_won_in_part_is_decided(url: str) -> None:
    async with till(url) as s:
        _, charge = await s.paid(10_000_000)
        dispute = await s.stripe.do("dispute", charge=charge)
        await s.stripe.do("reinstate", dispute=dispute["id"], amount=500)
        await s.deliver()
        assert await s.value("SELECT state FROM billing.stripe_dispute") == "open"
        await s.stripe.do("close_dispute", dispute=dispute["id"], status="lost")
        await s.deliver()
        assert (await s.wallets()).credit_micros == 5_000_000 - 610_000
        await agree(s)
        await s.world.sound()


async def test_an_inquiry_moves_nothing_until_money_is_taken(url: str) -> None:
    async with till(url) as s:
        _, charge = await s.paid(10_000_000)
        dispute = await s.stripe.do("dispute", charge=charge, withdraw=False)
        await s.deliver()
        assert (await s.wallets()).credit_micros == 10_000_000
        await s.stripe.do("withdraw_dispute", dispute=dispute["id"])
        await s.deliver()
        assert (await s.wallets()).credit_micros == 0


async def with_card(s: Till, **card: object) -> None:
    """Save a card through a set-up session."""
    request = pb.CreateCardSetupRequest(request_id="setup", account_id=CONSUMER)
    await s.payments.CreateCardSetup(request, timeout=30)
    (session,) = await s.stripe.objects("checkout.session")
    await s.stripe.do("pay", session=session["id"], **card)
    await s.deliver()


async def enabled(s: Till, cap: int = 20_000_000) -> pb.AutoTopUp:
    response = await s.payments.SetAutoTopUp(
        pb.SetAutoTopUpRequest(
            account_id=CONSUMER,
            enabled=True,
            threshold_micros=5_000_000,
            amount_micros=10_000_000,
            monthly_cap_micros=cap,
        ),
        timeout=30,
    )
    settings: pb.AutoTopUp = response.auto_top_up
    return settings


async def settings(s: Till) -> pb.AutoTopUp:
    response = await s.payments.GetAutoTopUp(
        pb.GetAutoTopUpRequest(account_id=CONSUMER), timeout=30
    )
    found: pb.AutoTopUp = response.auto_top_up
    return found


async def test_a_low_balance_charges_the_saved_card_within_its_cap(url: str) -> None:
    made = "SELECT count(*) FROM billing.stripe_session WHERE kind = 'auto' AND status = $1"
    async with till(url) as s:
        await with_card(s)
        assert (await enabled(s)).card_last4 == "4242"
        await s.until(made, 1, "completed")
        await s.deliver(times=2)
        assert (await s.wallets()).credit_micros == 10_000_000
        await spend(s)
        await s.until(made, 2, "completed")
        await s.deliver(times=2)
        await spend(s)
        # The month's cap is reached: low, and yet nothing is charged.
        await s.until("SELECT credit < 5000000 FROM billing.wallets($1)", True, CONSUMER)
        s.clock.jump(1)
        assert (await settings(s)).month_micros == 20_000_000
        assert len(await s.stripe.objects("charge")) == 2
        await agree(s)


async def test_a_declined_card_switches_the_top_up_off_and_says_why(url: str) -> None:
    async with till(url) as s:
        await with_card(s, last4="0002")
        await enabled(s)
        s.clock.jump(1)
        await s.until("SELECT enabled FROM billing.auto_top_up", expected=False)
        assert (await settings(s)).disabled_reason == "card_declined"
        s.clock.jump(100)
        assert len(await s.stripe.calls("POST /v1/payment_intents")) == 1


async def test_a_top_up_without_its_answer_is_not_charged_twice(url: str) -> None:
    async with till(url) as s:
        await with_card(s)
        await s.stripe.do("fault", path="/v1/payment_intents", kind="cut", when="after")
        await enabled(s)
        s.clock.jump(1)
        await s.until("SELECT count(*) FROM billing.stripe_session WHERE kind = 'auto'", 1)
        s.clock.jump(61)
        s.clock.jump(1)
        await s.until("SELECT status FROM billing.stripe_session WHERE kind = 'auto'", "completed")
        assert len(await s.stripe.objects("charge")) == 1
        assert (await s.wallets()).credit_micros == 10_000_000


async def test_a_top_up_that_nobody_can_tell_about_is_not_asked_for_again_after_half_a_day(
    url: str,
) -> None:
    """Stripe forgets its keys after a day: then the same question would charge the card again."""
    async with till(url) as s:
        await with_card(s)
        await s.stripe.do("fault", path="/v1/payment_intents", kind="cut", when="after", times=9)
        await enabled(s)
        s.clock.jump(1)
        async with asyncio.timeout(20):
            while not await s.stripe.objects("charge"):
                await SystemClock().sleep(0.01)
        s.clock.jump(13 * 3600)
        await s.until("SELECT status FROM billing.stripe_session WHERE kind = 'auto'", "failed")
        assert (await settings(s)).disabled_reason == "undecided"
        # Its event may come after all.
        await s.deliver()
        assert len(await s.stripe.objects("charge")) == 1
        assert (await s.wallets()).credit_micros == 10_000_000
        await agree(s)


async def test_a_forgotten_card_is_not_charged(url: str) -> None:
    async with till(url) as s:
        await with_card(s)
        await enabled(s)
        request = pb.DeleteCardRequest(account_id=CONSUMER)
        for _ in range(2):
            await s.payments.DeleteCard(request, timeout=30)
        found = await settings(s)
        assert (found.enabled, found.card_last4) == (False, "")
