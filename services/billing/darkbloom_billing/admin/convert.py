"""Operators' messages to values and back. Only InvalidArgumentError leaves."""

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from darkbloom.billing.v1 import operator_pb2, operator_service_pb2
from darkbloom.common.v1 import page_pb2
from darkbloom_mesh.errors import InvalidArgumentError

from darkbloom_billing import convert
from darkbloom_billing.admin import model
from darkbloom_billing.payments.model import Withdrawal
from darkbloom_billing.programmes.codes import invite_code
from darkbloom_billing.programmes.model import Invite, NewInvite

T = TypeVar("T")
Key = tuple[datetime, str]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_USES = 1_000_000
_ROLES = ("", "service")
_MAX_FEE = 100


def credit(message: operator_service_pb2.CreditAccountRequest) -> model.Credit:
    """Read money for an account."""
    kinds = {
        operator_service_pb2.CREDIT_KIND_PROMO: model.CreditKind.PROMO,
        operator_service_pb2.CREDIT_KIND_REWARD: model.CreditKind.REWARD,
    }
    kind = kinds.get(message.kind)
    if kind is None:
        raise InvalidArgumentError("must be promotional or a reward", "kind")
    return model.Credit(
        request_id=convert.token(message.request_id, "request_id"),
        account_id=convert.token(message.account_id, "account_id"),
        kind=kind,
        amount_micros=convert.between(
            message.amount_micros, 1, convert.MAX_MICROS, "amount_micros"
        ),
        note=convert.text(message.note, "note"),
    )


def change(message: operator_service_pb2.UpdateAccountRequest) -> model.AccountChange:
    """Read what to change about an account."""
    role = message.role if message.HasField("role") else None
    if role is not None and role not in _ROLES:
        raise InvalidArgumentError("must be empty or service", "role")
    fee = message.platform_fee_percent if message.HasField("platform_fee_percent") else None
    if fee is not None:
        convert.between(fee, -1, _MAX_FEE, "platform_fee_percent")
    frozen = message.frozen if message.HasField("frozen") else None
    return model.AccountChange(role=role, fee_percent=fee, frozen=frozen)


def new_invite(message: operator_service_pb2.CreateInviteRequest) -> NewInvite:
    """Read an invite to make; an empty code stays empty."""
    expires = message.expire_time if message.HasField("expire_time") else None
    return NewInvite(
        request_id=convert.token(message.request_id, "request_id"),
        code=invite_code(message.code) if message.code else "",
        amount_micros=convert.between(
            message.amount_micros, 1, convert.MAX_MICROS, "amount_micros"
        ),
        max_uses=convert.between(message.max_uses or 1, 1, _MAX_USES, "max_uses"),
        expires_at=convert.moment(expires, "expire_time") if expires is not None else None,
    )


def invite(value: Invite) -> operator_pb2.Invite:
    """Write an invite."""
    new = value.new
    return operator_pb2.Invite(
        code=new.code,
        amount_micros=new.amount_micros,
        max_uses=new.max_uses,
        used_count=value.used_count,
        active=value.active,
        expire_time=convert.timestamp(new.expires_at) if new.expires_at else None,
        create_time=convert.timestamp(value.created_at),
    )


def view(value: model.AccountView) -> operator_pb2.AccountView:
    """Write an account."""
    return operator_pb2.AccountView(
        account_id=value.account_id,
        display_name=value.display_name,
        role=value.role,
        create_time=convert.timestamp(value.created_at),
        promo_micros=value.promo_micros,
        credit_micros=value.credit_micros,
        earned_micros=value.earned_micros,
        held_micros=value.held_micros,
        maturing_micros=value.maturing_micros,
        debt_micros=value.debt_micros,
        frozen=value.frozen,
        platform_fee_percent=value.platform_fee_percent,
        active_keys=value.active_keys,
        machines=value.machines,
        erasure_state=value.erasure_state,
    )


def key(value: model.AccountKey) -> operator_service_pb2.AccountKey:
    """Write a key."""
    return operator_service_pb2.AccountKey(
        key_id=value.key_id,
        label=value.label,
        name=value.name,
        revoked=value.revoked,
        create_time=convert.timestamp(value.created_at),
    )


def withdrawal(value: Withdrawal) -> operator_service_pb2.ManualWithdrawal:
    """Write a withdrawal that waits, or waited, for a person."""
    return operator_service_pb2.ManualWithdrawal(
        withdrawal_id=value.withdrawal_id,
        account_id=value.account_id,
        stripe_account_id=value.stripe_account_id,
        net_micros=value.quote.net_micros,
        fee_micros=value.quote.fee_micros,
        status=value.status.value,
        failure_reason=value.failure_reason,
        create_time=convert.timestamp(value.created_at),
    )


def budget(value: model.Budget) -> operator_pb2.Budget:
    """Write a budget."""
    return operator_pb2.Budget(
        name=value.name,
        funded_micros=value.funded_micros,
        spent_micros=value.spent_micros,
        available_micros=value.available_micros,
    )


def funding(value: model.Funding) -> operator_pb2.BudgetFunding:
    """Write a proposal."""
    approved = value.approved_by is not None
    return operator_pb2.BudgetFunding(
        funding_id=value.funding_id,
        budget=value.budget,
        amount_micros=value.amount_micros,
        proposed_by=value.proposed_by,
        propose_time=convert.timestamp(value.proposed_at),
        approved_by=value.approved_by or "",
        approve_time=convert.timestamp(value.approved_at) if value.approved_at else None,
        state=(
            operator_pb2.FUNDING_STATE_APPROVED if approved else operator_pb2.FUNDING_STATE_PROPOSED
        ),
    )


def action(row: model.ActionRow) -> operator_pb2.OperatorAction:
    """Write a row of the audit."""
    value = row.action
    return operator_pb2.OperatorAction(
        action_id=row.action_id,
        operator=value.operator.name,
        source=value.operator.source.value,
        action=value.action,
        subject=value.subject,
        request_id=value.request_id,
        before_json=json.dumps(dict(value.before), sort_keys=True),
        after_json=json.dumps(dict(value.after), sort_keys=True),
        create_time=convert.timestamp(row.created_at),
    )


def erasure(value: model.Erasure) -> operator_pb2.Erasure:
    """Write an erasure."""
    return operator_pb2.Erasure(
        erasure_id=value.erasure_id,
        account_id=value.account_id,
        state=operator_pb2.ErasureState.Value(f"ERASURE_STATE_{value.state.name}"),
        rules=[
            operator_pb2.ErasureRule(rule=rule, rows=rows) for rule, rows in value.rules.items()
        ],
        balance_micros=value.balance_micros,
        open_withdrawals=value.open_withdrawals,
        held_micros=value.held_micros,
        forfeit=value.forfeit,
        plan_time=convert.timestamp(value.planned_at),
        scrub_after_time=convert.timestamp(value.scrub_after) if value.scrub_after else None,
        erase_time=convert.timestamp(value.erased_at) if value.erased_at else None,
        outbox=value.outbox,
    )


def place(request: page_pb2.PageRequest) -> Key | None:
    """Read where a page of things in time order begins; None: at the newest."""
    if not request.page_token:
        return None
    try:
        micros, _, last = base64.urlsafe_b64decode(request.page_token).decode().partition(":")
        at = _EPOCH + timedelta(microseconds=int(micros))
    except (binascii.Error, ValueError, OverflowError):
        raise InvalidArgumentError("page token is not one of ours", "page.page_token") from None
    return at, convert.text(last, "page.page_token")


def action_place(request: page_pb2.PageRequest) -> int | None:
    """Read where a page of the audit begins; None: at the newest row."""
    if not request.page_token:
        return None
    if not request.page_token.isascii() or not request.page_token.isdigit():
        raise InvalidArgumentError("page token is not one of ours", "page.page_token")
    return min(int(request.page_token[:19]), 2**63 - 1)


def cut(found: Sequence[T], size: int, key_of: Callable[[T], Key]) -> tuple[Sequence[T], str]:
    """Cut a page out of one thing more than it; return it and the token of the next."""
    if len(found) <= size:
        return found, ""
    at, last = key_of(found[size - 1])
    micros = (at - _EPOCH) // timedelta(microseconds=1)
    return found[:size], base64.urlsafe_b64encode(f"{micros}:{last}".encode()).decode()
