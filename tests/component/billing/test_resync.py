"""Stripe remembers what the database has forgotten: transfers, pages, accounts that are gone."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from darkbloom.billing.v1 import payment_service_pb2 as pb
from darkbloom_billing.admin.erasure_log import ErasureLog, ErasureRecord, Step
from darkbloom_billing.books import Books
from darkbloom_billing.books.model import Outcome
from darkbloom_billing.config import BillingConfig
from darkbloom_billing.errors import AccountFrozenError
from darkbloom_billing.payments.resync import EVENTS_GONE
from darkbloom_billing.payments.sdk import Stripe
from darkbloom_billing.recovery.report import Recovery
from darkbloom_billing.recovery.steps import ask_stripe, recover
from darkbloom_mesh.config import Secret
from darkbloom_mesh.errors import StoreUnavailableError

from tests.component.billing.till import Till, till
from tests.component.billing.world import PROVIDER, START
from tests.stripe_local.running import API_KEY

DOLLAR = 1_000_000
_ADOPTED = """
    SELECT after::text FROM billing.operator_action
    WHERE action = 'withdrawal.adopt' AND request_id = $1
"""
_FROZEN = "SELECT frozen_at IS NOT NULL FROM billing.account WHERE account_id = $1"


class AwayBooks(Books):
    """Lose the database at the worst moment."""

    async def withdraw_submit(self, *args: Any, **more: Any) -> Outcome:
        raise StoreUnavailableError("away")


def settings(t: Till) -> BillingConfig:
    return BillingConfig(
        environment="development",
        database_url=Secret(t.world.url),
        stripe_secret_key=Secret(API_KEY),
        stripe_api_base=t.stripe.url,
    )


def client(t: Till) -> Stripe:
    made = Stripe(Secret(API_KEY), api_base=t.stripe.url, timeout_s=20)
    t.closing.push_async_callback(made.close)
    return made


async def sent(t: Till, account: str, name: str, cents: int) -> None:
    """Let money have left of which the database knows nothing."""
    params: dict[str, Any] = {
        "amount": cents,
        "currency": "usd",
        "destination": account,
        "metadata": {"withdrawal_id": name},
    }
    await client(t).v1.transfers.create_async(params)  # type: ignore[arg-type]  # the SDK's own


async def asked(t: Till) -> Recovery:
    return await recover(settings(t), t.books.database, t.clock, moment=START)


async def test_what_has_left_is_booked_whatever_the_rules_of_today_are(url: str) -> None:
    async with till(url) as t:
        await t.earn(20 * DOLLAR)
        account = await t.onboarded()
        await t.books.freeze("by_hand", PROVIDER, frozen=True)
        await sent(t, account, "wd_lost", 400)
        for adopted in (1, 0):
            done = await asked(t)
            assert (done.stripe["withdrawals_adopted"], done.stripe["unbooked"]) == (adopted, [])
            assert (await t.wallets(PROVIDER)).earned_micros == 16 * DOLLAR


async def test_more_than_there_is_becomes_debt_that_later_earnings_pay(url: str) -> None:
    async with till(url) as t:
        await t.earn(5 * DOLLAR)
        account = await t.onboarded()
        await t.stripe.do("fund", amount=10_000)
        await sent(t, account, "wd_large", 900)
        for adopted, named in ((1, [f"wd_large {PROVIDER} {4 * DOLLAR}"]), (0, [])):
            done = await asked(t)
            assert done.sound, done.body()
            assert done.stripe["withdrawals_adopted"] == adopted
            assert done.stripe["shortfalls"] == named
            wallets = await t.wallets(PROVIDER)
            assert (wallets.debt_micros, wallets.earned_micros) == (4 * DOLLAR, 0)
            assert done.audit["violations"] == []
        # Debt freezes by itself; nobody has to take it back by hand.
        assert not await t.value(_FROZEN, PROVIDER)
        with pytest.raises(AccountFrozenError):
            await t.books.withdraw_submit("wd_next", PROVIDER, DOLLAR)
        assert json.loads(await t.value(_ADOPTED, "wd_large")) == {
            "transfer": (await t.stripe.objects("transfer"))[0]["id"],
            "net_micros": 9 * DOLLAR,
            "shortfall_micros": 4 * DOLLAR,
            "debt_micros": 4 * DOLLAR,
        }
        await t.earn(5 * DOLLAR)
        wallets = await t.wallets(PROVIDER)
        assert (wallets.debt_micros, wallets.earned_micros) == (0, DOLLAR)
        assert (await asked(t)).audit["violations"] == []


async def test_what_comes_back_of_an_adopted_payout_pays_its_debt(url: str) -> None:
    async with till(url) as t:
        await t.earn(5 * DOLLAR)
        account = await t.onboarded()
        await t.stripe.do("fund", amount=10_000)
        await sent(t, account, "wd_large", 900)
        assert (await asked(t)).sound
        await t.books.withdraw_refused("wd_large")
        await t.books.repay(PROVIDER)
        wallets = await t.wallets(PROVIDER)
        assert (wallets.debt_micros, wallets.earned_micros) == (0, 5 * DOLLAR)


async def test_a_store_that_is_away_freezes_nobody(url: str) -> None:
    async with till(url) as t:
        await t.earn(5 * DOLLAR)
        account = await t.onboarded()
        await sent(t, account, "wd_lost", 400)
        books = AwayBooks(t.books.database, t.clock)
        with pytest.raises(StoreUnavailableError):
            await ask_stripe(settings(t), t.books.database, books, t.clock, START)
        assert not await t.value(_FROZEN, PROVIDER)


async def test_what_an_erased_account_had_sent_had_arrived(url: str, tmp_path: Path) -> None:
    async with till(url) as t:
        await t.earn(5 * DOLLAR)
        account = await t.onboarded()
        await sent(t, account, "wd_lost", 400)
        kept = ErasureRecord(
            erasure_id="erase_1",
            account_id=PROVIDER,
            step=Step.ERASED,
            forfeit=True,
            planned_at=START,
            scrub_after=START,
        )
        ErasureLog(tmp_path).write(kept)
        for outcome in ("erased", "known"):
            done = await recover(
                settings(t), t.books.database, t.clock, moment=START, erasures=tmp_path
            )
            assert done.erasures == {outcome: 1}
            assert done.sound, done.body()
        assert (await t.latest()).status == pb.WITHDRAWAL_STATUS_PAID
        assert (await t.wallets(PROVIDER)).earned_micros == 0


async def page(t: Till, name: str) -> str:
    """Open a payment page of an account that the database has never had."""
    params: dict[str, Any] = {
        "mode": "payment",
        "client_reference_id": "acct_gone",
        "success_url": "http://localhost",
        "line_items": [
            {
                "quantity": 1,
                "price_data": {
                    "currency": "usd",
                    "unit_amount": 1000,
                    "product_data": {"name": "Inference credit"},
                },
            }
        ],
        "metadata": {"purchase_type": "inference_credits", "billing_session_id": name},
        "payment_intent_data": {"metadata": {"billing_session_id": name}},
    }
    made = await client(t).v1.checkout.sessions.create_async(params)  # type: ignore[arg-type]  # the SDK's own
    return made.id


async def test_only_a_payment_that_nobody_gave_back_needs_a_person(url: str) -> None:
    async with till(url, stripe_poll_s=3600.0) as t:
        left, refunded, owed = [await page(t, name) for name in ("dep_1", "dep_2", "dep_3")]
        await t.stripe.do("expire", session=left)
        await t.stripe.do("pay", session=refunded)
        (charge,) = await t.stripe.objects("charge")
        await client(t).v1.refunds.create_async({"charge": charge["id"]})
        await t.stripe.do("pay", session=owed)
        done = await asked(t)
        assert (done.stripe["unbooked"], done.stripe["waiting"]) == ([owed], [])
        assert not done.sound
        seen = await recover(
            settings(t), t.books.database, t.clock, moment=START, acknowledge=[owed]
        )
        assert (seen.sound, seen.stripe["acknowledged"]) == (True, [owed])


async def test_more_than_a_month_back_is_more_than_stripe_remembers(url: str) -> None:
    async with till(url) as t:
        for days, found in ((29, []), (30, [EVENTS_GONE])):
            moment = t.clock.now() - timedelta(days=days)
            done = await recover(settings(t), t.books.database, t.clock, moment=moment)
            assert done.stripe["unbooked"] == found
            assert done.sound is not bool(found)


async def test_an_account_that_stripe_has_deleted_has_no_events(url: str) -> None:
    async with till(url) as t:
        account = await t.onboarded()
        await client(t).v1.accounts.delete_async(account)
        assert (await asked(t)).sound
