"""Messages of payments to values and back."""

import base64
import binascii
import re
from datetime import UTC, datetime, timedelta

from darkbloom.billing.v1 import payment_service_pb2 as pb
from darkbloom.common.v1 import page_pb2
from darkbloom_mesh.errors import InvalidArgumentError

from darkbloom_billing import convert
from darkbloom_billing.model import Cursor
from darkbloom_billing.payments.model import (
    AutoTopUp,
    EventSource,
    Method,
    PayoutAccount,
    SavedCard,
    Session,
    Withdrawal,
)

_SOURCES = {
    pb.EVENT_SOURCE_PAYMENTS: EventSource.PAYMENTS,
    pb.EVENT_SOURCE_TRANSFERS: EventSource.TRANSFERS,
    pb.EVENT_SOURCE_ACCOUNTS: EventSource.ACCOUNTS,
}
_METHODS = {
    pb.WITHDRAWAL_METHOD_STANDARD: Method.STANDARD,
    pb.WITHDRAWAL_METHOD_INSTANT: Method.INSTANT,
}
_METHODS_BACK = {value: name for name, value in _METHODS.items()}
_COUNTRY = 2
_PAGE_TOKEN = re.compile(r"(\d{1,18}):(wd_[0-9a-f]{32})")


def source(value: pb.EventSource.ValueType) -> EventSource:
    """Read which endpoint an event came to."""
    if value not in _SOURCES:
        raise InvalidArgumentError("names no endpoint", "source")
    return _SOURCES[value]


def method(value: pb.WithdrawalMethod.ValueType) -> Method:
    """Read how fast a withdrawal should be."""
    if value not in _METHODS:
        raise InvalidArgumentError("must be standard or instant", "method")
    return _METHODS[value]


def country(value: str) -> str:
    """Read a country code, or nothing."""
    if value and not (len(value) == _COUNTRY and value.isascii() and value.isalpha()):
        raise InvalidArgumentError("must be two letters", "country")
    return value.upper()


def wanted(request: pb.SetAutoTopUpRequest) -> AutoTopUp:
    """Read settings; whether they make sense is for the domain."""
    return AutoTopUp(
        enabled=request.enabled,
        threshold_micros=request.threshold_micros,
        amount_micros=request.amount_micros,
        monthly_cap_micros=request.monthly_cap_micros,
    )


def deposit(session: Session) -> pb.Deposit:
    """Write a session."""
    message = pb.Deposit(
        session_id=session.new.session_id,
        stripe_session=session.external_id,
        url=session.url,
        amount_micros=session.new.amount_micros,
        fee_micros=session.new.line_micros,
        status=pb.DepositStatus.Value(f"DEPOSIT_STATUS_{session.status.name}"),
        create_time=convert.timestamp(session.created_at),
    )
    if session.completed_at is not None:
        message.complete_time.CopyFrom(convert.timestamp(session.completed_at))
    return message


def auto_top_up(settings: AutoTopUp | None, card: SavedCard | None, month: int) -> pb.AutoTopUp:
    """Write settings and card."""
    message = pb.AutoTopUp(month_micros=month)
    if settings is not None:
        message.enabled = settings.enabled
        message.threshold_micros = settings.threshold_micros
        message.amount_micros = settings.amount_micros
        message.monthly_cap_micros = settings.monthly_cap_micros
        message.disabled_reason = settings.disabled_reason
    if card is not None and card.payment_method:
        message.card_brand = card.brand
        message.card_last4 = card.last4
    return message


def payout_account(account: PayoutAccount | None) -> pb.PayoutAccount:
    """Write a connected account; none is an empty message."""
    if account is None:
        return pb.PayoutAccount()
    return pb.PayoutAccount(
        stripe_account_id=account.stripe_account_id,
        status=account.status.value,
        destination_type=account.destination_type,
        destination_last4=account.destination_last4,
        instant_eligible=account.instant_eligible,
        currently_due=account.currently_due,
        country=account.country,
    )


def withdrawal(row: Withdrawal) -> pb.Withdrawal:
    """Write a withdrawal."""
    message = pb.Withdrawal(
        withdrawal_id=row.withdrawal_id,
        account_id=row.account_id,
        stripe_account_id=row.stripe_account_id,
        transfer_id=row.transfer_id,
        payout_id=row.payout_id,
        amount_micros=row.quote.amount_micros,
        fee_micros=row.quote.fee_micros,
        net_micros=row.quote.net_micros,
        method=_METHODS_BACK[row.method],
        status=pb.WithdrawalStatus.Value(f"WITHDRAWAL_STATUS_{row.status.name}"),
        failure_reason=row.failure_reason,
        refunded=row.refunded,
        create_time=convert.timestamp(row.created_at),
        update_time=convert.timestamp(row.updated_at),
    )
    if row.arrival_at is not None:
        message.arrival_time.CopyFrom(convert.timestamp(row.arrival_at))
    return message


def read_cursor(request: page_pb2.PageRequest) -> Cursor | None:
    """Read where a page of withdrawals begins; None: at the newest."""
    if not request.page_token:
        return None
    try:
        text = base64.urlsafe_b64decode(request.page_token).decode("ascii")
    except (binascii.Error, ValueError):
        text = ""
    found = _PAGE_TOKEN.fullmatch(text)
    if found is None:
        raise InvalidArgumentError("page token is not one of ours", "page.page_token")
    try:
        at = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=int(found[1]))
    except OverflowError:
        raise InvalidArgumentError("page token is not one of ours", "page.page_token") from None
    return Cursor(settled_at=at, request_id=found[2])


def cursor(row: Withdrawal) -> Cursor:
    """Return where a page of withdrawals ended."""
    return Cursor(settled_at=row.created_at, request_id=row.withdrawal_id)
