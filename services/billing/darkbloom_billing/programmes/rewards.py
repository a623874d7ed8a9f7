"""How much a referral brings (spec/billing.md §13, "Better").

The share is paid on top of what the provider earns, so it must never come back to whoever spent:
only purchased money counts, and a request whose payer, payee and referrer are not three strangers
brings nothing. Two accounts can then move money between each other for ever without gaining any.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta

from darkbloom_billing.programmes.model import Caps, Paid, Reward, Spend

HOUR = timedelta(hours=1)
_PARTIES = 3


def qualifies(spend: Spend) -> bool:
    """Say whether a request counts: bought, and between three strangers."""
    strangers = len({spend.referrer_id, spend.payer_id, spend.payee_id}) == _PARTIES
    return spend.purchased_micros > 0 and strangers and not spend.linked


def share(spend: Spend, percent: int) -> int:
    """Return what one request brings, rounded down."""
    return spend.purchased_micros * percent // 100 if qualifies(spend) else 0


def reward(spends: Iterable[Spend], caps: Caps, paid: Paid, *, budget_micros: int) -> Reward | None:
    """Return what the requests of one hour bring one referrer; None where nothing counts.

    Args:
        spends: Requests of accounts that this referrer has brought.
        caps: What may be paid at most.
        paid: What was paid this month already.
        budget_micros: What the budget has left.
    """
    counted = [spend for spend in spends if qualifies(spend)]
    if not counted:
        return None
    earned = sum(share(spend, caps.share_percent) for spend in counted)
    left = min(
        budget_micros,
        caps.month_micros - paid.month_micros,
        caps.referrer_micros - paid.referrer_micros,
    )
    return Reward(
        requests=len(counted),
        qualifying_micros=sum(spend.purchased_micros for spend in counted),
        earned_micros=earned,
        paid_micros=max(0, min(earned, left)),
    )


def hour_of(at: datetime) -> datetime:
    """Return the beginning of the hour."""
    return at.replace(minute=0, second=0, microsecond=0)


def month_of(at: datetime) -> datetime:
    """Return the beginning of the calendar month."""
    return hour_of(at).replace(day=1, hour=0)
