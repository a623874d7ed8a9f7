"""The books cannot be falsified by the service, and the auditor sees what a superuser falsifies."""

import asyncio
from collections.abc import Iterator
from typing import Any

import asyncpg
import pytest
from darkbloom_billing.audit import Report, audit
from darkbloom_billing.store.database import OldServerError, RoleError

from tests.component.billing.test_settlements import held
from tests.component.billing.world import ROLE, START, open_database, owner, world
from tests.stores import Postgres


async def some_books(url: str) -> None:
    """A settled request and one that is held."""
    async with world(url) as w:
        await w.people(100_000)
        key = await w.key(b"secret", limit=50_000)
        settled, _still = await held(w, key_id=key), await held(w, key_id=key)
        await w.settle(w.settlement(settled))


@pytest.fixture(scope="module")
def kept(cluster: Postgres, template: str) -> Iterator[str]:
    """A database with some books, to be copied."""
    with cluster.database(template) as url:
        asyncio.run(some_books(url))
        yield url


@pytest.fixture
def books(cluster: Postgres, kept: str) -> Iterator[str]:
    with cluster.database(kept) as url:
        yield url


async def report(url: str) -> Report:
    database = await open_database(url)
    try:
        return await audit(database, now=START, receipts_due=START)
    finally:
        await database.close()


# Each by a superuser with triggers off, and the check that must name it.
CORRUPTIONS = {
    "a balance is edited": (
        "UPDATE ledger.account SET cr = cr + 1 WHERE path = 'user:acct_consumer:promo'",
        {"unit_unbalanced", "account_totals", "accounts_do_not_add_up"},
    ),
    "two balances are edited alike": (
        """UPDATE ledger.account SET cr = cr + CASE WHEN path = 'user:acct_provider:maturing'
             THEN 5 ELSE -5 END WHERE path IN ('user:acct_provider:maturing',
             'user:acct_consumer:promo')""",
        {"account_totals"},
    ),
    "a pending amount is edited": (
        """UPDATE ledger.account SET dr_pend = dr_pend - 1
           WHERE path = 'user:acct_consumer:promo'""",
        {"unit_unbalanced", "account_pending"},
    ),
    "a posting is edited": (
        """UPDATE ledger.posting SET cr = cr + 1 WHERE (account_id, version) IN
             (SELECT id, 1 FROM ledger.account WHERE path = 'user:acct_consumer:promo')""",
        {"posting_history"},
    ),
    "a posting is deleted": (
        """DELETE FROM ledger.posting WHERE (account_id, version) IN
             (SELECT id, 1 FROM ledger.account WHERE path = 'user:acct_consumer:promo')""",
        {"version_gap", "transfer_without_postings"},
    ),
    "a transfer's amount is edited": (
        "UPDATE ledger.transfer SET amount = amount + 1 WHERE code = 'payout'",
        {"account_totals", "charge_not_paid_out", "usage_differs", "posting_history"},
    ),
    "a payout is deleted": (
        """WITH gone AS (DELETE FROM ledger.transfer WHERE code = 'payout' RETURNING id)
           DELETE FROM ledger.posting WHERE transfer_id IN (SELECT id FROM gone)""",
        {"account_totals", "charge_not_paid_out", "version_gap"},
    ),
    "earnings are lent that no payout lacked": (
        "UPDATE ledger.transfer SET code = 'shortfall' WHERE code = 'payout'",
        {"shortfall_differs", "transfer_off_rule"},
    ),
    "a transfer is sent elsewhere": (
        """UPDATE ledger.transfer SET credit_id = (SELECT id FROM ledger.account
             WHERE path = 'user:acct_consumer:earned') WHERE code = 'payout'""",
        {"account_totals", "transfer_without_postings"},
    ),
    "a flow off the rules appears": (
        "UPDATE ledger.transfer SET code = 'gift' WHERE code = 'grant'",
        {"transfer_off_rule"},
    ),
    "a post is larger than its hold": (
        "UPDATE ledger.transfer SET amount = 900000 WHERE mode = 'post'",
        {"resolution_wrong"},
    ),
    "an end disappears": (
        "UPDATE ledger.event SET idem_key = 'gone:1' WHERE kind = 'settle'",
        {"hold_half_resolved", "hold_without_lease"},
    ),
    "a lease disappears": ("DELETE FROM billing.lease", {"hold_without_lease"}),
    "an earning is raised": (
        "UPDATE billing.earning SET amount_micros = amount_micros + 1",
        {"usage_differs"},
    ),
    "a usage row disappears": ("DELETE FROM billing.usage", {"usage_differs"}),
    "an account is overdrawn": (
        """ALTER TABLE ledger.account DROP CONSTRAINT no_overdraft;
           UPDATE ledger.account SET dr = cr + 1 WHERE path = 'user:acct_consumer:promo'""",
        {"account_overdrawn", "unit_unbalanced"},
    ),
    "a clearing account is left full": (
        "UPDATE ledger.account SET dr = dr - 1 WHERE path = 'user:acct_consumer:charge'",
        {"clearing_not_empty"},
    ),
    "a hold of nothing appears": (
        """INSERT INTO ledger.event (idem_key, kind, body_hash, body, result, occurred_at)
           VALUES ('hold:req_x', 'hold', '', '{}', '{}', now())""",
        {"event_empty", "hold_without_lease"},
    ),
    "a lease is forgotten": (
        "UPDATE billing.lease SET lease_until = '2020-01-01'",
        {"hold_overdue"},
    ),
    "a guard is switched off": (
        "ALTER TABLE ledger.transfer DISABLE TRIGGER apply_transfer",
        {"guard_missing"},
    ),
}


@pytest.mark.parametrize("corruption", CORRUPTIONS)
async def test_the_auditor_names_planted_corruption(books: str, corruption: str) -> None:
    statement, expected = CORRUPTIONS[corruption]
    assert (await report(books)).violations == ()
    async with owner(books) as db:
        await db.execute("SET session_replication_role = replica")
        await db.execute(statement)
    found = {violation.check for violation in (await report(books)).violations}
    assert found >= expected


# Each by the superuser with triggers on: the schema itself must refuse.
ATTACKS = {
    "edit a balance": "UPDATE ledger.account SET cr = cr + 1",
    "edit balance and version": "UPDATE ledger.account SET cr = cr + 1, version = version + 1",
    "delete an account": "DELETE FROM ledger.account",
    "edit a transfer": "UPDATE ledger.transfer SET amount = 1",
    "delete a transfer": "DELETE FROM ledger.transfer",
    "delete an event": "DELETE FROM ledger.event",
    "forge a posting": """INSERT INTO ledger.posting
        SELECT account_id, version + 1000, transfer_id + 1000, side, dr, cr + 1, dr_pend, cr_pend
        FROM ledger.posting LIMIT 1""",
    "edit a balance and forge its posting": """WITH p AS (INSERT INTO ledger.posting
        SELECT id, version + 1, 999999, 'C', dr, cr + 1, dr_pend, cr_pend
        FROM ledger.account WHERE path = 'user:acct_consumer:promo')
        UPDATE ledger.account SET cr = cr + 1, version = version + 1
        WHERE path = 'user:acct_consumer:promo'""",
    "overdraw for the length of a statement": """INSERT INTO ledger.transfer (event_id, mode,
        code, unit, debit_id, debit_class, credit_id, credit_class, amount)
        SELECT e.id, 'single', r.code, 'uUSD', d.id, d.class, c.id, c.class, 1
        FROM (SELECT min(id) AS id FROM ledger.event) e,
          (VALUES (1, 'grant', 'platform:budget:promo', 'user:acct_consumer:promo'),
            (2, 'funding', 'platform:equity', 'platform:budget:promo'),
            (3, 'funding', 'asset:owner:available', 'platform:equity')) AS r (n, code, f, t)
        JOIN ledger.account d ON d.path = r.f JOIN ledger.account c ON c.path = r.t
        ORDER BY r.n""",
    "edit a posting": "UPDATE ledger.posting SET cr = 0",
    "empty the history": "TRUNCATE ledger.posting",
    "an account born rich": """INSERT INTO ledger.account (path, class, normal, cr)
        VALUES ('user:m:promo', 'user_promo', 'C', 100)""",
    "an account without a floor": """INSERT INTO ledger.account (path, class, normal, floor_zero)
        VALUES ('user:m:promo', 'user_promo', 'C', false)""",
    "turn promotional money into earned money": """INSERT INTO ledger.transfer (event_id, mode,
        code, unit, debit_id, debit_class, credit_id, credit_class, amount)
        SELECT e.id, 'single', 'payout', 'uUSD', f.id, f.class, t.id, t.class, 1
        FROM (SELECT id FROM ledger.event LIMIT 1) e, ledger.account f, ledger.account t
        WHERE f.path = 'user:acct_consumer:promo' AND t.path = 'user:acct_provider:earned'""",
    "lie about a class": """INSERT INTO ledger.transfer (event_id, mode,
        code, unit, debit_id, debit_class, credit_id, credit_class, amount)
        SELECT e.id, 'single', 'payout', 'uUSD', f.id, 'user_charge', t.id, t.class, 1
        FROM (SELECT id FROM ledger.event LIMIT 1) e, ledger.account f, ledger.account t
        WHERE f.path = 'user:acct_consumer:promo' AND t.path = 'user:acct_provider:earned'""",
    "grant what the budget has not": """INSERT INTO ledger.transfer (event_id, mode,
        code, unit, debit_id, debit_class, credit_id, credit_class, amount)
        SELECT e.id, 'single', 'grant', 'uUSD', f.id, f.class, t.id, t.class, 1
        FROM (SELECT id FROM ledger.event LIMIT 1) e, ledger.account f, ledger.account t
        WHERE f.path = 'platform:budget:promo' AND t.path = 'user:acct_consumer:promo'""",
    "post a hold without paying out": """INSERT INTO ledger.transfer (event_id, mode, code, unit,
        debit_id, debit_class, credit_id, credit_class, amount, pending_id)
        SELECT event_id, 'post', code, unit, debit_id, debit_class, credit_id, credit_class, 1, id
        FROM ledger.transfer p WHERE mode = 'pending' AND unit = 'uUSD'
          AND NOT EXISTS (SELECT FROM ledger.transfer r WHERE r.pending_id = p.id)""",
    "post more than was held": """INSERT INTO ledger.transfer (event_id, mode, code, unit,
        debit_id, debit_class, credit_id, credit_class, amount, pending_id)
        SELECT event_id, 'post', code, unit, debit_id, debit_class, credit_id, credit_class,
          amount + 1, id FROM ledger.transfer p WHERE mode = 'pending'""",
    "resolve a hold twice": """INSERT INTO ledger.transfer (event_id, mode, code, unit,
        debit_id, debit_class, credit_id, credit_class, amount, pending_id)
        SELECT event_id, 'void', code, unit, debit_id, debit_class, credit_id, credit_class,
          amount, pending_id FROM ledger.transfer p WHERE mode = 'post'""",
    "overdraw": """INSERT INTO ledger.transfer (event_id, mode,
        code, unit, debit_id, debit_class, credit_id, credit_class, amount)
        SELECT e.id, 'pending', 'hold', 'uUSD', f.id, f.class, t.id, t.class, 1000000
        FROM (SELECT id FROM ledger.event LIMIT 1) e, ledger.account f, ledger.account t
        WHERE f.path = 'user:acct_consumer:promo' AND t.path = 'user:acct_consumer:charge'""",
}


_BOOK = """INSERT INTO ledger.transfer (event_id, mode, code, unit, debit_id, debit_class,
    credit_id, credit_class, amount) SELECT e.id, 'single', '{}', 'uUSD', f.id, f.class,
    t.id, t.class, 1 FROM (SELECT min(id) AS id FROM ledger.event) e, ledger.account f,
    ledger.account t WHERE f.path = '{}' AND t.path = '{}'"""

# Flows that nobody planned, and those that the money is not there for.
ATTACKS |= {
    f"{code} {debit} {credit}": _BOOK.format(code, debit, credit)
    for code, debit, credit in (
        ("grant", "platform:budget:promo", "user:acct_provider:earned"),
        ("reward", "platform:budget:base", "user:acct_provider:earned"),
        ("referral", "platform:budget:referral", "user:acct_provider:maturing"),
        ("mature", "user:acct_consumer:maturing", "user:acct_consumer:earned"),
        ("mature", "user:acct_provider:disputed", "user:acct_provider:earned"),
        ("withdrawal", "user:acct_consumer:credit", "asset:stripe:platform"),
        ("withdrawal", "user:acct_consumer:promo", "asset:stripe:platform"),
        ("withdrawal", "user:acct_provider:maturing", "asset:stripe:platform"),
        ("withdrawal", "user:acct_provider:earned", "asset:owner:available"),
        ("return", "platform:fees:00", "user:acct_provider:earned"),
        ("payout", "user:acct_consumer:charge", "user:acct_provider:maturing"),
        ("fee", "platform:fees:00", "user:acct_provider:earned"),
        ("cover", "platform:stripe_payable", "asset:stripe:platform"),
        ("write_off", "user:acct_consumer:debt", "platform:stripe_fees"),
        ("move", "user:acct_consumer:promo", "user:acct_consumer:credit"),
    )
}
ATTACKS |= {
    f"{verb} {table}": statement.format(table)
    for verb, statement in (
        ("truncate", "TRUNCATE ledger.{} CASCADE"),
        ("delete", "DELETE FROM ledger.{}"),
    )
    for table in ("account", "event", "transfer", "posting", "rule")
}
ATTACKS |= {
    "truncate the seals": "TRUNCATE ledger.block",
    "redirect a payout": """UPDATE ledger.transfer SET credit_id = (SELECT id FROM ledger.account
        WHERE path = 'user:acct_consumer:maturing') WHERE code = 'payout'""",
    "edit an event": "UPDATE ledger.event SET body = '{}'",
    "move an event to another key": "UPDATE ledger.event SET idem_key = idem_key || 'x'",
    "post a hold to somebody else": """INSERT INTO ledger.transfer (event_id, mode, code, unit,
        debit_id, debit_class, credit_id, credit_class, amount, pending_id)
        SELECT p.event_id, 'post', p.code, p.unit, p.debit_id, p.debit_class, a.id, a.class,
          p.amount, p.id FROM ledger.transfer p, ledger.account a
        WHERE p.mode = 'pending' AND p.unit = 'uUSD' AND a.path = 'user:acct_provider:charge'""",
    "take the floor of equity away and back": """UPDATE ledger.account SET floor_zero = false
        WHERE path = 'platform:equity'""",
    "rename an account": "UPDATE ledger.account SET path = path || 'x'",
    "turn an account round": "UPDATE ledger.account SET normal = 'D' WHERE normal = 'C'",
    "the same key twice": """INSERT INTO ledger.event (idem_key, kind, body_hash, body, result,
        occurred_at) SELECT idem_key, kind, body_hash, body, result, occurred_at
        FROM ledger.event LIMIT 1""",
    "one block twice": """INSERT INTO ledger.block
        SELECT 1, 1, 1, 1, h, h, now()
        FROM (SELECT decode(repeat('00', 32), 'hex') AS h) x, generate_series(1, 2)""",
}


@pytest.mark.parametrize("attack", ATTACKS)
async def test_the_schema_refuses_attacks_even_of_a_superuser(books: str, attack: str) -> None:
    async with owner(books) as db:
        with pytest.raises(asyncpg.PostgresError):
            await db.execute(ATTACKS[attack])
    assert (await report(books)).violations == ()


LEDGER_TABLES = ("account", "rule", "event", "transfer", "posting", "block")


@pytest.mark.parametrize("table", LEDGER_TABLES)
async def test_the_service_role_cannot_change_the_ledger(books: str, table: str) -> None:
    async with owner(books) as db:
        columns = await db.fetch(
            "SELECT column_name FROM information_schema.columns "
            "WHERE table_schema = 'ledger' AND table_name = $1 AND is_identity = 'NO'",
            table,
        )
        await db.execute(f"SET ROLE {ROLE}")
        changes = [f"{column} = {column}" for (column,) in columns]
        attempts = [f"UPDATE ledger.{table} SET {change}" for change in changes]  # noqa: S608 - our own tables
        attempts += [f"DELETE FROM ledger.{table}", f"TRUNCATE ledger.{table}"]  # noqa: S608 - same
        for attempt in attempts:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await db.execute(attempt)


@pytest.mark.parametrize(
    "attempt",
    [
        "INSERT INTO ledger.rule VALUES ('gift', 'budget', 'user_earned')",
        "INSERT INTO ledger.posting VALUES (1, 99, 1, 'D', 0, 0, 0, 0)",
        "INSERT INTO ledger.account (path, class, normal, cr) VALUES ('x', 'user_promo', 'C', 9)",
        """INSERT INTO ledger.account (path, class, normal, floor_zero)
           VALUES ('x', 'equity', 'C', false)""",
        "ALTER TABLE ledger.transfer DISABLE TRIGGER ALL",
        "DELETE FROM billing.usage",
        "UPDATE billing.earning SET amount_micros = 1",
        "UPDATE billing.provider_link SET account_id = 'acct_consumer'",
        "UPDATE billing.price SET input_micros = 1",
        "UPDATE billing.api_key SET limit_micros = NULL",
        "DELETE FROM billing.receipt",
    ],
)
async def test_the_service_role_cannot_reach_around_the_ledger(books: str, attempt: str) -> None:
    async with owner(books) as db:
        await db.execute(f"SET ROLE {ROLE}")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await db.execute(attempt)


# Everything that the service may write but for inserting rows. A grant more is a decision.
MAY_DELETE = {
    "app_user",
    "audit_mark",
    "device_code",
    "device_guess",
    "fingerprint",
    "lease",
    "link_challenge",
    "log_report",
    "log_report_part",
    "provider_link",
    "provider_token",
    "public_name",
    "receipt_batch",
    "receipt_proof",
    "uncounted",
    "work_hour",
    "work_minute",
}
MAY_UPDATE_ALL = {"public_name", "work_day", "work_hour", "work_life", "work_minute"}
MAY_UPDATE = {
    "account": "closing_at frozen_at platform_fee_percent role",
    "api_key": "allowed_models disabled expires_at itpm_limit key_hash label name otpm_limit "
    "revoked_at rpm_limit self_route_only",
    "api_key_use": "used_at",
    "app_user": "email email_verified",
    "audit_mark": "cr cr_pend dr dr_pend version",
    "audit_state": "checked_at full_at last_block last_event violations",
    "auto_top_up": "amount_micros disabled_reason enabled monthly_cap_micros threshold_micros "
    "updated_at",
    "bonus": "lost_micros matured_at",
    "budget_funding": "approved_at approved_by",
    "device_code": "account_id next_poll_at state",
    "device_guess": "misses since",
    "dispute_hold": "ended_at lost_micros",
    "earning": "lost_micros matured_at",
    "erasure": "erased_at forfeit forfeited_micros plan proof scrub_after state",
    "fingerprint": "seen_at",
    "invite": "active used_count",
    "key_generation": "generation",
    "lease": "lease_until",
    "outbox": "attempts claimed_until done_at due_at error",
    "provider_token": "revoked_at",
    "receipt_batch": "log_index",
    "receipt_proof": "batch_id place",
    "referral_progress": "next_hour",
    "stripe_account": "country currently_due destination_last4 destination_type instant_eligible "
    "status unlinked_at updated_at",
    "stripe_check": "book_micros checked_at open_items stripe_micros unexplained_micros",
    "stripe_customer": "card_brand card_last4 payment_method",
    "stripe_dispute": "closed_at state",
    "stripe_event": "next_at problem state tries",
    "stripe_session": "charge_id completed_at external_id payment_intent status url",
    "withdrawal": "arrival_at attempt destination_payment failed_payout_id failure_reason "
    "fee_waived next_at payout_id payout_tries posted refunded status transfer_id tries updated_at",
}
LEDGER_INSERTS = {
    "account": "class normal path unit zero_at_commit",
    "block": "events first_event hash height last_event previous sealed_at",
    "event": "body body_hash created_at id idem_key kind occurred_at result",
    "transfer": "amount code created_at credit_class credit_id debit_class debit_id event_id id "
    "mode pending_id unit",
}


async def test_the_service_role_may_do_this_and_nothing_else(url: str) -> None:
    columns = """
        SELECT c.relname, string_agg(a.attname, ' ' ORDER BY a.attname COLLATE "C")
        FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
          AND NOT a.attisdropped
        WHERE c.relnamespace = $1::text::regnamespace AND c.relkind IN ('r', 'v', 'p')
          AND has_column_privilege($2, c.oid, a.attname, $3) GROUP BY 1
    """
    tables = """
        SELECT c.relname FROM pg_class c WHERE c.relnamespace = $1::text::regnamespace
          AND c.relkind IN ('r', 'v', 'p') AND has_table_privilege($2, c.oid, $3)
    """
    async with owner(url) as db:

        async def whole(schema: str, privilege: str) -> set[str]:
            return {name for (name,) in await db.fetch(tables, schema, ROLE, privilege)}

        for schema in ("ledger", "billing"):
            for privilege in ("TRUNCATE", "REFERENCES", "TRIGGER"):
                assert await whole(schema, privilege) == set()
        assert await whole("ledger", "DELETE") == set()
        assert await whole("billing", "DELETE") == MAY_DELETE
        assert await whole("billing", "UPDATE") == MAY_UPDATE_ALL
        assert dict(await db.fetch(columns, "ledger", ROLE, "UPDATE")) == {}
        assert dict(await db.fetch(columns, "ledger", ROLE, "INSERT")) == LEDGER_INSERTS
        narrow = dict(await db.fetch(columns, "billing", ROLE, "UPDATE"))
        assert {t: c for t, c in narrow.items() if t not in MAY_UPDATE_ALL} == MAY_UPDATE


async def test_only_four_functions_do_more_than_their_caller_and_nobody_else_may_call_any(
    url: str,
) -> None:
    async with owner(url) as db:
        rows = await db.fetch(
            """SELECT p.proname, p.prosecdef, p.proconfig, has_function_privilege($1, p.oid,
                 'EXECUTE') AS ours, has_function_privilege('public', p.oid, 'EXECUTE') AS public
               FROM pg_proc p WHERE p.pronamespace IN ('ledger'::regnamespace,
                 'billing'::regnamespace)""",
            ROLE,
        )
    assert [row["proname"] for row in rows if row["public"]] == []
    strong = {row["proname"]: row for row in rows if row["prosecdef"] and row["ours"]}
    assert set(strong) == {"forget_finished", "lock_accounts", "scrub", "set_cap"}
    assert all("search_path=pg_catalog" in row["proconfig"] for row in strong.values())


async def test_the_service_works_as_the_restricted_role_and_cannot_leave_it(url: str) -> None:
    database = await open_database(url)

    async def who(connection: Any) -> str:
        await connection.execute("RESET ROLE")
        return str(await connection.fetchval("SELECT current_user"))

    assert await database.run(who) == ROLE
    await database.close()


async def test_a_role_that_could_change_history_is_refused_at_the_start(url: str) -> None:
    with pytest.raises(RoleError):
        await open_database(url, role="postgres")


async def test_a_server_that_lacks_a_setting_is_refused_with_the_version_that_has_it(
    url: str,
) -> None:
    with pytest.raises(OldServerError, match="postgresql 17 or newer"):
        await open_database(f"{url}&no_such_setting=1")


async def test_receipts_that_are_missing_are_findings_and_no_violations(books: str) -> None:
    found = await report(books)
    assert found.violations == ()
    assert {name: number for name, number in found.findings.items() if number} == {
        "receipts_missing": 1
    }
    assert found.counts["open_holds"] == 1
