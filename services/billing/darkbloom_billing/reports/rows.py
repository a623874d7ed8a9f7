"""Rows of PostgreSQL as values."""

from collections.abc import Mapping
from typing import Any

from darkbloom_billing.model import UsageRow
from darkbloom_billing.reports.model import (
    DossierKey,
    MachineEarning,
    MachineWork,
    Movement,
    Wallets,
    Work,
)

Row = Mapping[str, Any]


def work(row: Row) -> Work:
    """Return sums; what an outer join found nothing for is 0."""
    return Work(
        work_micros=row["work"] or 0,
        reward_micros=row["reward"] or 0,
        prompt_tokens=row["prompt"] or 0,
        completion_tokens=row["completion"] or 0,
        jobs=row["jobs"] or 0,
    )


def wallets(row: Row) -> Wallets:
    """Return what an account has."""
    return Wallets(
        promo_micros=row["promo"],
        credit_micros=row["credit"],
        earned_micros=row["earned"],
        held_micros=row["held"],
        maturing_micros=row["maturing"],
        disputed_micros=row["disputed"],
        debt_micros=row["debt"],
        frozen=row["frozen"],
    )


def usage(row: Row) -> UsageRow:
    """Return a charged request."""
    return UsageRow(
        request_id=row["request_id"],
        attempt_id=row["attempt_id"],
        key_id=row["key_id"],
        model=row["model"],
        build=row["build"],
        prompt_tokens=row["prompt_tokens"],
        cached_tokens=row["cached_tokens"],
        completion_tokens=row["completion_tokens"],
        charge_micros=row["charge_micros"],
        outcome=row["outcome"],
        settled_at=row["settled_at"],
    )


def earning(row: Row) -> MachineEarning:
    """Return a paid request."""
    return MachineEarning(
        request_id=row["request_id"],
        build=row["build"],
        amount_micros=row["amount_micros"],
        prompt_tokens=row["prompt_tokens"],
        completion_tokens=row["completion_tokens"],
        identity_key=row["identity_key"],
        machine=row["machine"],
        settled_at=row["settled_at"],
    )


def machine(row: Row) -> MachineWork:
    """Return a machine and its work."""
    return MachineWork(
        identity_key=row["identity_key"],
        name=row["name"],
        linked_at=row["linked_at"],
        work=work(row),
    )


def key(row: Row) -> DossierKey:
    """Return an API key without its secret."""
    return DossierKey(
        key_id=row["key_id"],
        name=row["name"],
        label=row["label"],
        revoked=row["revoked"],
        created_at=row["created_at"],
    )


def movement(row: Row) -> Movement:
    """Return a posting with its transfer and event."""
    return Movement(
        wallet=row["wallet"],
        version=row["version"],
        transfer_id=row["transfer_id"],
        debit=row["debit"],
        mode=row["mode"],
        code=row["code"],
        debit_class=row["debit_class"],
        credit_class=row["credit_class"],
        amount=row["amount"],
        pending_amount=row["pending_amount"],
        debits=row["dr"],
        credits=row["cr"],
        pending_debits=row["dr_pend"],
        pending_credits=row["cr_pend"],
        idem_key=row["idem_key"],
        event_kind=row["kind"],
        occurred_at=row["occurred_at"],
    )
