"""Operators' commands on the wire: translate, delegate, translate back."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable

from darkbloom.billing.v1 import operator_service_pb2 as pb
from darkbloom.billing.v1.operator_pb2 import Operator as OperatorMessage
from darkbloom.billing.v1.operator_service_pb2_grpc import OperatorServiceServicer
from darkbloom_mesh.clock import Clock
from darkbloom_mesh.errors import InvalidArgumentError
from darkbloom_mesh.interceptors import Context

from darkbloom_billing import convert as wire
from darkbloom_billing.admin import convert, model
from darkbloom_billing.admin.account_store import PostgresAccountDesk
from darkbloom_billing.admin.actions import ActionLog
from darkbloom_billing.admin.budgets import Budgets
from darkbloom_billing.admin.desk import Desk
from darkbloom_billing.admin.erasure import Erasures
from darkbloom_billing.admin.export import Exporter
from darkbloom_billing.admin.operators import Operators
from darkbloom_billing.admin.reconciliation import Reconciliation
from darkbloom_billing.audit import Report
from darkbloom_billing.books.seal import Block
from darkbloom_billing.model import NewPrice
from darkbloom_billing.pricing import MAX_PRICE_MICROS, default_cache_read
from darkbloom_billing.programmes.codes import invite_code
from darkbloom_billing.programmes.invite_store import PostgresInvites
from darkbloom_billing.programmes.model import Invite

_MANUAL = 1000


class OperatorServer(OperatorServiceServicer):
    """Commands of operators; holds no resource of its own."""

    def __init__(
        self,
        *,
        operators: Operators,
        accounts: PostgresAccountDesk,
        desk: Desk,
        invites: PostgresInvites,
        budgets: Budgets,
        reconciliation: Reconciliation,
        erasures: Erasures,
        actions: ActionLog,
        seal_head: Callable[[], Awaitable[Block | None]],
        exporter: Exporter,
        audit: Callable[[], Awaitable[Report]],
        clock: Clock,
    ) -> None:
        self._operators = operators
        self._accounts = accounts
        self._desk = desk
        self._invites = invites
        self._budgets = budgets
        self._reconciliation = reconciliation
        self._erasures = erasures
        self._actions = actions
        self._seal_head = seal_head
        self._exporter = exporter
        self._audit = audit
        self._clock = clock

    async def ListAccounts(
        self, request: pb.ListAccountsRequest, context: Context
    ) -> pb.ListAccountsResponse:
        """Return a page of accounts."""
        size = wire.page_size(request.page)
        found = await self._accounts.page(limit=size + 1, after=convert.place(request.page))
        rows, following = convert.cut(found, size, lambda row: (row.created_at, row.account_id))
        return pb.ListAccountsResponse(accounts=map(convert.view, rows), next_page_token=following)

    async def GetAccountView(
        self, request: pb.GetAccountViewRequest, context: Context
    ) -> pb.GetAccountViewResponse:
        """Return one account, by id or e-mail."""
        if bool(request.account_id) == bool(request.email):
            raise InvalidArgumentError("either an id or an e-mail", "account_id")
        if request.email:
            found = await self._accounts.by_email(wire.text(request.email, "email"))
        else:
            found = await self._accounts.get(wire.token(request.account_id, "account_id"))
        return pb.GetAccountViewResponse(account=convert.view(found))

    async def UpdateAccount(
        self, request: pb.UpdateAccountRequest, context: Context
    ) -> pb.UpdateAccountResponse:
        """Change role, fee or freeze."""
        operator = await self._who(request.operator)
        account_id = wire.token(request.account_id, "account_id")
        await self._accounts.change(
            operator,
            wire.token(request.request_id, "request_id"),
            account_id,
            convert.change(request),
            now=self._clock.now(),
        )
        return pb.UpdateAccountResponse(account=convert.view(await self._accounts.get(account_id)))

    async def CreditAccount(
        self, request: pb.CreditAccountRequest, context: Context
    ) -> pb.CreditAccountResponse:
        """Put money on an account."""
        credit = convert.credit(request)
        await self._desk.credit(await self._who(request.operator), credit)
        view = await self._accounts.get(credit.account_id)
        return pb.CreditAccountResponse(
            credited_micros=credit.amount_micros,
            balance_micros=view.available_micros,
            withdrawable_micros=view.earned_micros,
        )

    async def RevokeAccountKey(
        self, request: pb.RevokeAccountKeyRequest, context: Context
    ) -> pb.RevokeAccountKeyResponse:
        """Revoke a key."""
        account_id = await self._accounts.revoke_key(
            await self._who(request.operator),
            wire.token(request.request_id, "request_id"),
            wire.token(request.key_id, "key_id"),
            now=self._clock.now(),
        )
        return pb.RevokeAccountKeyResponse(account_id=account_id)

    async def ListAccountKeys(
        self, request: pb.ListAccountKeysRequest, context: Context
    ) -> pb.ListAccountKeysResponse:
        """Return the keys of an account."""
        keys = await self._accounts.keys(wire.token(request.account_id, "account_id"))
        return pb.ListAccountKeysResponse(keys=map(convert.key, keys))

    async def SetPlatformPrice(
        self, request: pb.SetPlatformPriceRequest, context: Context
    ) -> pb.SetPlatformPriceResponse:
        """Set the platform's price of a build."""
        operator = await self._who(request.operator)
        inp = wire.between(request.input_micros, 1, MAX_PRICE_MICROS, "input_micros")
        cache_read = (
            wire.between(request.cache_read_micros, 0, inp, "cache_read_micros")
            if request.HasField("cache_read_micros")
            else default_cache_read(inp)
        )
        new = NewPrice(
            request_id=wire.token(request.request_id, "request_id"),
            build=wire.token(request.build, "build"),
            input_micros=inp,
            output_micros=wire.between(request.output_micros, 1, MAX_PRICE_MICROS, "output_micros"),
            cache_read_micros=cache_read,
            effective_at=None,
        )
        row = (await self._desk.set_price(operator, new)).row
        return pb.SetPlatformPriceResponse(
            price_id=row.price_id, cache_read_micros=row.cache_read_micros
        )

    async def CreateInvite(
        self, request: pb.CreateInviteRequest, context: Context
    ) -> pb.CreateInviteResponse:
        """Make an invite."""
        new = convert.new_invite(request)
        made = await self._desk.create_invite(await self._who(request.operator), new)
        return pb.CreateInviteResponse(invite=convert.invite(made))

    async def ListInvites(
        self, request: pb.ListInvitesRequest, context: Context
    ) -> pb.ListInvitesResponse:
        """Return a page of invites."""
        size = wire.page_size(request.page)
        found = await self._invites.page(limit=size + 1, after=convert.place(request.page))
        rows, following = convert.cut(found, size, _invite_place)
        return pb.ListInvitesResponse(invites=map(convert.invite, rows), next_page_token=following)

    async def DeactivateInvite(
        self, request: pb.DeactivateInviteRequest, context: Context
    ) -> pb.DeactivateInviteResponse:
        """Stop an invite."""
        stopped = await self._desk.deactivate_invite(
            await self._who(request.operator),
            wire.token(request.request_id, "request_id"),
            invite_code(request.code),
        )
        return pb.DeactivateInviteResponse(invite=convert.invite(stopped))

    async def ProposeFunding(
        self, request: pb.ProposeFundingRequest, context: Context
    ) -> pb.ProposeFundingResponse:
        """Propose money for a budget."""
        made = await self._budgets.propose(
            await self._who(request.operator),
            wire.token(request.request_id, "request_id"),
            request.budget,
            wire.between(request.amount_micros, 1, wire.MAX_MICROS, "amount_micros"),
        )
        return pb.ProposeFundingResponse(funding=convert.funding(made))

    async def ApproveFunding(
        self, request: pb.ApproveFundingRequest, context: Context
    ) -> pb.ApproveFundingResponse:
        """Approve what another operator has proposed."""
        moved = await self._budgets.approve(
            await self._who(request.operator), wire.token(request.funding_id, "funding_id")
        )
        return pb.ApproveFundingResponse(funding=convert.funding(moved))

    async def ListBudgets(
        self, request: pb.ListBudgetsRequest, context: Context
    ) -> pb.ListBudgetsResponse:
        """Return budgets and a page of fundings."""
        size = wire.page_size(request.page)
        found = await self._budgets.page(limit=size + 1, after=convert.place(request.page))
        rows, following = convert.cut(found, size, lambda row: (row.proposed_at, row.funding_id))
        budgets, capital = await self._budgets.budgets()
        return pb.ListBudgetsResponse(
            budgets=map(convert.budget, budgets),
            fundings=map(convert.funding, rows),
            next_page_token=following,
            capital_micros=capital,
        )

    async def ListManualWithdrawals(
        self, request: pb.ListManualWithdrawalsRequest, context: Context
    ) -> pb.ListManualWithdrawalsResponse:
        """Return withdrawals that wait for a person."""
        found = await self._reconciliation.waiting(_MANUAL)
        return pb.ListManualWithdrawalsResponse(withdrawals=map(convert.withdrawal, found))

    async def ResolveWithdrawal(
        self, request: pb.ResolveWithdrawalRequest, context: Context
    ) -> pb.ResolveWithdrawalResponse:
        """End one by evidence."""
        ended = await self._reconciliation.resolve(
            await self._who(request.operator),
            wire.token(request.withdrawal_id, "withdrawal_id"),
            request.evidence,
            left=request.left,
        )
        return pb.ResolveWithdrawalResponse(withdrawal=convert.withdrawal(ended))

    async def ListActions(
        self, request: pb.ListActionsRequest, context: Context
    ) -> pb.ListActionsResponse:
        """Return a page of the audit."""
        size = wire.page_size(request.page)
        found = await self._actions.page(
            wire.text(request.subject, "subject"),
            limit=size + 1,
            before=convert.action_place(request.page),
        )
        rows = found[:size]
        following = str(rows[-1].action_id) if len(found) > size else ""
        return pb.ListActionsResponse(actions=map(convert.action, rows), next_page_token=following)

    async def RunAudit(self, request: pb.RunAuditRequest, context: Context) -> pb.RunAuditResponse:
        """Check the whole ledger."""
        report = await self._audit()
        return pb.RunAuditResponse(
            violations=[
                pb.AuditViolation(check=found.check, what=found.what) for found in report.violations
            ],
            report_json=json.dumps(report.body()),
        )

    async def GetSealHead(
        self, request: pb.GetSealHeadRequest, context: Context
    ) -> pb.GetSealHeadResponse:
        """Return the newest sealed block."""
        head = await self._seal_head()
        if head is None:
            return pb.GetSealHeadResponse()
        return pb.GetSealHeadResponse(
            block=head.height,
            last_event_id=head.last_event,
            block_hash=head.hash,
            seal_time=wire.timestamp(head.sealed_at),
        )

    async def PlanErasure(
        self, request: pb.PlanErasureRequest, context: Context
    ) -> pb.PlanErasureResponse:
        """Count what an erasure would touch."""
        plan, token = await self._erasures.plan(
            await self._who(request.operator),
            wire.token(request.request_id, "request_id"),
            wire.token(request.account_id, "account_id"),
        )
        return pb.PlanErasureResponse(erasure=convert.erasure(plan), confirm_token=token)

    async def ConfirmErasure(
        self, request: pb.ConfirmErasureRequest, context: Context
    ) -> pb.ConfirmErasureResponse:
        """Confirm a plan."""
        confirmed = await self._erasures.confirm(
            await self._who(request.operator),
            wire.token(request.erasure_id, "erasure_id"),
            request.confirm_token,
            forfeit=request.forfeit,
            force=request.force,
        )
        return pb.ConfirmErasureResponse(erasure=convert.erasure(confirmed))

    async def CancelErasure(
        self, request: pb.CancelErasureRequest, context: Context
    ) -> pb.CancelErasureResponse:
        """Take an erasure back."""
        canceled = await self._erasures.cancel(
            await self._who(request.operator), wire.token(request.erasure_id, "erasure_id")
        )
        return pb.CancelErasureResponse(erasure=convert.erasure(canceled))

    async def ListErasures(
        self, request: pb.ListErasuresRequest, context: Context
    ) -> pb.ListErasuresResponse:
        """Return a page of erasures."""
        size = wire.page_size(request.page)
        found = await self._erasures.page(limit=size + 1, after=convert.place(request.page))
        rows, following = convert.cut(found, size, lambda row: (row.planned_at, row.erasure_id))
        return pb.ListErasuresResponse(
            erasures=map(convert.erasure, rows), next_page_token=following
        )

    async def ExportTable(
        self, request: pb.ExportTableRequest, context: Context
    ) -> AsyncIterator[pb.ExportTableResponse]:
        """Send a table from one snapshot, its header first."""
        async with self._exporter.read(request.table) as (header, portions):
            yield pb.ExportTableResponse(
                header=pb.ExportHeader(
                    columns=[
                        pb.ExportColumn(
                            name=column.name,
                            type=column.kind,
                            sum=str(header.sums[column.name]) if column.amount else "",
                        )
                        for column in header.columns
                    ],
                    rows=header.rows,
                )
            )
            async for rows in portions:
                yield pb.ExportTableResponse(rows=pb.ExportRows(json=rows))

    async def _who(self, message: OperatorMessage) -> model.Operator:
        name = wire.text(message.name, "operator.name")
        return await self._operators.identify(name, message.token)


def _invite_place(invite: Invite) -> convert.Key:
    return invite.created_at, invite.new.code
