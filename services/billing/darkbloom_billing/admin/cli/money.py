"""`darkbloom-admin credit|reward|prices|budgets|invites|withdrawals`."""

from datetime import UTC, datetime
from typing import Annotated

import typer
from darkbloom.billing.v1 import operator_service_pb2 as pb
from darkbloom.billing.v1 import payment_service_pb2
from darkbloom.common.v1.page_pb2 import PageRequest
from google.protobuf.timestamp_pb2 import Timestamp

from darkbloom_billing.admin.cli.accounts import AccountId, Page, Size
from darkbloom_billing.admin.cli.desk import (
    CALL_S,
    DryRun,
    RequestId,
    Usd,
    desk,
    micros,
    request_id,
)

prices = typer.Typer(no_args_is_help=True, help="Prices of the platform.")
budgets = typer.Typer(
    no_args_is_help=True,
    help="Budgets of programmes: one operator proposes, another one approves, then money moves.",
)
invites = typer.Typer(no_args_is_help=True, help="Invite codes.")
withdrawals = typer.Typer(
    no_args_is_help=True,
    help="Withdrawals. One of which nobody could tell for 12 hours whether it left waits for you: "
    "look for it at Stripe, then say what you found.",
)
Note = Annotated[str, typer.Option("--note", help="Kept beside the ledger; erasable.")]


def credit(
    context: typer.Context,
    account_id: AccountId,
    usd: Usd,
    *,
    note: Note = "",
    request: RequestId = "",
    dry_run: DryRun = False,
) -> None:
    """Give promotional credit: spendable, never withdrawable. Paid from the `promo` budget."""
    _credit(context, pb.CREDIT_KIND_PROMO, account_id, usd, note, request, dry_run=dry_run)


def reward(
    context: typer.Context,
    account_id: AccountId,
    usd: Usd,
    *,
    note: Note = "",
    request: RequestId = "",
    dry_run: DryRun = False,
) -> None:
    """Give a reward: spendable and withdrawable. Paid from the `promo` budget."""
    _credit(context, pb.CREDIT_KIND_REWARD, account_id, usd, note, request, dry_run=dry_run)


def _credit(
    context: typer.Context,
    kind: pb.CreditKind.ValueType,
    account_id: str,
    usd: str,
    note: str,
    request: str,
    *,
    dry_run: bool,
) -> None:
    d = desk(context)
    message = pb.CreditAccountRequest(
        request_id=request_id(request),
        account_id=d.account(account_id),
        kind=kind,
        amount_micros=micros(usd),
        note=note,
    )
    if d.sent(message, dry_run=dry_run):
        message.operator.CopyFrom(d.operator)
        d.show(d.call(lambda stubs: stubs.operators.CreditAccount(message, timeout=CALL_S)))


@prices.command("set")
def set_price(
    context: typer.Context,
    build: Annotated[str, typer.Argument(help="Id of a build.")],
    input_micros: Annotated[int, typer.Argument(min=1, help="Micro-USD per 1M prompt tokens.")],
    output_micros: Annotated[int, typer.Argument(min=1, help="Micro-USD per 1M output tokens.")],
    *,
    cache_read: Annotated[
        int, typer.Option(min=-1, help="Per 1M cached tokens; -1: half of the input price.")
    ] = -1,
    request: RequestId = "",
    dry_run: DryRun = False,
) -> None:
    """Set the platform's price of a build; running requests keep the row they began with."""
    d = desk(context)
    message = pb.SetPlatformPriceRequest(
        request_id=request_id(request),
        build=build,
        input_micros=input_micros,
        output_micros=output_micros,
        cache_read_micros=cache_read if cache_read >= 0 else None,
    )
    if d.sent(message, dry_run=dry_run):
        message.operator.CopyFrom(d.operator)
        d.show(d.call(lambda stubs: stubs.operators.SetPlatformPrice(message, timeout=CALL_S)))


@budgets.command("list")
def list_budgets(context: typer.Context) -> None:
    """Show what each programme may still spend, and the capital that no budget has."""
    d = desk(context)
    request = pb.ListBudgetsRequest()
    answer = d.call(lambda stubs: stubs.operators.ListBudgets(request, timeout=CALL_S))
    columns = ("name", "funded_micros", "spent_micros", "available_micros")
    d.show(answer, *columns, rows="budgets")


@budgets.command()
def fundings(context: typer.Context, limit: Size = 50, page: Page = "") -> None:
    """List proposals and what became of them, newest first."""
    d = desk(context)
    request = pb.ListBudgetsRequest(page=PageRequest(page_size=limit, page_token=page))
    answer = d.call(lambda stubs: stubs.operators.ListBudgets(request, timeout=CALL_S))
    columns = ("funding_id", "budget", "amount_micros", "state", "proposed_by", "approved_by")
    d.show(answer, *columns, rows="fundings")


@budgets.command()
def propose(
    context: typer.Context,
    budget: Annotated[str, typer.Argument(help="promo, invite, referral, fees, base, capital.")],
    usd: Usd,
    *,
    request: RequestId = "",
    dry_run: DryRun = False,
) -> None:
    """Ask for money for a budget; nothing moves until another operator approves.

    `capital` is the owner's own money coming in; budgets are paid from it.
    """
    d = desk(context)
    message = pb.ProposeFundingRequest(
        request_id=request_id(request), budget=budget, amount_micros=micros(usd)
    )
    if d.sent(message, dry_run=dry_run):
        message.operator.CopyFrom(d.operator)
        d.show(d.call(lambda stubs: stubs.operators.ProposeFunding(message, timeout=CALL_S)))


@budgets.command()
def approve(
    context: typer.Context,
    funding_id: Annotated[str, typer.Argument(help="fund_…, of another operator.")],
    *,
    dry_run: DryRun = False,
) -> None:
    """Move the money that another operator has proposed."""
    d = desk(context)
    message = pb.ApproveFundingRequest(funding_id=funding_id)
    if d.sent(message, dry_run=dry_run):
        message.operator.CopyFrom(d.operator)
        d.show(d.call(lambda stubs: stubs.operators.ApproveFunding(message, timeout=CALL_S)))


@invites.command("list")
def list_invites(context: typer.Context, limit: Size = 50, page: Page = "") -> None:
    """List invites, newest first."""
    d = desk(context)
    request = pb.ListInvitesRequest(page=PageRequest(page_size=limit, page_token=page))
    answer = d.call(lambda stubs: stubs.operators.ListInvites(request, timeout=CALL_S))
    columns = ("code", "amount_micros", "used_count", "max_uses", "active", "expire_time")
    d.show(answer, *columns, rows="invites")


@invites.command()
def create(
    context: typer.Context,
    usd: Usd,
    *,
    code: Annotated[str, typer.Option(help="Made up where you give none: INV-….")] = "",
    max_uses: Annotated[int, typer.Option(min=1, help="By different accounts.")] = 1,
    expires: Annotated[
        datetime | None, typer.Option(help="UTC; from then on it pays nobody.")
    ] = None,
    request: RequestId = "",
    dry_run: DryRun = False,
) -> None:
    """Make an invite; each use is paid from the `invite` budget as promotional credit."""
    d = desk(context)
    message = pb.CreateInviteRequest(
        request_id=request_id(request), code=code, amount_micros=micros(usd), max_uses=max_uses
    )
    if expires is not None:
        stamp = Timestamp()
        stamp.FromDatetime(expires.replace(tzinfo=UTC))
        message.expire_time.CopyFrom(stamp)
    if d.sent(message, dry_run=dry_run):
        message.operator.CopyFrom(d.operator)
        d.show(d.call(lambda stubs: stubs.operators.CreateInvite(message, timeout=CALL_S)))


@invites.command()
def deactivate(
    context: typer.Context,
    code: Annotated[str, typer.Argument(help="Upper and lower case are the same.")],
    *,
    request: RequestId = "",
    dry_run: DryRun = False,
) -> None:
    """Stop an invite; what was redeemed stays."""
    d = desk(context)
    message = pb.DeactivateInviteRequest(code=code, request_id=request_id(request))
    if d.sent(message, dry_run=dry_run):
        message.operator.CopyFrom(d.operator)
        d.show(d.call(lambda stubs: stubs.operators.DeactivateInvite(message, timeout=CALL_S)))


@withdrawals.command("list")
def list_withdrawals(
    context: typer.Context, account_id: AccountId, limit: Size = 50, page: Page = ""
) -> None:
    """List the withdrawals of an account, newest first."""
    d = desk(context)
    request = payment_service_pb2.ListWithdrawalsRequest(
        account_id=d.account(account_id), page=PageRequest(page_size=limit, page_token=page)
    )
    answer = d.call(lambda stubs: stubs.payments.ListWithdrawals(request, timeout=CALL_S))
    columns = ("withdrawal_id", "status", "net_micros", "fee_micros", "transfer_id", "create_time")
    d.show(answer, *columns, rows="withdrawals")


@withdrawals.command()
def manual(context: typer.Context) -> None:
    """List withdrawals that wait for a person, oldest first."""
    d = desk(context)
    request = pb.ListManualWithdrawalsRequest()
    answer = d.call(lambda stubs: stubs.operators.ListManualWithdrawals(request, timeout=CALL_S))
    columns = ("withdrawal_id", "account_id", "stripe_account_id", "net_micros", "create_time")
    d.show(answer, *columns, rows="withdrawals")


@withdrawals.command()
def resolve(
    context: typer.Context,
    withdrawal_id: Annotated[str, typer.Argument(help="wd_…")],
    *,
    left: Annotated[str, typer.Option("--left", help="tr_… of the transfer that left.")] = "",
    refused: Annotated[
        str, typer.Option("--refused", help="req_… of the request that Stripe refused.")
    ] = "",
    dry_run: DryRun = False,
) -> None:
    """Say whether the money left, with the evidence; the books follow, once."""
    if bool(left) == bool(refused):
        raise typer.BadParameter("either --left or --refused")
    d = desk(context)
    message = pb.ResolveWithdrawalRequest(
        withdrawal_id=withdrawal_id, left=bool(left), evidence=left or refused
    )
    if d.sent(message, dry_run=dry_run):
        message.operator.CopyFrom(d.operator)
        d.show(d.call(lambda stubs: stubs.operators.ResolveWithdrawal(message, timeout=CALL_S)))
