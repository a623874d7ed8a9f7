"""How a withdrawal goes on. Pure: rows and answers in, decisions out.

The rule behind every branch: money that may have left stays reserved. It comes back only where the
very first call under a key was answered with a refusal, or where Stripe shows that it returned.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from darkbloom_billing.payments.model import (
    Fault,
    Method,
    PaidOut,
    Withdrawal,
    WithdrawalStatus,
)

GIVE_UP = timedelta(hours=12)
QUEUE_WAIT = timedelta(minutes=5)
OVERDUE = timedelta(hours=48)
_FIRST_WAIT = timedelta(seconds=30)
_LONGEST_WAIT = timedelta(minutes=30)
_SETTLED_WAIT = timedelta(hours=1)
MOST_PAYOUT_TRIES = 28
"""With the waits between them, half a day."""


class Step(StrEnum):
    """What to do next with a withdrawal."""

    TRANSFER = "transfer"
    PAYOUT = "payout"
    WATCH = "watch"
    GIVE_UP = "give_up"
    NONE = "none"


class Verdict(StrEnum):
    """What an answer means for the money."""

    KEEP = "keep"
    RETURN = "return"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The row after an answer, and what becomes of the money."""

    row: Withdrawal
    verdict: Verdict = Verdict.KEEP


def transfer_key(row: Withdrawal) -> str:
    """Return the idempotency key of the present attempt; a proven refusal begins a new one."""
    suffix = f"-{row.attempt}" if row.attempt else ""
    return f"wd-tr-{row.withdrawal_id}{suffix}"


def payout_key(row: Withdrawal) -> str:
    """Return the idempotency key of the instant payout."""
    return f"wd-po-{row.withdrawal_id}"


def next_step(row: Withdrawal, now: datetime) -> Step:
    """Say what a withdrawal needs now."""
    if row.status in {WithdrawalStatus.PENDING, WithdrawalStatus.QUEUED}:
        undecided = row.tries > 0 and now - row.created_at >= GIVE_UP
        return Step.GIVE_UP if undecided else Step.TRANSFER
    if row.status is WithdrawalStatus.TRANSFERRED:
        wants_payout = row.method is Method.INSTANT and not row.fee_waived and not row.payout_id
        return Step.PAYOUT if wants_payout else Step.WATCH
    return Step.NONE


def begun(row: Withdrawal, step: Step, now: datetime) -> Withdrawal:
    """Return the row as it must be written before a call is made."""
    if step is Step.PAYOUT:
        tries = row.payout_tries + 1
        return replace(row, payout_tries=tries, next_at=now + _wait(tries), updated_at=now)
    tries = row.tries + 1
    return replace(
        row,
        status=WithdrawalStatus.PENDING,
        tries=tries,
        next_at=now + _wait(tries),
        updated_at=now,
    )


def transferred(row: Withdrawal, transfer_id: str, payment: str, now: datetime) -> Withdrawal:
    """Return the row after Stripe said that the money is on the connected account."""
    return replace(
        row,
        status=WithdrawalStatus.TRANSFERRED,
        transfer_id=transfer_id,
        destination_payment=payment,
        next_at=now if row.method is Method.INSTANT else now + _SETTLED_WAIT,
        updated_at=now,
    )


def transfer_failed(row: Withdrawal, fault: Fault, word: str, now: datetime) -> Decision:
    """Decide after a transfer that did not succeed; `row` is the one of `begun`."""
    first = row.tries == 1
    if fault is Fault.UNKNOWN or not first:
        return Decision(row=replace(row, failure_reason=word, updated_at=now))
    if fault is Fault.NO_FUNDS:
        queued = replace(
            row,
            status=WithdrawalStatus.QUEUED,
            attempt=row.attempt + 1,
            tries=0,
            failure_reason=word,
            next_at=now + QUEUE_WAIT,
            updated_at=now,
        )
        return Decision(row=queued)
    return Decision(row=failed(row, word, now), verdict=Verdict.RETURN)


def paying_out(row: Withdrawal, payout: PaidOut, now: datetime) -> Withdrawal:
    """Return the row after its instant payout was made."""
    return replace(
        watched(row, now),
        payout_id=payout.payout_id,
        arrival_at=payout.arrival_at,
        failure_reason="",
    )


def payout_failed(row: Withdrawal, fault: Fault, word: str, now: datetime) -> Withdrawal:
    """Return the row after an instant payout that did not succeed: the fee goes, the money stays.

    The principal is on the connected account, whose own schedule delivers it.
    """
    if fault is Fault.UNKNOWN or row.payout_tries > 1:
        return replace(row, failure_reason=word, updated_at=now)
    return reopened(row, word, now, payout_id="")


def reopened(row: Withdrawal, word: str, now: datetime, *, payout_id: str) -> Withdrawal:
    """Return the row after its payout came to nothing; empty: it was never made."""
    return replace(
        row,
        status=WithdrawalStatus.TRANSFERRED,
        payout_id="",
        failed_payout_id=payout_id or row.failed_payout_id,
        fee_waived=row.fee_waived or row.method is Method.INSTANT,
        failure_reason=word,
        next_at=now + _SETTLED_WAIT,
        updated_at=now,
        arrival_at=None,
    )


def paid(row: Withdrawal, now: datetime) -> Withdrawal:
    """Return the row after the money arrived."""
    return replace(row, status=WithdrawalStatus.PAID, failure_reason="", updated_at=now)


def failed(row: Withdrawal, word: str, now: datetime) -> Withdrawal:
    """Return the row after the money came back."""
    return replace(
        row,
        status=WithdrawalStatus.FAILED,
        refunded=True,
        failure_reason=word,
        updated_at=now,
    )


def given_up(row: Withdrawal, now: datetime) -> Withdrawal:
    """Return the row after nobody could tell for too long."""
    return replace(row, status=WithdrawalStatus.MANUAL, updated_at=now)


def watched(row: Withdrawal, now: datetime) -> Withdrawal:
    """Return the row after a look that found nothing new."""
    return replace(row, next_at=now + _SETTLED_WAIT, updated_at=now)


def final(row: Withdrawal) -> bool:
    """Say whether nothing automatic happens any more."""
    return row.status in {WithdrawalStatus.PAID, WithdrawalStatus.FAILED, WithdrawalStatus.MANUAL}


def _wait(tries: int) -> timedelta:
    return min(_FIRST_WAIT * (1 << min(tries - 1, 10)), _LONGEST_WAIT)
