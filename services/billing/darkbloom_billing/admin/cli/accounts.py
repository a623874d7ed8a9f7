"""`darkbloom-admin accounts|keys`: look, change, freeze, revoke."""

from typing import Annotated

import typer
from darkbloom.billing.v1 import operator_service_pb2 as pb
from darkbloom.common.v1.page_pb2 import PageRequest

from darkbloom_billing.admin.cli.desk import CALL_S, DryRun, RequestId, desk, request_id

accounts = typer.Typer(no_args_is_help=True, help="Accounts: money, role, fee, freeze.")
keys = typer.Typer(no_args_is_help=True, help="API keys: labels only; secrets are never here.")
AccountId = Annotated[str, typer.Argument(help="acct_…, or an e-mail.")]
Page = Annotated[str, typer.Option("--page", help="`next_page_token` of the page before.")]
Size = Annotated[int, typer.Option("--limit", min=1, max=1000, help="Rows of a page.")]
_COLUMNS = (
    "account_id",
    "role",
    "promo_micros",
    "credit_micros",
    "earned_micros",
    "maturing_micros",
    "debt_micros",
    "frozen",
    "erasure_state",
)


@accounts.command("list")
def list_accounts(context: typer.Context, limit: Size = 50, page: Page = "") -> None:
    """List accounts, newest first."""
    d = desk(context)
    request = pb.ListAccountsRequest(page=PageRequest(page_size=limit, page_token=page))
    answer = d.call(lambda stubs: stubs.operators.ListAccounts(request, timeout=CALL_S))
    d.show(answer, *_COLUMNS, rows="accounts")


@accounts.command()
def show(context: typer.Context, account_id: AccountId) -> None:
    """Show one account: what can be spent, withdrawn, is held, matures, is owed."""
    d = desk(context)
    request = pb.GetAccountViewRequest(account_id=d.account(account_id))
    d.show(d.call(lambda stubs: stubs.operators.GetAccountView(request, timeout=CALL_S)))


@accounts.command()
def role(
    context: typer.Context,
    account_id: AccountId,
    new: Annotated[str, typer.Argument(metavar="ROLE", help="service, or none.")],
    *,
    request: RequestId = "",
    dry_run: DryRun = False,
) -> None:
    """Make an account a wholesale partner (`service`), or an ordinary one (`none`)."""
    word = "" if new == "none" else new
    _update(context, pb.UpdateAccountRequest(account_id=account_id, role=word), request, dry_run)


@accounts.command()
def fee(
    context: typer.Context,
    account_id: AccountId,
    percent: Annotated[int, typer.Argument(min=-1, max=100, help="-1: the platform's own.")],
    *,
    request: RequestId = "",
    dry_run: DryRun = False,
) -> None:
    """Override the platform's fee for what this account spends."""
    message = pb.UpdateAccountRequest(account_id=account_id, platform_fee_percent=percent)
    _update(context, message, request, dry_run)


@accounts.command()
def freeze(
    context: typer.Context,
    account_id: AccountId,
    *,
    off: Annotated[bool, typer.Option("--off", help="Let it spend and withdraw again.")] = False,
    request: RequestId = "",
    dry_run: DryRun = False,
) -> None:
    """Stop an account from spending and withdrawing; debt does so by itself."""
    message = pb.UpdateAccountRequest(account_id=account_id, frozen=not off)
    _update(context, message, request, dry_run)


def _update(
    context: typer.Context, message: pb.UpdateAccountRequest, request: str, dry_run: bool
) -> None:
    d = desk(context)
    message.request_id = request_id(request)
    message.account_id = d.account(message.account_id)
    if d.sent(message, dry_run=dry_run):
        message.operator.CopyFrom(d.operator)
        d.show(d.call(lambda stubs: stubs.operators.UpdateAccount(message, timeout=CALL_S)))


@keys.command("list")
def list_keys(context: typer.Context, account_id: AccountId) -> None:
    """List the keys of an account."""
    d = desk(context)
    request = pb.ListAccountKeysRequest(account_id=d.account(account_id))
    answer = d.call(lambda stubs: stubs.operators.ListAccountKeys(request, timeout=CALL_S))
    d.show(answer, "key_id", "label", "name", "revoked", "create_time", rows="keys")


@keys.command()
def revoke(
    context: typer.Context,
    key_id: Annotated[str, typer.Argument(help="key_…")],
    *,
    request: RequestId = "",
    dry_run: DryRun = False,
) -> None:
    """Revoke a key for ever; every gateway hears of it at once."""
    d = desk(context)
    message = pb.RevokeAccountKeyRequest(key_id=key_id, request_id=request_id(request))
    if d.sent(message, dry_run=dry_run):
        message.operator.CopyFrom(d.operator)
        d.show(d.call(lambda stubs: stubs.operators.RevokeAccountKey(message, timeout=CALL_S)))
