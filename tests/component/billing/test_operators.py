"""Operators' commands over the wire: two persons, an audit row for each write, erasure."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
from darkbloom.billing.v1 import operator_pb2
from darkbloom.billing.v1 import operator_service_pb2 as pb
from darkbloom.common.v1.error_reason_pb2 import ErrorReason as reasons  # noqa: N813 - as elsewhere
from darkbloom_billing.admin.export import TABLES
from darkbloom_billing.books import Books
from darkbloom_mesh.errors import (
    ConflictError,
    MeshError,
    NotFoundError,
    UnauthenticatedError,
    from_rpc_error,
)
from darkbloom_mesh.testing import FakeClock
from grpc.aio import AioRpcError

from tests.component.billing.operating import CALL_S, Staff, name, staff
from tests.component.billing.world import (
    CONSUMER,
    PROVIDER,
    START,
    World,
    open_database,
    owner,
    world,
)


async def fault(call: Any) -> MeshError:
    with pytest.raises(AioRpcError) as caught:
        await call
    return from_rpc_error(caught.value)


async def refusal(call: Any) -> str:
    error = await fault(call)
    assert error.reason == reasons.ERROR_REASON_OPERATOR_REFUSED, error
    return error.metadata["darkbloom-refusal"]


def credit(s: Staff, account_id: str, micros: int, **more: Any) -> Any:
    fields = {
        "operator": s.alice,
        "request_id": name("credit"),
        "account_id": account_id,
        "kind": pb.CREDIT_KIND_PROMO,
        "amount_micros": micros,
    }
    return s.operators.CreditAccount(pb.CreditAccountRequest(**(fields | more)), timeout=CALL_S)


async def test_a_budget_needs_two_operators_who_prove_who_they_are(url: str) -> None:
    async with world(url) as w:
        s = await staff(w)
        just_a_name = operator_pb2.Operator(name="alice")

        def propose(who: operator_pb2.Operator, request: str = "p", micros: int = 100) -> Any:
            message = pb.ProposeFundingRequest(
                operator=who, request_id=request, budget="capital", amount_micros=micros
            )
            return s.operators.ProposeFunding(message, timeout=CALL_S)

        def approve(who: operator_pb2.Operator, funding_id: str) -> Any:
            message = pb.ApproveFundingRequest(operator=who, funding_id=funding_id)
            return s.operators.ApproveFunding(message, timeout=CALL_S)

        assert await refusal(propose(just_a_name)) == "not_registered"
        stranger = operator_pb2.Operator(name="alice", token="op-db-guessed")
        assert isinstance(await fault(propose(stranger)), UnauthenticatedError)

        first = (await propose(s.alice)).funding
        assert (await propose(s.alice)).funding.funding_id == first.funding_id
        assert isinstance(await fault(propose(s.alice, micros=101)), ConflictError)
        assert await refusal(approve(s.alice, first.funding_id)) == "same_operator"
        assert await refusal(approve(just_a_name, first.funding_id)) == "not_registered"
        for _ in range(2):
            moved = (await approve(s.bob, first.funding_id)).funding
            assert moved.state == operator_pb2.FUNDING_STATE_APPROVED
            assert (moved.proposed_by, moved.approved_by) == ("alice", "bob")

        more = pb.ProposeFundingRequest(
            operator=s.bob, request_id="q", budget="invite", amount_micros=101
        )
        dear = (await s.operators.ProposeFunding(more, timeout=CALL_S)).funding
        assert await refusal(approve(s.alice, dear.funding_id)) == "capital_short"
        listed = await s.operators.ListBudgets(pb.ListBudgetsRequest(), timeout=CALL_S)
        assert listed.capital_micros == 100
        assert {b.name: b.available_micros for b in listed.budgets}["invite"] == 0
        assert dear.funding_id in {f.funding_id for f in listed.fundings}
        await w.sound()


async def test_a_credit_is_paid_once_per_key_and_never_without_a_budget(url: str) -> None:
    async with world(url) as w:
        s = await staff(w)
        await w.account(CONSUMER)
        assert await refusal(credit(s, CONSUMER, 5)) == "budget_short"
        await s.fund("promo", 100)
        for _ in range(3):
            paid = await credit(s, CONSUMER, 30, request_id="k", note="for Olga")
            assert (paid.balance_micros, paid.withdrawable_micros) == (30, 0)
        assert isinstance(await fault(credit(s, CONSUMER, 31, request_id="k")), ConflictError)
        paid = await credit(s, CONSUMER, 20, kind=pb.CREDIT_KIND_REWARD)
        assert (paid.balance_micros, paid.withdrawable_micros) == (50, 20)
        assert isinstance(await fault(credit(s, "acct_nobody", 1)), NotFoundError)

        rows = await s.actions(CONSUMER)
        assert [(r.operator, r.source, r.action) for r in rows] == [
            ("alice", "cli", "account.reward"),
            ("alice", "cli", "account.credit"),
        ]
        assert json.loads(rows[1].after_json) == {"amount_micros": 30}
        async with owner(url) as db:
            assert "Olga" not in str(await db.fetch("SELECT body FROM ledger.event"))
            assert "Olga" not in str(await db.fetch("SELECT * FROM billing.operator_action"))
        await w.sound()


async def test_the_audit_of_operators_cannot_be_changed(url: str) -> None:
    async with world(url) as w:
        s = await staff(w)
        await s.invite(5)
        async with owner(url) as db:
            for attack in (
                "UPDATE billing.operator_action SET operator = 'nobody'",
                "DELETE FROM billing.operator_action",
                "TRUNCATE billing.operator_action",
            ):
                with pytest.raises(asyncpg.PostgresError, match="append-only"):
                    await db.execute(attack)
            await db.execute("SET ROLE darkbloom_billing")
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await db.execute(
                    "INSERT INTO billing.operator VALUES ('eve', sha256('x'), now(), NULL)"
                )


async def test_every_write_leaves_its_row(url: str) -> None:
    async with world(url) as w:
        s = await staff(w)
        await w.account(CONSUMER)
        key_id = await w.key(b"secret")
        code = await s.invite(5, code="spring")
        who = {"operator": s.bob}
        await s.operators.DeactivateInvite(
            pb.DeactivateInviteRequest(request_id="d", code=code, **who), timeout=CALL_S
        )
        changed = await s.operators.UpdateAccount(
            pb.UpdateAccountRequest(
                request_id="u",
                account_id=CONSUMER,
                role="service",
                platform_fee_percent=7,
                frozen=True,
                **who,
            ),
            timeout=CALL_S,
        )
        assert (changed.account.role, changed.account.platform_fee_percent) == ("service", 7)
        assert changed.account.frozen
        for _ in range(2):
            await s.operators.RevokeAccountKey(
                pb.RevokeAccountKeyRequest(request_id="r", key_id=key_id, **who), timeout=CALL_S
            )
        await s.operators.SetPlatformPrice(
            pb.SetPlatformPriceRequest(
                request_id="s", build="b", input_micros=10, output_micros=20, **who
            ),
            timeout=CALL_S,
        )
        rows = await s.actions()
        assert [(r.action, r.subject, r.operator) for r in rows] == [
            ("price.set", "b", "bob"),
            ("key.revoke", key_id, "bob"),
            ("account.change", CONSUMER, "bob"),
            ("invite.deactivate", "SPRING", "bob"),
            ("invite.create", "SPRING", "alice"),
        ]
        assert json.loads(rows[2].before_json)["role"] == ""
        assert json.loads(rows[2].after_json)["role"] == "service"
        assert json.loads(rows[0].before_json)["input_micros"] == 50_000
        keys = await s.operators.ListAccountKeys(
            pb.ListAccountKeysRequest(account_id=CONSUMER), timeout=CALL_S
        )
        assert [(k.key_id, k.revoked) for k in keys.keys] == [(key_id, True)]


async def test_an_invite_code_belongs_to_one_invite(url: str) -> None:
    async with world(url) as w:
        s = await staff(w)
        await s.invite(5, code="once")
        assert isinstance(await fault(s.invite(5, code="ONCE")), ConflictError)
        listed = await s.operators.ListInvites(pb.ListInvitesRequest(), timeout=CALL_S)
        assert [(i.code, i.max_uses, i.active) for i in listed.invites] == [("ONCE", 1, True)]


async def test_accounts_are_listed_page_by_page(url: str) -> None:
    clock = FakeClock(START)
    async with world(url, clock=clock) as w:
        s = await staff(w)
        for n in range(5):
            await w.account(f"acct_{n}")
        seen, token = [], ""
        while True:
            request = pb.ListAccountsRequest()
            request.page.page_size = 2
            request.page.page_token = token
            page = await s.operators.ListAccounts(request, timeout=CALL_S)
            seen += [a.account_id for a in page.accounts]
            token = page.next_page_token
            if not token:
                break
        assert seen == [f"acct_{n}" for n in reversed(range(5))]
        bad = pb.ListAccountsRequest()
        bad.page.page_token = "?"
        error = await fault(s.operators.ListAccounts(bad, timeout=CALL_S))
        assert error.metadata == {"darkbloom-field": "page.page_token"}


# Erasure


def plan(s: Staff, account_id: str) -> Any:
    request = pb.PlanErasureRequest(
        operator=s.alice, request_id=name("plan"), account_id=account_id
    )
    return s.operators.PlanErasure(request, timeout=CALL_S)


def confirm(s: Staff, planned: pb.PlanErasureResponse, **more: Any) -> Any:
    fields = {
        "operator": s.bob,
        "erasure_id": planned.erasure.erasure_id,
        "confirm_token": planned.confirm_token,
    }
    return s.operators.ConfirmErasure(pb.ConfirmErasureRequest(**(fields | more)), timeout=CALL_S)


async def somebody(w: World, s: Staff) -> None:
    """A consumer with a name, a key, a user, a machine, a note and a code."""
    await w.account(CONSUMER)
    await w.account(PROVIDER)
    await w.key(b"secret of olga")
    await w.link(w.machine, CONSUMER)
    await s.fund("promo", 1_000_000)
    await credit(s, CONSUMER, 1_000, note="Olga asked nicely")
    await s.register(CONSUMER, "ADA-LOVELACE")
    await s.apply(PROVIDER, "ADA-LOVELACE")
    async with owner(w.url) as db:
        await db.execute(
            "UPDATE billing.account SET display_name = 'Olga' WHERE account_id = $1", CONSUMER
        )
        await db.execute(
            "INSERT INTO billing.app_user VALUES ('user_1', 'https://issuer', 'sub', $1, "
            "'olga@example.com', true, now())",
            CONSUMER,
        )


async def personal(url: str) -> AsyncIterator[tuple[str, str]]:
    """Every row of every table that still has something of her in it."""
    async with owner(url) as db:
        tables = await db.fetch(
            "SELECT schemaname || '.' || tablename AS name FROM pg_tables "
            "WHERE schemaname IN ('billing', 'ledger')"
        )
        for (table,) in tables:
            for row in await db.fetch(f"SELECT * FROM {table}"):  # noqa: S608 - from the catalogue
                text = str(dict(row)).lower()
                if "olga" in text:
                    yield table, text


async def test_an_erasure_leaves_nothing_personal_and_keeps_the_books(url: str) -> None:
    clock = FakeClock(START)
    async with world(url, clock=clock, erasure_period_s=60) as w:
        s = await staff(w)
        await somebody(w, s)
        assert [table async for table, _ in personal(url)]
        planned = await plan(s, CONSUMER)
        rules = {rule.rule: rule.rows for rule in planned.erasure.rules}
        assert rules["users"] == rules["notes"] == rules["key_names"] == 1
        assert planned.erasure.balance_micros == 1_000

        assert await refusal(confirm(s, planned, confirm_token="x")) == "token_wrong"
        assert await refusal(confirm(s, planned)) == "balance_left"
        pending = (await confirm(s, planned, forfeit=True)).erasure
        assert pending.state == operator_pb2.ERASURE_STATE_PENDING
        assert (await s.view(CONSUMER)).active_keys == 0
        assert await refusal(plan(s, CONSUMER)) == "erasure_open"

        async with asyncio.timeout(30):
            await clock.advance(timedelta(days=8).total_seconds())
            while (await s.view(CONSUMER)).erasure_state != "erased":
                await clock.advance(60)
        assert [found async for found in personal(url)] == []
        view = await s.view(CONSUMER)
        assert (view.promo_micros, view.display_name, view.frozen) == (0, "", True)
        listed = await s.operators.ListErasures(pb.ListErasuresRequest(), timeout=CALL_S)
        # Machines have left at the confirmation already.
        scrubbed = {rule.rule: rule.rows for rule in listed.erasures[0].rules}
        assert scrubbed == {**rules, "machine_names": 0}
        assert (await s.view(CONSUMER)).machines == 0
        assert await refusal(plan(s, CONSUMER)) == "already_erased"
        assert [r.action for r in await s.actions(CONSUMER)][:3] == [
            "erasure.scrub",
            "erasure.confirm",
            "erasure.plan",
        ]
        await w.sound()


async def test_money_that_comes_during_the_grace_is_not_forfeited_unasked(url: str) -> None:
    clock = FakeClock(START)
    async with world(url, clock=clock, erasure_period_s=60) as w:
        s = await staff(w)
        await w.account(CONSUMER)
        await w.account(PROVIDER)
        for account_id in (CONSUMER, PROVIDER):
            await confirm(s, await plan(s, account_id))
        await s.deposit(CONSUMER, 5_000_000)
        async with asyncio.timeout(30):
            await clock.advance(timedelta(days=8).total_seconds())
            while (await s.view(PROVIDER)).erasure_state != "erased":
                await clock.advance(60)
        view = await s.view(CONSUMER)
        assert (view.erasure_state, view.credit_micros) == ("pending", 5_000_000)

        listed = await s.operators.ListErasures(pb.ListErasuresRequest(), timeout=CALL_S)
        (waiting,) = (row for row in listed.erasures if row.account_id == CONSUMER)
        await s.operators.CancelErasure(
            pb.CancelErasureRequest(operator=s.bob, erasure_id=waiting.erasure_id), timeout=CALL_S
        )
        again = await plan(s, CONSUMER)
        assert (await confirm(s, again, forfeit=True, force=True)).erasure.state == (
            operator_pb2.ERASURE_STATE_ERASED
        )
        await w.sound()


async def test_what_stripe_keeps_is_owed_to_the_outbox(url: str) -> None:
    async with world(url) as w:
        s = await staff(w)
        await w.account(CONSUMER)
        async with owner(url) as db:
            await db.execute(
                "INSERT INTO billing.stripe_customer VALUES ($1, 'cus_1', 'pm_1', 'visa', '4242', "
                "now())",
                CONSUMER,
            )
            await db.execute(
                "INSERT INTO billing.stripe_account (stripe_account_id, account_id, status, "
                "country, destination_last4, created_at, updated_at) "
                "VALUES ('acct_1stripe', $1, 'ready', 'US', '6789', now(), now())",
                CONSUMER,
            )
        done = (await confirm(s, await plan(s, CONSUMER), force=True)).erasure
        assert (done.state, done.outbox) == (operator_pb2.ERASURE_STATE_ERASED, 2)
        async with owner(url) as db:
            owed = await db.fetch("SELECT kind, key FROM billing.outbox ORDER BY kind")
            assert [tuple(row) for row in owed] == [
                ("erase.stripe_account", "acct_1stripe"),
                ("erase.stripe_customer", "cus_1"),
            ]
            assert await db.fetchval("SELECT count(*) FROM billing.stripe_customer") == 0
            assert await db.fetchval("SELECT destination_last4 FROM billing.stripe_account") == ""


async def test_an_open_hold_stops_an_erasure_and_a_canceled_one_erases_nothing(url: str) -> None:
    async with world(url) as w:
        s = await staff(w)
        await w.people()
        (held,) = await w.hold(w.order())
        planned = await plan(s, CONSUMER)
        assert planned.erasure.held_micros > 0
        assert await refusal(confirm(s, planned, forfeit=True)) == "money_moving"
        await w.release(held.request_id)
        await confirm(s, planned, forfeit=True)
        canceled = await s.operators.CancelErasure(
            pb.CancelErasureRequest(operator=s.bob, erasure_id=planned.erasure.erasure_id),
            timeout=CALL_S,
        )
        assert canceled.erasure.state == operator_pb2.ERASURE_STATE_CANCELED
        assert await refusal(confirm(s, planned, forfeit=True, force=True)) == "not_planned"
        assert (await s.view(CONSUMER)).erasure_state == ""


async def test_what_nobody_confirmed_cannot_be_scrubbed_even_by_the_service(url: str) -> None:
    async with world(url) as w:
        s = await staff(w)
        await w.account(CONSUMER)
        planned = await plan(s, CONSUMER)
        async with owner(url) as db:
            await db.execute("SET ROLE darkbloom_billing")
            with pytest.raises(asyncpg.PostgresError, match="not confirmed"):
                await db.fetch("SELECT billing.scrub($1)", planned.erasure.erasure_id)


@pytest.mark.parametrize(
    ("left", "evidence", "earned", "status"),
    [(True, "tr_1abcdef", 1_000_000, "paid"), (False, "req_1abcdef", 3_000_000, "failed")],
)
async def test_a_person_ends_a_withdrawal_by_evidence_once(
    url: str, left: bool, evidence: str, earned: int, status: str
) -> None:
    async with world(url) as w:
        s = await staff(w)
        await w.account(PROVIDER)
        await s.fund("promo", 10_000_000)
        await credit(s, PROVIDER, 3_000_000, kind=pb.CREDIT_KIND_REWARD)
        await s.deposit(PROVIDER, 5_000_000)
        database = await open_database(url)
        try:
            await Books(database, w.clock).withdraw_submit("wd_1", PROVIDER, 2_000_000)
        finally:
            await database.close()
        async with owner(url) as db:
            await db.execute(
                "INSERT INTO billing.stripe_account (stripe_account_id, account_id, status, "
                "country, created_at, updated_at) VALUES ('acct_1', $1, 'ready', 'US', now(), "
                "now())",
                PROVIDER,
            )
            await db.execute(
                "INSERT INTO billing.withdrawal (withdrawal_id, account_id, request_id, "
                "stripe_account_id, amount_micros, fee_micros, net_micros, method, status, tries, "
                "next_at, created_at, updated_at) VALUES ('wd_1', $1, 'r', 'acct_1', 2000000, 0, "
                "2000000, 'standard', 'manual_reconciliation_required', 3, now(), now(), now())",
                PROVIDER,
            )

        def resolve(who: operator_pb2.Operator, proof: str, *, gone: bool = left) -> Any:
            message = pb.ResolveWithdrawalRequest(
                operator=who, withdrawal_id="wd_1", left=gone, evidence=proof
            )
            return s.operators.ResolveWithdrawal(message, timeout=CALL_S)

        waiting = pb.ListManualWithdrawalsRequest()
        listed = await s.operators.ListManualWithdrawals(waiting, timeout=CALL_S)
        assert [row.withdrawal_id for row in listed.withdrawals] == ["wd_1"]
        only_a_name = operator_pb2.Operator(name="eve")
        assert await refusal(resolve(only_a_name, evidence)) == "not_registered"
        assert (await fault(resolve(s.alice, "trust me"))).metadata == {
            "darkbloom-field": "evidence"
        }
        async with owner(url) as db:
            known = "UPDATE billing.withdrawal SET transfer_id = $1"
            await db.execute(known, "tr_known")
            back = await fault(resolve(s.alice, "req_9abcdef", gone=False))
            assert "the money left" in back.message
            await db.execute(known, None)
        for _ in range(2):
            assert (await resolve(s.alice, evidence)).withdrawal.status == status
        other = "req_9abcdef" if left else "tr_9abcdef"
        assert await refusal(resolve(s.bob, other, gone=not left)) == "not_manual"
        assert (await s.view(PROVIDER)).earned_micros == earned
        (row,) = await s.actions("wd_1")
        assert json.loads(row.after_json)["evidence"] == evidence
        await w.sound()


@pytest.mark.parametrize("table", sorted(TABLES))
async def test_an_export_adds_up(url: str, table: str) -> None:
    async with world(url) as w:
        s = await staff(w)
        await w.people()
        for _ in range(3):
            (held,) = await w.hold(w.order())
            await w.settle(w.settlement(held.request_id))
        call = s.operators.ExportTable(pb.ExportTableRequest(table=table), timeout=CALL_S)
        parts = [part async for part in call]
        header = parts[0].header
        rows = [json.loads(row) for part in parts[1:] for row in part.rows.json]
        assert len(rows) == header.rows > 0
        for at, column in enumerate(header.columns):
            if column.sum:
                assert sum(row[at] or 0 for row in rows) == int(column.sum)


async def test_an_unknown_table_is_not_exported(url: str) -> None:
    async with world(url) as w:
        s = await staff(w)
        call = s.operators.ExportTable(pb.ExportTableRequest(table="app_user"), timeout=CALL_S)
        with pytest.raises(AioRpcError) as caught:
            await call.read()
        assert isinstance(from_rpc_error(caught.value), NotFoundError)


async def test_the_audit_of_the_books_is_run_and_shown(url: str) -> None:
    async with world(url) as w:
        s = await staff(w)
        await w.people()
        report = await s.operators.RunAudit(pb.RunAuditRequest(), timeout=60)
        assert list(report.violations) == []
        assert json.loads(report.report_json)["counts"]["transfers"] > 0
        head = await s.operators.GetSealHead(pb.GetSealHeadRequest(), timeout=CALL_S)
        assert head.block >= 0
