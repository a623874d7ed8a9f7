"""The words of programmes as values. Money is integer micro-USD."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class NewInvite:
    """An invite to make."""

    request_id: str
    code: str
    amount_micros: int
    max_uses: int
    expires_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Invite:
    """An invite as it stands."""

    new: NewInvite
    used_count: int
    active: bool
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Redeemed:
    """What an invite paid."""

    credited_micros: int
    balance_micros: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferralView:
    """An account's side of the programme."""

    code: str
    """Empty: not registered."""
    referred_by: str
    """Code of the referrer; empty: none."""
    referred_count: int
    qualifying_micros: int
    reward_micros: int
    maturing_micros: int
    next_mature_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Spend:
    """One request of a referred account that may count."""

    request_id: str
    referrer_id: str
    payer_id: str
    payee_id: str
    purchased_micros: int
    """The part of its charge that came out of purchased credit."""
    linked: bool
    """Whether any two of the three share an account, device, card or bank."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caps:
    """What may be paid at most."""

    share_percent: int
    month_micros: int
    """To everybody, per calendar month (UTC)."""
    referrer_micros: int
    """To one referrer, per calendar month (UTC)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Paid:
    """What was paid this month, before this hour."""

    month_micros: int
    referrer_micros: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reward:
    """What one hour brings one referrer."""

    requests: int
    qualifying_micros: int
    earned_micros: int
    paid_micros: int
