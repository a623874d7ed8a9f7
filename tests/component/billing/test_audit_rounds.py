"""The auditor between whole audits: it goes on from what it knows, and remembers what is wrong."""

from typing import Any

import asyncpg
import pytest
from darkbloom_billing.audit import Auditor
from darkbloom_billing.books import Budget
from darkbloom_billing.errors import WithdrawalsStoppedError

from tests.component.billing.shop import DOLLAR, Shop, shop
from tests.component.billing.world import START, owner


async def trade(s: Shop) -> None:
    await s.people("acct_a", "acct_b")
    await s.fund(Budget.PROMO, 500)
    await s.books.grant("g1", "acct_a", 300)
    await s.books.deposit("cs_1", "acct_a", 10 * DOLLAR, fee_line_micros=10)
    await s.sold("acct_a", "acct_b", DOLLAR)
    await s.mature()
    await s.books.withdraw_submit("wd_1", "acct_b", 500_000)
    await s.sold("acct_a", "acct_b", 2 * DOLLAR)
    await s.books.dispute_open("dp_1", "cs_1", 5 * DOLLAR)


async def wrong(db: "asyncpg.Connection[Any]", statement: str) -> None:
    await db.execute("SET session_replication_role = replica")
    await db.execute(statement)


# What a round sees without reading the whole history, each after a round that found nothing.
PLANTED = {
    "a balance is edited": (
        "UPDATE ledger.account SET cr = cr + 1 WHERE path = 'user:acct_b:maturing'",
        "account_history",
    ),
    "two balances are edited alike": (
        """UPDATE ledger.account SET cr = cr + CASE WHEN path LIKE '%:earned' THEN 5 ELSE -5 END
           WHERE path IN ('user:acct_b:earned', 'user:acct_a:credit')""",
        "account_history",
    ),
    "a pending amount is edited": (
        "UPDATE ledger.account SET dr_pend = dr_pend - 1 WHERE path = 'user:acct_b:earned'",
        "account_history",
    ),
    "a new transfer without its postings": (
        """INSERT INTO ledger.transfer (event_id, mode, code, unit, debit_id, debit_class,
             credit_id, credit_class, amount)
           SELECT (SELECT max(id) FROM ledger.event), 'single', 'mature', 'uUSD',
             f.id, f.class, t.id, t.class, 1 FROM ledger.account f, ledger.account t
           WHERE f.path = 'user:acct_b:maturing' AND t.path = 'user:acct_b:earned'""",
        "transfer_without_postings",
    ),
    "a new charge is not paid out": (
        """WITH e AS (INSERT INTO ledger.event (idem_key, kind, body_hash, body, result,
             occurred_at) VALUES ('resolve:x', 'settle', '', '{}', '{}', now()) RETURNING id)
           INSERT INTO ledger.transfer (event_id, mode, code, unit, debit_id, debit_class,
             credit_id, credit_class, amount) SELECT e.id, 'single', 'hold', 'uUSD', f.id, f.class,
             t.id, t.class, 1 FROM e, ledger.account f, ledger.account t
             WHERE f.path = 'user:acct_a:credit' AND t.path = 'user:acct_a:charge'""",
        "charge_not_paid_out",
    ),
    "a usage row appears": (
        """INSERT INTO billing.usage (request_id, account_id, attempt_id, key_id, model, build,
             prompt_tokens, cached_tokens, completion_tokens, charge_micros, outcome,
             terminal_sha256, settled_at) VALUES ('req_x', 'acct_a', '', '', '', '', 1, 0, 1, 5,
             'completed', '', '2030-01-01')""",
        "usage_without_settlement",
    ),
    "an earning appears": (
        """INSERT INTO billing.earning (request_id, account_id, build, amount_micros,
             prompt_tokens, completion_tokens, identity_key, settled_at)
           VALUES ('req_x', 'acct_b', '', 5, 1, 1, '', '2030-01-01')""",
        "earning_without_payout",
    ),
    "a guard is switched off": (
        "ALTER TABLE ledger.block DISABLE TRIGGER append_only",
        "guard_missing",
    ),
}


@pytest.mark.parametrize("planted", PLANTED)
async def test_a_round_names_what_is_wrong_now(url: str, planted: str) -> None:
    statement, check = PLANTED[planted]
    async with shop(url) as s, owner(url) as db:
        await trade(s)
        auditor = Auditor(s.database)
        assert await auditor.round(now=START) == ()
        await s.sold("acct_a", "acct_b", 7)
        assert await auditor.round(now=START) == ()
        await wrong(db, statement)
        found = {violation.check for violation in await auditor.round(now=START)}
        assert check in found


async def test_a_violation_stays_open_and_stops_withdrawals_until_a_whole_audit_finds_none(
    url: str,
) -> None:
    async with shop(url) as s, owner(url) as db:
        await trade(s)
        auditor = Auditor(s.database)
        await wrong(db, "UPDATE ledger.account SET cr = cr + 1 WHERE path = 'user:acct_b:maturing'")
        first = await auditor.round(now=START)
        assert first
        await wrong(db, "UPDATE ledger.account SET cr = cr - 1 WHERE path = 'user:acct_b:maturing'")
        assert await auditor.round(now=START) == first
        with pytest.raises(WithdrawalsStoppedError):
            await s.books.withdraw_submit("wd_2", "acct_b", 1)
        whole = await auditor.full(now=START, receipts_due=START)
        assert whole.violations == ()
        await s.books.withdraw_submit("wd_2", "acct_b", 1)
        assert await auditor.round(now=START) == ()
        async with owner(url) as other:
            marks = await other.fetchval("SELECT count(*) FROM billing.changed_accounts")
        assert marks == 0


# What only the whole audit sees, each by its name.
WHOLE = {
    "an earning matures twice": (
        "UPDATE billing.earning SET matured_at = NULL",
        "maturing_differs",
    ),
    "a dispute's hold disappears": ("DELETE FROM billing.dispute_hold", "maturing_differs"),
    "a lost part grows": (
        "UPDATE billing.earning SET lost_micros = 1 WHERE matured_at IS NULL",
        "maturing_differs",
    ),
    "a withdrawal is half resolved": (
        """INSERT INTO ledger.event (idem_key, kind, body_hash, body, result, occurred_at)
           VALUES ('resolve:wd-wd_1', 'withdraw_paid', '', '{}', '{}', now())""",
        "reservation_half_resolved",
    ),
    "a dispute is half resolved": (
        """INSERT INTO ledger.event (idem_key, kind, body_hash, body, result, occurred_at)
           VALUES ('resolve:dispute-dp_1', 'dispute_won', '', '{}', '{}', now())""",
        "reservation_half_resolved",
    ),
    "a deposit of nothing appears": (
        """INSERT INTO ledger.event (idem_key, kind, body_hash, body, result, occurred_at)
           VALUES ('stripe:cs_x', 'deposit', '', '{}', '{}', now())""",
        "event_empty",
    ),
    "a hold says something else than it holds": (
        "UPDATE ledger.event SET body = jsonb_set(body, '{amount}', '1') WHERE kind = 'hold'",
        "hold_differs",
    ),
    "a paid session was never credited": (
        """INSERT INTO billing.stripe_session (session_id, account_id, request_id, kind,
             amount_micros, line_micros, status, payment_intent, created_at)
           VALUES ('dep_x', 'acct_a', 'r', 'deposit', 10000, 0, 'completed', 'pi_x', now())""",
        "deposit_differs",
    ),
    "a session is credited and open": (
        """INSERT INTO billing.stripe_session (session_id, account_id, request_id, kind,
             amount_micros, line_micros, created_at)
           SELECT 'cs_1', 'acct_a', 'r', 'deposit', (body ->> 'amount')::bigint, 0, now()
           FROM ledger.event WHERE idem_key = 'stripe:cs_1'""",
        "deposit_differs",
    ),
    "a dispute counts as won while it is open": (
        """INSERT INTO billing.stripe_dispute
           VALUES ('dp_1', 'cs_1', 5000000, 'won', now(), now())""",
        "dispute_differs",
    ),
    "a withdrawal counts as paid while it is reserved": (
        """INSERT INTO billing.withdrawal (withdrawal_id, account_id, request_id, stripe_account_id,
             amount_micros, fee_micros, net_micros, method, status, transfer_id, posted, next_at,
             created_at, updated_at) VALUES ('wd_1', 'acct_b', 'r', 'acct_x', 500000, 0, 500000,
             'standard', 'paid', 'tr_x', true, now(), now(), now())""",
        "withdrawal_differs",
    ),
    "a withdrawal was never reserved": (
        """INSERT INTO billing.withdrawal (withdrawal_id, account_id, request_id, stripe_account_id,
             amount_micros, fee_micros, net_micros, method, status, next_at, created_at, updated_at)
           VALUES ('wd_x', 'acct_b', 'r', 'acct_x', 500000, 0, 500000, 'standard', 'pending',
             now(), now(), now())""",
        "withdrawal_differs",
    ),
    "a budget is overspent": (
        "UPDATE ledger.transfer SET amount = 400000000 WHERE code = 'grant'",
        "budget_overspent",
    ),
}


@pytest.mark.parametrize("planted", WHOLE)
async def test_the_whole_audit_names_what_is_wrong_beside_the_transfers(
    url: str, planted: str
) -> None:
    statement, check = WHOLE[planted]
    async with shop(url) as s, owner(url) as db:
        await trade(s)
        auditor = Auditor(s.database)
        assert (await auditor.full(now=START, receipts_due=START)).violations == ()
        await wrong(db, statement)
        whole = await auditor.full(now=START, receipts_due=START)
        assert check in {violation.check for violation in whole.violations}


async def test_a_charge_that_was_never_paid_on_is_counted(url: str) -> None:
    async with shop(url) as s, owner(url) as db:
        await trade(s)
        auditor = Auditor(s.database)
        counts = (await auditor.full(now=START, receipts_due=START)).counts
        assert (counts["unpaid_jobs"], counts["orphan_holds"]) == (0, 0)
        await wrong(db, "DELETE FROM billing.earning WHERE matured_at IS NOT NULL")
        counts = (await auditor.full(now=START, receipts_due=START)).counts
        assert counts["unpaid_jobs"] == 1


async def test_what_stripe_says_beside_the_books_is_a_finding(url: str) -> None:
    async with shop(url) as s:
        await trade(s)
        expected = (await s.books.stripe_position()).balance_micros
        assert await s.books.note_stripe_balance(expected - 30) == -30
        whole = await Auditor(s.database).full(now=START, receipts_due=START)
        assert whole.findings["stripe_drift_micros"] == -30
