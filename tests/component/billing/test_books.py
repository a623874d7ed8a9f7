"""The rare commands over the real ledger: each flow, its replay, and what it refuses."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from darkbloom_billing.books import Books, Budget, FeePayer, Source
from darkbloom_billing.books.disputes import FOLLOW, LONGEST_HOLD
from darkbloom_billing.books.model import EXPENSE, revenue
from darkbloom_billing.books.outbox import Dispatcher, Outbox
from darkbloom_billing.errors import (
    AccountFrozenError,
    BudgetExhaustedError,
    InsufficientFundsError,
    OpenBusinessError,
    WithdrawalsStoppedError,
)
from darkbloom_billing.store.database import Connection
from darkbloom_mesh.errors import (
    ConflictError,
    ForbiddenError,
    InvalidArgumentError,
    NotFoundError,
)

from tests.component.billing.shop import DOLLAR, Shop, settled, shop
from tests.component.billing.world import owner

PAYER, PAYEE = "acct_payer", "acct_payee"


async def paid(s: Shop, *charges: int, credit: int = 10 * DOLLAR) -> list[str]:
    """A payer with a deposit, who bought from a payee."""
    await s.people(PAYER, PAYEE)
    await s.books.deposit("cs_1", PAYER, credit)
    return [await s.sold(PAYER, PAYEE, charge) for charge in charges]


# In


async def test_a_deposit_is_booked_once_with_its_side_rows(url: str) -> None:
    async with shop(url) as s:
        await s.people(PAYER)
        seen = []

        async def also(connection: Connection) -> None:
            seen.append(await connection.fetchval("SELECT 1"))

        async def deposit(books: Books, amount: int = 10 * DOLLAR) -> object:
            return await books.deposit("cs_1", PAYER, amount, fee_line_micros=600_000, also=also)

        first, again = await deposit(s.books), await deposit(s.books)
        assert first == replace(again, replayed=False)
        assert seen == [1]
        with pytest.raises(ConflictError):
            await deposit(s.books, 9)
        fee = await s.books.stripe_fee("txn_1", 590_000, payer=FeePayer.LINE)
        assert fee.result == {"from_budget": 0, "expense": 590_000}
        assert (await s.books.wallets(PAYER)).credit_micros == 10 * DOLLAR
        assert (await s.books.stripe_position()).balance_micros == 10_010_000
        await s.sound()


async def test_twenty_deliveries_at_once_are_one_deposit(url: str) -> None:
    async with shop(url) as s:
        await s.people(PAYER)
        outcomes = await asyncio.gather(
            *(s.books.deposit("cs_1", PAYER, DOLLAR) for _ in range(20))
        )
        assert sorted(outcome.replayed for outcome in outcomes) == [False] + [True] * 19
        assert (await s.books.wallets(PAYER)).credit_micros == DOLLAR


async def test_a_side_row_that_fails_takes_the_command_back(url: str) -> None:
    async with shop(url) as s:
        await s.people(PAYER)

        async def also(_connection: Connection) -> None:
            raise ForbiddenError("no")

        with pytest.raises(ForbiddenError):
            await s.books.deposit("cs_1", PAYER, DOLLAR, also=also)
        assert (await s.books.deposit("cs_1", PAYER, DOLLAR)).replayed is False


@pytest.mark.parametrize("amount", [0, -1, 10**15 + 1])
async def test_what_is_no_amount_is_refused(url: str, amount: int) -> None:
    async with shop(url) as s:
        await s.people(PAYER)
        with pytest.raises(InvalidArgumentError):
            await s.books.deposit("cs_1", PAYER, amount)


async def test_unknown_accounts_and_payments_are_not_found(url: str) -> None:
    async with shop(url) as s:
        with pytest.raises(NotFoundError):
            await s.books.deposit("cs_1", "acct_nobody", 1)
        with pytest.raises(NotFoundError):
            await s.books.refund("re_1", "cs_nothing", 1)
        with pytest.raises(NotFoundError):
            await s.books.dispute_open("dp_1", "cs_nothing", 1)
        with pytest.raises(NotFoundError):
            await s.books.dispute_lost("dp_nothing")
        with pytest.raises(NotFoundError):
            await s.books.withdraw_paid("wd_nothing")
        with pytest.raises(NotFoundError):
            await s.books.wallets("acct_nobody")


async def test_a_fee_is_paid_by_the_budget_while_it_lasts(url: str) -> None:
    async with shop(url) as s:
        await s.people(PAYER)
        with pytest.raises(BudgetExhaustedError) as refused:
            await s.books.check_deposit(30)
        assert refused.value.metadata["darkbloom-budget"] == "fees"
        await s.fund(Budget.FEES, 100)
        await s.books.check_deposit(30)
        await s.books.deposit("cs_1", PAYER, DOLLAR)
        fee = await s.books.stripe_fee("txn_1", 130, payer=FeePayer.BUDGET)
        assert fee.result == {"from_budget": 100, "expense": 30}
        assert await s.books.budget(Budget.FEES) == 0
        await s.sound()


async def test_facts_at_stripe_are_booked_without_an_asset_and_covered_by_what_comes_in(
    url: str,
) -> None:
    async with shop(url) as s:
        await s.people(PAYER)
        await s.books.stripe_fee("txn_1", 500, payer=FeePayer.LINE)
        position = await s.books.stripe_position()
        assert (position.asset_micros, position.payable_micros) == (0, 500)
        await s.books.fund_equity("eq", 200, operator="a")
        assert (await s.books.cover_payable("c1", 200, source=Source.OWNER)).result[
            "payable"
        ] == 300
        with pytest.raises(InsufficientFundsError):
            await s.books.cover_payable("c2", 301, source=Source.OWNER)
        await s.books.deposit("cs_1", PAYER, 1000)
        position = await s.books.stripe_position()
        assert (position.asset_micros, position.payable_micros) == (700, 0)
        await s.sound()


# Refunds and debt


async def test_a_refund_of_spent_money_is_debt_that_freezes_until_a_deposit_pays_it(
    url: str,
) -> None:
    async with shop(url) as s:
        await paid(s, 7 * DOLLAR)
        told = await s.books.refund("re_1", "cs_1", 10 * DOLLAR)
        assert told.result == {"from_credit": 3 * DOLLAR, "debt": 7 * DOLLAR}
        wallets = await s.books.wallets(PAYER)
        assert (wallets.credit_micros, wallets.debt_micros) == (0, 7 * DOLLAR)
        assert wallets.frozen
        assert await s.hold(PAYER, 1) == "account_frozen"
        await s.sound()

        told = await s.books.deposit("cs_2", PAYER, 9 * DOLLAR)
        assert told.result == {"credited": 9 * DOLLAR, "repaid": 7 * DOLLAR}
        wallets = await s.books.wallets(PAYER)
        assert (wallets.credit_micros, wallets.debt_micros) == (2 * DOLLAR, 0)
        assert not wallets.frozen
        assert await s.hold(PAYER, 1) == "held"
        await s.sound()


async def test_a_refund_of_the_fee_line_comes_from_revenue_and_a_failed_one_comes_back(
    url: str,
) -> None:
    async with shop(url) as s:
        await s.people(PAYER)
        await s.books.deposit("cs_1", PAYER, DOLLAR, fee_line_micros=300)
        told = await s.books.refund("re_1", "cs_1", DOLLAR, fee_line_micros=300)
        assert told.result == {"from_credit": DOLLAR, "debt": 0}
        assert (await s.books.stripe_position()).balance_micros == 0
        assert (await s.books.refund_failed("re_1")).result["credited"] == DOLLAR
        assert await s.books.free(revenue("cs_1")) == 300
        await s.sound()


async def test_earnings_pay_debt_first_when_they_mature(url: str) -> None:
    async with shop(url) as s:
        await paid(s, 4 * DOLLAR)
        await s.books.deposit("cs_2", PAYEE, 3 * DOLLAR)
        await s.sold(PAYEE, PAYER, 3 * DOLLAR)
        await s.books.refund("re_2", "cs_2", 3 * DOLLAR)
        assert (await s.books.wallets(PAYEE)).debt_micros == 3 * DOLLAR
        await s.mature()
        wallets = await s.books.wallets(PAYEE)
        assert (wallets.earned_micros, wallets.debt_micros) == (DOLLAR, 0)
        await s.sound()


# Disputes


async def test_a_dispute_holds_the_unmatured_earnings_that_its_deposit_funded(url: str) -> None:
    async with shop(url) as s:
        await paid(s, 2 * DOLLAR, 3 * DOLLAR)
        await s.books.deposit("cs_2", PAYER, 10 * DOLLAR)
        await s.people("acct_other")
        await s.sold(PAYER, "acct_other", 6 * DOLLAR)
        # cs_1 funded 2 + 3 + the first 5 of 6.
        told = await s.books.dispute_open("dp_1", "cs_1", 10 * DOLLAR)
        assert told.result == {"reserved": 9 * DOLLAR, "held": 10 * DOLLAR}
        assert (await s.books.wallets(PAYEE)).disputed_micros == 5 * DOLLAR
        other = await s.books.wallets("acct_other")
        assert (other.maturing_micros, other.disputed_micros) == (DOLLAR, 5 * DOLLAR)
        assert (await s.books.stripe_position()).balance_micros == 10 * DOLLAR
        await s.sound()

        await s.mature()
        assert (await s.books.wallets(PAYEE)).earned_micros == 0
        assert (await s.books.wallets("acct_other")).earned_micros == 0

        await s.books.dispute_won("dp_1")
        assert (await s.books.wallets(PAYER)).credit_micros == 9 * DOLLAR
        assert (await s.books.stripe_position()).balance_micros == 20 * DOLLAR
        await s.sound()
        await s.mature()
        assert (await s.books.wallets(PAYEE)).earned_micros == 5 * DOLLAR
        assert (await s.books.wallets("acct_other")).earned_micros == 6 * DOLLAR
        with pytest.raises(ConflictError):
            await s.books.dispute_lost("dp_1")
        await s.sound()


async def test_a_lost_dispute_takes_credit_then_held_earnings_then_makes_debt(url: str) -> None:
    async with shop(url) as s:
        (kept, lost) = await paid(s, DOLLAR, 5 * DOLLAR)
        await s.mature(kept)
        await s.books.dispute_open("dp_1", "cs_1", 10 * DOLLAR)
        told = await s.books.dispute_lost("dp_1")
        assert (await s.books.dispute_lost("dp_1")) == replace(told, replayed=True)
        # 4 was left, 5 was held, 1 had matured and is the payer's debt.
        assert told.result == {"lost": 5 * DOLLAR, "debt": DOLLAR}
        payee = await s.books.wallets(PAYEE)
        assert (payee.earned_micros, payee.maturing_micros, payee.disputed_micros) == (DOLLAR, 0, 0)
        assert (await s.books.stripe_position()).disputed_micros == 0
        await s.mature(lost)
        await s.sound()


async def test_a_dispute_of_half_a_deposit_holds_half_and_loses_no_more_than_is_short(
    url: str,
) -> None:
    async with shop(url) as s:
        await paid(s, 8 * DOLLAR)
        told = await s.books.dispute_open("dp_1", "cs_1", 5 * DOLLAR)
        assert told.result == {"reserved": 2 * DOLLAR, "held": 4 * DOLLAR}
        told = await s.books.dispute_lost("dp_1")
        assert told.result == {"lost": 3 * DOLLAR, "debt": 0}
        assert (await s.books.wallets(PAYEE)).maturing_micros == 5 * DOLLAR
        await s.sound()
        await s.mature()
        assert (await s.books.wallets(PAYEE)).earned_micros == 5 * DOLLAR
        await s.sound()


async def test_what_is_in_flight_when_a_dispute_opens_is_held_once_it_has_settled(
    url: str,
) -> None:
    async with shop(url) as s:
        await paid(s, DOLLAR)
        name = await s.held(PAYER, 6 * DOLLAR)
        dispatcher = Dispatcher(
            Outbox(s.database, s.clock), {FOLLOW: lambda j: s.books.dispute_follow(j.key)}, float
        )
        await s.books.dispute_open("dp_1", "cs_1", 10 * DOLLAR)
        assert (await s.books.wallets(PAYEE)).disputed_micros == DOLLAR
        assert await s.end(settled(name, PAYEE, 4 * DOLLAR)) == "settled"
        assert await dispatcher.round() == 0
        s.clock.jump(LONGEST_HOLD.total_seconds())
        assert await dispatcher.round() == 1
        wallets = await s.books.wallets(PAYEE)
        assert (wallets.maturing_micros, wallets.disputed_micros) == (0, 5 * DOLLAR)
        assert (await s.books.dispute_follow("dp_1")).replayed
        await s.sound()
        # 3 was reserved, 2 came back from the hold, 5 were held: nobody owes anything.
        assert (await s.books.dispute_lost("dp_1")).result == {"lost": 5 * DOLLAR, "debt": 0}
        await s.sound()


async def test_a_decided_dispute_is_not_followed(url: str) -> None:
    async with shop(url) as s:
        await paid(s, DOLLAR)
        name = await s.held(PAYER, DOLLAR)
        await s.books.dispute_open("dp_1", "cs_1", DOLLAR)
        await s.books.dispute_won("dp_1")
        await s.end(settled(name, PAYEE, DOLLAR))
        assert (await s.books.dispute_follow("dp_1")).result == {}
        assert (await s.books.wallets(PAYEE)).disputed_micros == 0
        with pytest.raises(NotFoundError):
            await s.books.dispute_follow("dp_nothing")
        await s.sound()


async def test_a_reinstated_dispute_gives_payees_back_first_and_never_more_than_was_taken(
    url: str,
) -> None:
    async with shop(url) as s:
        (_, matured) = await paid(s, 4 * DOLLAR, 2 * DOLLAR)
        await s.books.dispute_open("dp_1", "cs_1", 10 * DOLLAR)
        with pytest.raises(NotFoundError):
            await s.books.dispute_reinstated("dp_1", "txn_1", DOLLAR)
        assert (await s.books.dispute_lost("dp_1")).result == {"lost": 6 * DOLLAR, "debt": 0}
        back = await s.books.dispute_reinstated("dp_1", "txn_1", 3 * DOLLAR)
        assert back.result == {"payees": 3 * DOLLAR, "credited": 0, "repaid": 0}
        again = await s.books.dispute_reinstated("dp_1", "txn_1", 3 * DOLLAR)
        assert again == replace(back, replayed=True)
        with pytest.raises(ConflictError):
            await s.books.dispute_reinstated("dp_1", "txn_1", 2 * DOLLAR)
        await s.sound()
        back = await s.books.dispute_reinstated("dp_1", "txn_2", 5 * DOLLAR)
        assert back.result == {"payees": 3 * DOLLAR, "credited": 2 * DOLLAR, "repaid": 0}
        with pytest.raises(InvalidArgumentError):
            await s.books.dispute_reinstated("dp_1", "txn_3", 3 * DOLLAR)
        await s.books.dispute_reinstated("dp_1", "txn_3", 2 * DOLLAR)
        assert (await s.books.wallets(PAYER)).credit_micros == 4 * DOLLAR
        payee = await s.books.wallets(PAYEE)
        assert payee.earned_micros + payee.maturing_micros == 6 * DOLLAR
        assert (await s.books.stripe_position()).balance_micros == 10 * DOLLAR
        await s.mature(matured)
        await s.sound()


async def test_a_reinstated_part_of_an_earning_that_still_waits_waits_with_it(url: str) -> None:
    async with shop(url) as s:
        await paid(s, 8 * DOLLAR)
        await s.books.dispute_open("dp_1", "cs_1", 5 * DOLLAR)
        assert (await s.books.dispute_lost("dp_1")).result == {"lost": 3 * DOLLAR, "debt": 0}
        await s.books.dispute_reinstated("dp_1", "txn_1", 5 * DOLLAR)
        wallets = await s.books.wallets(PAYEE)
        assert (wallets.maturing_micros, wallets.earned_micros) == (8 * DOLLAR, 0)
        await s.sound()
        await s.mature()
        assert (await s.books.wallets(PAYEE)).earned_micros == 8 * DOLLAR
        await s.sound()


async def test_a_fee_that_stripe_gives_back_is_less_expense(url: str) -> None:
    async with shop(url) as s:
        await s.people(PAYER)
        await s.books.deposit("cs_1", PAYER, DOLLAR)
        await s.books.stripe_fee("txn_1", 300, payer=FeePayer.LINE)
        for _ in range(2):
            await s.books.stripe_fee_returned("txn_2", 500)
        assert await s.books.free(EXPENSE) == 0
        assert await s.books.free(revenue("txn_2")) == 200
        assert (await s.books.stripe_position()).balance_micros == DOLLAR + 200
        await s.sound()


async def test_two_disputes_of_a_deposit_never_hold_an_earning_twice(url: str) -> None:
    async with shop(url) as s:
        await paid(s, 10 * DOLLAR)
        first = await s.books.dispute_open("dp_1", "cs_1", 10 * DOLLAR)
        second = await s.books.dispute_open("dp_2", "cs_1", 10 * DOLLAR)
        assert (first.result["held"], second.result["held"]) == (10 * DOLLAR, 0)
        await s.books.dispute_lost("dp_2")
        await s.books.dispute_won("dp_1")
        assert (await s.books.wallets(PAYER)).debt_micros == 10 * DOLLAR
        await s.sound()


async def test_a_dispute_after_the_money_was_paid_out_is_owed_to_stripe_and_stops_withdrawals(
    url: str,
) -> None:
    async with shop(url) as s:
        await paid(s, 10 * DOLLAR)
        await s.mature()
        await s.books.withdraw_submit("wd_1", PAYEE, 9 * DOLLAR)
        await s.books.withdraw_paid("wd_1")
        await s.books.dispute_open("dp_1", "cs_1", 10 * DOLLAR)
        assert (await s.books.stripe_position()).payable_micros == 9 * DOLLAR
        with pytest.raises(WithdrawalsStoppedError) as refused:
            await s.books.withdraw_submit("wd_2", PAYEE, DOLLAR)
        assert refused.value.metadata["darkbloom-cause"] == "payable"
        told = await s.books.dispute_lost("dp_1")
        assert told.result == {"lost": 0, "debt": 10 * DOLLAR}
        await s.sound()


# Programmes


async def test_a_budget_needs_two_operators_and_is_a_hard_cap(url: str) -> None:
    async with shop(url) as s:
        await s.people(PAYER)
        await s.books.fund_equity("eq", 500, operator="a")
        for operators in (("a", "a"), ("a", ""), ("", "b")):
            with pytest.raises(ForbiddenError):
                await s.books.fund_budget("b", Budget.INVITE, 500, operators=operators)
        with pytest.raises(InsufficientFundsError):
            await s.books.fund_budget("b", Budget.INVITE, 501, operators=("a", "b"))
        await s.books.fund_budget("b", Budget.INVITE, 500, operators=("a", "b"))
        told = await s.books.grant("inv_1", PAYER, 400, budget=Budget.INVITE)
        assert told.result == {"credited": 400, "repaid": 0, "budget": 100}
        with pytest.raises(BudgetExhaustedError):
            await s.books.reward("rw_1", PAYER, 101, budget=Budget.INVITE)
        wallets = await s.books.wallets(PAYER)
        assert (wallets.promo_micros, wallets.earned_micros) == (400, 0)
        await s.sound()


async def test_a_referral_matures_after_thirty_days(url: str) -> None:
    async with shop(url) as s:
        await s.people(PAYEE)
        await s.fund(Budget.REFERRAL, 100)
        await s.books.referral("ref_1", PAYEE, 60)
        s.clock.jump(29 * 86400)
        await s.mature()
        assert (await s.books.wallets(PAYEE)).maturing_micros == 60
        s.clock.jump(86400)
        await s.mature()
        wallets = await s.books.wallets(PAYEE)
        assert (wallets.maturing_micros, wallets.earned_micros) == (0, 60)
        await s.sound()


async def test_relations_share_an_account_or_a_device_card_or_bank(url: str) -> None:
    async with shop(url) as s:
        await s.people("acct_a", "acct_b")
        assert await s.books.related("acct_a", "acct_a")
        await s.books.add_fingerprint("acct_a", "card", b"x" * 32)
        await s.books.add_fingerprint("acct_b", "bank", b"x" * 32)
        assert not await s.books.related("acct_a", "acct_b")
        await s.books.add_fingerprint("acct_b", "card", b"x" * 32)
        assert await s.books.related("acct_a", "acct_b")


# Out


async def test_a_withdrawal_is_reserved_then_paid_once_and_may_come_back(url: str) -> None:
    async with shop(url) as s:
        await paid(s, 5 * DOLLAR)
        with pytest.raises(InsufficientFundsError):
            await s.books.withdraw_submit("wd_1", PAYEE, DOLLAR)
        await s.mature()
        told = await s.books.withdraw_submit("wd_1", PAYEE, 4 * DOLLAR, fee_micros=500_000)
        assert told.result == {"net": 4 * DOLLAR, "fee": 500_000, "earned": 500_000}
        assert (await s.books.wallets(PAYEE)).held_micros == 4_500_000
        assert (await s.books.withdraw_paid("wd_1")).result == {"net": 4 * DOLLAR, "fee": 500_000}
        with pytest.raises(ConflictError):
            await s.books.withdraw_refused("wd_1")
        assert (await s.books.stripe_position()).balance_micros == 6 * DOLLAR
        with pytest.raises(InvalidArgumentError):
            await s.books.withdraw_returned("wd_1", amount_micros=4 * DOLLAR + 1)
        await s.books.withdraw_returned("wd_1")
        await s.books.fee_returned("wd_1")
        assert (await s.books.withdraw_returned("wd_1")).replayed
        assert (await s.books.wallets(PAYEE)).earned_micros == 5 * DOLLAR
        await s.sound()


async def test_a_refused_withdrawal_is_back_and_an_instant_fee_can_be_given_back(
    url: str,
) -> None:
    async with shop(url) as s:
        await paid(s, 5 * DOLLAR)
        await s.mature()
        await s.books.withdraw_submit("wd_1", PAYEE, DOLLAR, fee_micros=500_000)
        await s.books.withdraw_refused("wd_1")
        assert (await s.books.wallets(PAYEE)).earned_micros == 5 * DOLLAR
        with pytest.raises(NotFoundError):
            await s.books.withdraw_returned("wd_1")
        await s.books.withdraw_submit("wd_2", PAYEE, DOLLAR, fee_micros=500_000)
        told = await s.books.withdraw_paid("wd_2", keep_fee=False)
        assert told.result == {"net": DOLLAR, "fee": 0}
        with pytest.raises(NotFoundError):
            await s.books.fee_returned("wd_2")
        assert (await s.books.wallets(PAYEE)).earned_micros == 4 * DOLLAR
        await s.sound()


async def test_withdrawals_stop_without_funds_at_stripe_and_go_on_after_a_top_up(url: str) -> None:
    async with shop(url) as s:
        await s.people(PAYEE)
        await s.fund(Budget.BASE, 2 * DOLLAR)
        await s.books.reward("rw_1", PAYEE, DOLLAR, budget=Budget.BASE)
        with pytest.raises(WithdrawalsStoppedError) as refused:
            await s.books.withdraw_submit("wd_1", PAYEE, DOLLAR)
        assert refused.value.metadata["darkbloom-cause"] == "funds"
        await s.books.top_up("tu_1", DOLLAR)
        await s.books.withdraw_submit("wd_1", PAYEE, DOLLAR)
        await s.sound()


async def test_an_operator_freezes_and_thaws_an_account(url: str) -> None:
    async with shop(url) as s:
        await paid(s, DOLLAR)
        await s.mature()
        await s.books.freeze("f1", PAYEE, frozen=True)
        with pytest.raises(AccountFrozenError):
            await s.books.withdraw_submit("wd_1", PAYEE, DOLLAR)
        await s.books.freeze("f2", PAYEE, frozen=False)
        assert (await s.books.freeze("f1", PAYEE, frozen=True)).replayed
        await s.books.withdraw_submit("wd_1", PAYEE, DOLLAR)


async def test_what_has_left_beyond_earnings_and_asset_is_owed_by_the_account_and_by_us(
    url: str,
) -> None:
    async with shop(url) as s:
        await paid(s, 10 * DOLLAR)
        await s.mature()
        await s.books.deposit("cs_payee", PAYEE, DOLLAR)
        told = await s.books.withdraw_submit("wd_left", PAYEE, 15 * DOLLAR, left=True)
        assert told.result["shortfall"] == 5 * DOLLAR
        # Purchased credit pays of it what it can.
        assert told.result["debt"] == (await s.books.wallets(PAYEE)).debt_micros == 4 * DOLLAR
        assert (await s.books.withdraw_submit("wd_left", PAYEE, 15 * DOLLAR, left=True)).replayed
        await s.sound()
        await s.books.withdraw_paid("wd_left")
        position = await s.books.stripe_position()
        assert (position.asset_micros, position.payable_micros) == (0, 4 * DOLLAR)
        await s.sound()
        await s.books.deposit("cs_late", PAYEE, 5 * DOLLAR)
        assert (await s.books.stripe_position()).payable_micros == 0
        wallets = await s.books.wallets(PAYEE)
        assert (wallets.debt_micros, wallets.credit_micros) == (0, DOLLAR)
        await s.sound()


async def test_what_an_adopted_payout_will_owe_is_kept_back_and_paid_when_it_arrives(
    url: str,
) -> None:
    async with shop(url) as s:
        await paid(s, 3 * DOLLAR, credit=3 * DOLLAR)
        await s.mature()
        await s.books.withdraw_submit("wd_left", PAYEE, 5 * DOLLAR, left=True)
        await s.people("acct_z")
        await s.books.deposit("cs_2", PAYER, 10 * DOLLAR)
        await s.sold(PAYER, "acct_z", 10 * DOLLAR)
        await s.mature()
        # Of ten that came in, two will pay Stripe what it has sent already.
        with pytest.raises(WithdrawalsStoppedError) as refused:
            await s.books.withdraw_submit("wd_much", "acct_z", 8 * DOLLAR + 1)
        assert refused.value.metadata["darkbloom-cause"] == "funds"
        await s.books.withdraw_submit("wd_rest", "acct_z", 4 * DOLLAR)
        await s.books.withdraw_paid("wd_left")
        position = await s.books.stripe_position()
        assert (position.asset_micros, position.payable_micros) == (8 * DOLLAR, 0)
        await s.books.withdraw_submit("wd_more", "acct_z", 4 * DOLLAR)
        await s.sound()


async def test_an_open_violation_stops_withdrawals_and_no_inference(url: str) -> None:
    async with shop(url) as s:
        await paid(s, DOLLAR)
        await s.mature()
        async with owner(url) as db:
            await db.execute('UPDATE billing.audit_state SET violations = \'[["x", "y"]]\'')
        with pytest.raises(WithdrawalsStoppedError) as refused:
            await s.books.withdraw_submit("wd_1", PAYEE, DOLLAR)
        assert refused.value.metadata["darkbloom-cause"] == "audit"
        assert await s.hold(PAYER, 1) == "held"


async def test_an_erased_account_forfeits_everything_and_owes_nothing(url: str) -> None:
    async with shop(url) as s:
        await paid(s, 4 * DOLLAR, 2 * DOLLAR)
        await s.fund(Budget.PROMO, 100)
        await s.books.grant("g1", PAYER, 100)
        name = await s.held(PAYER, 50)
        with pytest.raises(OpenBusinessError):
            await s.books.forfeit("er_1", PAYER)
        await s.released(name)
        told = await s.books.forfeit("er_1", PAYER)
        assert told.result == {"forfeited": 4 * DOLLAR + 100, "written_off": 0}
        assert await s.books.budget(Budget.PROMO) == 100
        await s.books.forfeit("er_2", PAYEE)
        await s.books.refund("re_1", "cs_1", DOLLAR)
        assert (await s.books.forfeit("er_3", PAYER)).result["written_off"] == DOLLAR
        for account in (PAYER, PAYEE):
            wallets = await s.books.wallets(account)
            assert wallets.balance_micros + wallets.maturing_micros + wallets.debt_micros == 0
            assert wallets.frozen
        await s.mature()
        await s.sound()


# Maturation


async def test_an_earning_waits_for_its_age_and_its_receipt(url: str) -> None:
    async with shop(url) as s:
        await paid(s)
        with_receipt = await s.sold(PAYER, PAYEE, 300)
        without = await s.sold(PAYER, PAYEE, 200, receipt=False)
        s.clock.jump(timedelta(days=7).total_seconds() - 1)
        assert await s.sweep() == 0
        s.clock.jump(1)
        assert await s.sweep() == 300
        assert await s.sweep() == 0
        await s.receipt(without)
        assert await s.sweep() == 200
        await s.sound()
        assert with_receipt != without


async def test_sweepers_at_once_mature_each_earning_once(url: str) -> None:
    async with shop(url) as s:
        await paid(s, *[1000] * 12)
        s.clock.jump(timedelta(days=8).total_seconds())
        await asyncio.gather(*(s.sweep() for _ in range(4)))
        wallets = await s.books.wallets(PAYEE)
        assert (wallets.earned_micros, wallets.maturing_micros) == (12_000, 0)
        await s.sound()


async def test_a_debtor_pays_from_what_a_released_hold_gave_back(url: str) -> None:
    async with shop(url) as s:
        await paid(s)
        name = await s.held(PAYER, 6 * DOLLAR)
        await s.books.refund("re_1", "cs_1", 10 * DOLLAR)
        assert (await s.books.wallets(PAYER)).debt_micros == 6 * DOLLAR
        await s.released(name)
        await s.sweep()
        wallets = await s.books.wallets(PAYER)
        assert (wallets.debt_micros, wallets.credit_micros) == (0, 0)
        await s.sound()


async def test_an_account_whose_books_are_broken_stops_nobody_elses_maturation(url: str) -> None:
    async with shop(url) as s, owner(url) as db:
        await paid(s, DOLLAR)
        await s.people("acct_broken")
        await s.sold(PAYER, "acct_broken", DOLLAR)
        await db.execute(
            "UPDATE billing.earning SET amount_micros = amount_micros * 9 "
            "WHERE account_id = 'acct_broken'"
        )
        await s.mature()
        assert (await s.books.wallets(PAYEE)).earned_micros == DOLLAR
        assert (await s.books.wallets("acct_broken")).maturing_micros == DOLLAR
