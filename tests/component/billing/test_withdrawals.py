"""Money out: what may have left stays reserved, and nothing is ever sent twice."""

import grpc
import pytest
from darkbloom.billing.v1 import payment_service_pb2 as pb
from darkbloom_mesh.errors import MeshError, from_rpc_error

from tests.component.billing.till import Till, till
from tests.component.billing.world import CONSUMER, PROVIDER

STANDARD, INSTANT = pb.WITHDRAWAL_METHOD_STANDARD, pb.WITHDRAWAL_METHOD_INSTANT
PENDING, QUEUED = pb.WITHDRAWAL_STATUS_PENDING, pb.WITHDRAWAL_STATUS_QUEUED
TRANSFERRED, PAID = pb.WITHDRAWAL_STATUS_TRANSFERRED, pb.WITHDRAWAL_STATUS_PAID
FAILED, MANUAL = pb.WITHDRAWAL_STATUS_FAILED, pb.WITHDRAWAL_STATUS_MANUAL


async def refused(s: Till, micros: int = 5_000_000, method: int = STANDARD) -> MeshError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await s.withdraw(micros, method=method)
    return from_rpc_error(caught.value)


async def ready(s: Till, micros: int = 20_000_000, **destination: object) -> str:
    await s.earn(micros)
    return await s.onboarded(**destination)


async def earned(s: Till) -> tuple[int, int]:
    wallets = await s.wallets(PROVIDER)
    return wallets.earned_micros, wallets.held_micros


async def transfers(s: Till) -> int:
    return len(await s.stripe.objects("transfer"))


async def swept(s: Till, account: str, status: str = "paid") -> None:
    """Let Stripe's schedule pay out, and tell."""
    payout = await s.stripe.do("sweep", account=account)
    await s.stripe.do("payout", account=account, payout=payout["id"], status=status)
    await s.deliver()


async def test_a_standard_withdrawal_is_paid_by_the_schedule_that_carried_it(url: str) -> None:
    async with till(url) as s:
        account = await ready(s)
        made = await s.withdraw(5_000_000)
        assert (made.status, made.fee_micros, made.net_micros) == (TRANSFERRED, 0, 5_000_000)
        assert await earned(s) == (15_000_000, 5_000_000)
        await swept(s, account)
        assert (await s.latest()).status == PAID
        assert await earned(s) == (15_000_000, 0)
        books = (await s.books.stripe_position()).balance_micros
        assert books == (await s.stripe.do("state"))["balance"] * 10_000
        await s.world.sound()


async def test_a_schedule_that_carried_something_else_pays_nothing(url: str) -> None:
    async with till(url) as s:
        account = await ready(s)
        await s.withdraw(5_000_000)
        payout = await s.stripe.do("sweep", account=account)
        s.clock.jump(1)
        later = await s.withdraw(2_000_000)
        await s.stripe.do("payout", account=account, payout=payout["id"], status="paid")
        await s.deliver()
        assert (await s.latest()).withdrawal_id == later.withdrawal_id
        assert (await s.latest()).status == TRANSFERRED


async def test_an_instant_withdrawal_costs_its_fee_and_is_paid_by_its_payout(url: str) -> None:
    async with till(url) as s:
        account = await ready(s, 100_000_000, card={"last4": "5556"})
        made = await s.withdraw(50_000_000, method=INSTANT)
        assert (made.fee_micros, made.net_micros) == (750_000, 49_250_000)
        assert made.payout_id
        assert made.arrival_time.seconds
        await s.stripe.do("payout", account=account, payout=made.payout_id, status="paid")
        await s.deliver(times=2)
        assert (await s.latest()).status == PAID
        assert await earned(s) == (50_000_000, 0)
        assert await s.value("SELECT count(*) FROM billing.fingerprint WHERE kind = 'bank'") == 1
        await s.world.sound()


async def test_an_instant_payout_that_fails_costs_nothing(url: str) -> None:
    async with till(url) as s:
        account = await ready(s, card={})
        made = await s.withdraw(5_000_000, method=INSTANT)
        assert made.fee_micros == 500_000
        await s.stripe.do("payout", account=account, payout=made.payout_id, status="failed")
        await s.deliver(times=2)
        reopened = await s.latest()
        assert (reopened.status, reopened.payout_id) == (TRANSFERRED, "")
        await swept(s, account)
        assert (await s.latest()).status == PAID
        assert await earned(s) == (15_500_000, 0)
        await s.world.sound()


async def test_a_payout_that_fails_after_it_was_paid_gives_the_fee_back_once(url: str) -> None:
    async with till(url) as s:
        account = await ready(s, card={})
        made = await s.withdraw(5_000_000, method=INSTANT)
        for status in ("paid", "failed"):
            await s.stripe.do("payout", account=account, payout=made.payout_id, status=status)
            await s.deliver()
        assert (await s.latest()).status == TRANSFERRED
        assert await earned(s) == (15_500_000, 0)
        await swept(s, account)
        assert (await s.latest()).status == PAID
        assert await earned(s) == (15_500_000, 0)
        await s.world.sound()


async def test_a_refused_instant_payout_leaves_the_principal_to_the_schedule(url: str) -> None:
    async with till(url) as s:
        account = await ready(s, card={})
        await s.stripe.do("fault", path="/v1/payouts", kind="refuse", code="instant_limit")
        made = await s.withdraw(5_000_000, method=INSTANT)
        assert (made.status, made.payout_id, made.failure_reason) == (
            TRANSFERRED,
            "",
            "instant_limit",
        )
        await swept(s, account)
        assert await earned(s) == (15_500_000, 0)


@pytest.mark.parametrize("kind", ["cut", "error"])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_lost_answer_is_asked_for_again_and_paid_once(
    url: str, kind: str, when: str
) -> None:
    async with till(url) as s:
        await ready(s)
        await s.stripe.do("fault", path="/v1/transfers", kind=kind, when=when)
        made = await s.withdraw(5_000_000)
        assert (made.status, made.transfer_id, made.refunded) == (PENDING, "", False)
        assert await earned(s) == (15_000_000, 5_000_000)
        s.clock.jump(31)
        await s.until("SELECT status FROM billing.withdrawal", "transferred")
        assert await transfers(s) == 1


async def test_a_lost_answer_of_a_payout_is_asked_for_again(url: str) -> None:
    async with till(url) as s:
        await ready(s, card={})
        await s.stripe.do("fault", path="/v1/payouts", kind="cut", when="after")
        made = await s.withdraw(5_000_000, method=INSTANT)
        assert (made.status, made.payout_id) == (TRANSFERRED, "")
        s.clock.jump(31)
        await s.until("SELECT payout_id IS NOT NULL FROM billing.withdrawal", expected=True)
        assert len(await s.stripe.objects("payout", made.stripe_account_id)) == 1


@pytest.mark.parametrize("told", [False, True])
async def test_a_payout_without_an_answer_is_found_when_stripe_has_forgotten_its_key(
    url: str, told: bool
) -> None:
    async with till(url) as s:
        account = await ready(s, 50_000_000, card={})
        await s.stripe.do("fault", path="/v1/payouts", kind="cut", when="after")
        made = await s.withdraw(5_000_000, method=INSTANT)
        # Other money of the same owner is there, which a second payout would have carried away.
        await s.withdraw(20_000_000)
        (payout,) = await s.stripe.objects("payout", account)
        if told:
            await s.stripe.do("payout", account=account, payout=payout["id"], status="paid")
            await s.deliver()
        s.clock.jump(30 * 3600)
        where = f"FROM billing.withdrawal WHERE withdrawal_id = '{made.withdrawal_id}'"
        await s.until(f"SELECT payout_id {where}", payout["id"])
        assert len(await s.stripe.objects("payout", account)) == 1
        if told:
            assert await s.value(f"SELECT status {where}") == "paid"


async def test_a_payout_that_was_never_made_costs_no_fee_and_is_left_to_the_schedule(
    url: str,
) -> None:
    async with till(url) as s:
        account = await ready(s, card={})
        await s.stripe.do("fault", path="/v1/payouts", kind="error", when="before", times=999)
        made = await s.withdraw(5_000_000, method=INSTANT)
        assert made.status == TRANSFERRED
        waived = "SELECT fee_waived FROM billing.withdrawal"
        await s.until(waived, expected=True, nudge_s=1_900)
        assert await s.value("SELECT payout_tries FROM billing.withdrawal") == 29
        assert await earned(s) == (15_000_000, 5_000_000)
        await swept(s, account)
        assert (await s.latest()).status == PAID
        assert await earned(s) == (15_500_000, 0)
        await s.world.sound()


async def test_a_withdrawal_that_stripe_cannot_tell_about_does_not_stand_in_the_way(
    url: str,
) -> None:
    async with till(url) as s:
        await ready(s)
        await s.withdraw(5_000_000)
        broken = {"path": "/v1/transfers", "kind": "refuse", "code": "resource_missing"}
        await s.stripe.do("fault", **broken, times=999)
        s.clock.jump(3601)
        due = "SELECT count(*) FROM billing.withdrawal WHERE next_at <= $1"
        await s.until(due, 0, s.clock.now())
        assert (await s.latest()).status == TRANSFERRED


async def test_a_refusal_of_the_first_call_gives_everything_back_once(url: str) -> None:
    async with till(url) as s:
        await ready(s)
        await s.stripe.do("fault", path="/v1/transfers", kind="refuse", code="blocked")
        made = await s.withdraw(5_000_000, "once")
        assert (made.status, made.refunded, made.failure_reason) == (FAILED, True, "blocked")
        assert await earned(s) == (20_000_000, 0)
        assert (await s.withdraw(5_000_000, "once")).status == FAILED
        assert await transfers(s) == 0


async def test_a_refusal_after_doubt_gives_nothing_back_and_ends_with_a_person(url: str) -> None:
    async with till(url) as s:
        await ready(s)
        await s.stripe.do("fault", path="/v1/transfers", kind="cut", when="before")
        await s.stripe.do("fault", path="/v1/transfers", kind="refuse", code="blocked", times=999)
        await s.withdraw(5_000_000)
        s.clock.jump(31)
        await s.until("SELECT failure_reason FROM billing.withdrawal", "blocked")
        assert (await s.latest()).status == PENDING
        assert await earned(s) == (15_000_000, 5_000_000)
        s.clock.jump(12 * 3600)
        await s.until("SELECT status FROM billing.withdrawal", "manual_reconciliation_required")
        assert (await s.latest()).status == MANUAL
        assert await earned(s) == (15_000_000, 5_000_000)


async def test_short_of_funds_it_waits_without_a_second_fee(url: str) -> None:
    async with till(url) as s:
        await ready(s)
        await s.stripe.do("fund", amount=-1_900)
        made = await s.withdraw(5_000_000)
        assert (made.status, made.refunded) == (QUEUED, False)
        assert await earned(s) == (15_000_000, 5_000_000)
        await s.stripe.do("fund", amount=1_900)
        s.clock.jump(301)
        await s.until("SELECT status FROM billing.withdrawal", "transferred")
        assert await earned(s) == (15_000_000, 5_000_000)
        assert await transfers(s) == 1


@pytest.mark.parametrize("after", [False, True])
async def test_a_reversed_transfer_gives_the_whole_amount_back(url: str, after: bool) -> None:
    async with till(url) as s:
        account = await ready(s, card={})
        made = await s.withdraw(5_000_000, method=INSTANT)
        if after:
            await s.stripe.do("payout", account=account, payout=made.payout_id, status="paid")
            await s.deliver()
        await s.stripe.do("payout", account=account, payout=made.payout_id, status="canceled")
        await s.stripe.do("reverse", transfer=made.transfer_id)
        await s.deliver(times=2, reverse=True)
        assert (await s.latest()).status == FAILED
        assert await earned(s) == (20_000_000, 0)
        await s.world.sound()


async def test_a_missed_event_is_made_up_for_within_the_hour(url: str) -> None:
    async with till(url) as s:
        account = await ready(s)
        await s.withdraw(5_000_000)
        payout = await s.stripe.do("sweep", account=account)
        await s.stripe.do("payout", account=account, payout=payout["id"], status="paid")
        await s.stripe.take()
        s.clock.jump(3601)
        await s.until("SELECT status FROM billing.withdrawal", "paid")


async def test_a_missed_reversal_is_made_up_for_within_the_hour(url: str) -> None:
    """Also one that Stripe told before we knew the transfer's name."""
    async with till(url) as s:
        await ready(s)
        made = await s.withdraw(5_000_000)
        await s.stripe.do("reverse", transfer=made.transfer_id)
        await s.stripe.take()
        s.clock.jump(3601)
        await s.until("SELECT status FROM billing.withdrawal", "failed")
        assert await earned(s) == (20_000_000, 0)
        await s.world.sound()


async def test_one_request_is_one_withdrawal_and_another_amount_a_conflict(url: str) -> None:
    async with till(url) as s:
        await ready(s)
        first = await s.withdraw(5_000_000, "same")
        assert (await s.withdraw(5_000_000, "same")).withdrawal_id == first.withdrawal_id
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await s.withdraw(6_000_000, "same")
        assert from_rpc_error(caught.value).reason_name == "IDEMPOTENCY_CONFLICT"
        assert await transfers(s) == 1


async def test_what_is_not_possible_is_said_before_anything_is_taken(url: str) -> None:
    async with till(url) as s:
        assert (await refused(s)).metadata["darkbloom-refusal"] == "NOT_ONBOARDED"
        account = await ready(s)
        error = await refused(s, 21_000_000)
        assert error.metadata["darkbloom-refusal"] == "INSUFFICIENT_WITHDRAWABLE"
        assert error.metadata["darkbloom-available-micros"] == "20000000"
        error = await refused(s, method=INSTANT)
        assert error.metadata["darkbloom-refusal"] == "INSTANT_UNAVAILABLE"
        for micros in (0, 990_000, 1_005_000, -1_000_000):
            assert (await refused(s, micros)).reason_name == "INVALID_ARGUMENT"
        await s.stripe.do("account", account=account, payouts_enabled=False, due=["id"])
        assert (await refused(s)).metadata["darkbloom-refusal"] == "NOT_ONBOARDED"
        assert await s.value("SELECT count(*) FROM billing.withdrawal") == 0


async def test_a_stripe_that_does_not_answer_the_first_check_takes_nothing(url: str) -> None:
    async with till(url) as s:
        await ready(s)
        await s.stripe.do("fault", path="/v1/accounts", method="GET", kind="error")
        assert (await refused(s)).reason_name == "STRIPE_FAILED"
        assert await earned(s) == (20_000_000, 0)


async def test_what_we_owe_stripe_stops_withdrawals(url: str) -> None:
    async with till(url) as s:
        await ready(s)
        await s.books.stripe_fee("big", 30_000_000, payer=s.line)
        assert (await refused(s)).metadata["darkbloom-refusal"] == "STOPPED"


async def test_a_frozen_account_may_not_withdraw(url: str) -> None:
    async with till(url) as s:
        await ready(s)
        await s.books.freeze("f", PROVIDER, frozen=True)
        assert (await refused(s)).metadata["darkbloom-refusal"] == "ACCOUNT_FROZEN"


async def test_the_mirror_follows_stripe(url: str) -> None:
    async with till(url) as s:
        ask = pb.GetPayoutAccountRequest(account_id=PROVIDER)
        assert not (await s.payments.GetPayoutAccount(ask, timeout=30)).account.stripe_account_id
        started = await s.payments.StartOnboarding(
            pb.StartOnboardingRequest(account_id=PROVIDER), timeout=30
        )
        assert started.account.status == "pending"
        again = await s.payments.StartOnboarding(
            pb.StartOnboardingRequest(account_id=PROVIDER), timeout=30
        )
        assert again.account.stripe_account_id == started.account.stripe_account_id
        name = started.account.stripe_account_id
        for change, status in (
            ({"details_submitted": True, "due": ["id"]}, "restricted"),
            ({"payouts_enabled": True, "due": [], "bank": {"last4": "6789"}}, "ready"),
            ({"payouts_enabled": False, "disabled_reason": "rejected.fraud"}, "rejected"),
        ):
            await s.stripe.do("account", account=name, **change)
            await s.deliver()
            found = (await s.payments.GetPayoutAccount(ask, timeout=30)).account
            assert found.status == status
        assert (found.destination_type, found.destination_last4) == ("bank", "6789")
        await s.payments.UnlinkPayoutAccount(
            pb.UnlinkPayoutAccountRequest(account_id=PROVIDER), timeout=30
        )
        assert not (await s.payments.GetPayoutAccount(ask, timeout=30)).account.stripe_account_id


async def test_a_return_address_leads_nowhere_else(url: str) -> None:
    async with till(url) as s:
        for address in ("https://evil.example/", "javascript:x", "http://localhost@evil.example/"):
            request = pb.StartOnboardingRequest(account_id=CONSUMER, return_url=address)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await s.payments.StartOnboarding(request, timeout=30)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_the_daily_check_names_what_explains_a_difference(url: str) -> None:
    async with till(url) as s:
        await ready(s)
        made = await s.withdraw(5_000_000)
        opened = await s.deposit()
        await s.stripe.do("pay", session=opened.stripe_session)
        check = s.check()
        found = await check.check()
        kinds = {item["kind"]: item["id"] for item in found.open_items}
        assert kinds["on_its_way"] == made.withdrawal_id
        assert "payment" in kinds
        assert found.unexplained_micros == 0
        await s.stripe.do("fund", amount=-7)
        assert (await check.check()).unexplained_micros == -70_000
