"""The words of payments as values. Money is integer micro-USD; Stripe's is integer cents."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

CENT_MICROS = 10_000
MIN_DEPOSIT_MICROS = 500_000
MIN_WITHDRAW_MICROS = 1_000_000
INSTANT_FEE_BPS = 150
INSTANT_FEE_MIN_MICROS = 500_000


class EventSource(StrEnum):
    """Which endpoint an event came to."""

    PAYMENTS = "payments"
    TRANSFERS = "transfers"
    ACCOUNTS = "accounts"


@dataclass(frozen=True, slots=True, kw_only=True)
class StripeEvent:
    """What one webhook says, without what we do not need."""

    event_id: str
    kind: str
    object_id: str
    """Id of the object that it is about."""
    stripe_account: str
    """Connected account; empty for the platform."""
    facts: dict[str, str]
    """Other ids of the object: charge, payment intent, session of ours."""
    payload_hash: bytes
    happened_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingEvent:
    """An event that has yet to act."""

    event: StripeEvent
    source: EventSource
    tries: int
    received_at: datetime


class SessionKind(StrEnum):
    """What a session is for."""

    DEPOSIT = "deposit"
    AUTO = "auto"
    SETUP = "setup"


class SessionStatus(StrEnum):
    """How far a session is."""

    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    EXPIRED = "expired"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSession:
    """A session to write down before Stripe hears of it."""

    session_id: str
    account_id: str
    request_id: str
    kind: SessionKind
    amount_micros: int
    line_micros: int
    """What the consumer pays on top for Stripe's fee."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A Checkout session, or an automatic top-up."""

    new: NewSession
    external_id: str
    """Stripe's id; empty until it answered."""
    url: str
    status: SessionStatus
    payment_intent: str
    charge_id: str
    created_at: datetime
    completed_at: datetime | None

    @property
    def total_cents(self) -> int:
        """What Stripe is to collect."""
        return (self.new.amount_micros + self.new.line_micros) // CENT_MICROS


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A card that paid or was saved."""

    payment_method: str
    brand: str
    last4: str
    fingerprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Payment:
    """What Stripe says of a payment, read when it was needed."""

    payment_intent: str
    status: str
    amount_cents: int
    currency: str
    session_id: str
    """Our session's id, from the metadata."""
    charge_id: str
    fee_transaction: str
    """Balance transaction of the charge; empty while there is none."""
    fee_cents: int
    card: Card | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkout:
    """What Stripe says of a Checkout session."""

    external_id: str
    session_id: str
    """Our session's id, from the metadata."""
    account_id: str
    mode: str
    status: str
    payment_status: str
    amount_cents: int
    currency: str
    payment_intent: str
    setup_intent: str
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refund:
    """One refund of a charge."""

    refund_id: str
    amount_cents: int
    status: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DisputeMove:
    """A balance transaction of a dispute."""

    transaction: str
    amount_cents: int
    """Below zero: taken."""
    fee_cents: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispute:
    """What Stripe says of a dispute."""

    dispute_id: str
    charge_id: str
    session_id: str
    """Ours, as the charge says it; empty: none."""
    amount_cents: int
    status: str
    moves: tuple[DisputeMove, ...]


class DisputeState(StrEnum):
    """How far we booked a dispute."""

    OPEN = "open"
    WON = "won"
    LOST = "lost"


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedCard:
    """Customer at Stripe, and the card that may be charged without its holder."""

    customer_id: str
    payment_method: str
    """Empty: no card."""
    brand: str
    last4: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoTopUp:
    """When and how much to pay in by itself."""

    enabled: bool
    threshold_micros: int
    amount_micros: int
    monthly_cap_micros: int
    disabled_reason: str = ""


class AccountStatus(StrEnum):
    """Whether a connected account can be paid out to."""

    PENDING = "pending"
    READY = "ready"
    RESTRICTED = "restricted"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True, kw_only=True)
class Connected:
    """What Stripe says of a connected account."""

    stripe_account_id: str
    status: AccountStatus
    country: str
    destination_type: str
    """`bank`, `card` or empty."""
    destination_last4: str
    fingerprint: str
    """Of the destination; empty without one."""
    instant_eligible: bool
    currently_due: tuple[str, ...]
    manual_payouts: bool
    """Nothing would be paid out by schedule."""
    agreement_fits: bool
    """It has the service agreement of its country; Stripe lets nobody change it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PayoutAccount:
    """The connected account of an account, as mirrored."""

    stripe_account_id: str
    account_id: str
    status: AccountStatus
    country: str
    destination_type: str
    destination_last4: str
    instant_eligible: bool
    currently_due: tuple[str, ...]


class Method(StrEnum):
    """How fast a withdrawal arrives."""

    STANDARD = "standard"
    INSTANT = "instant"


class WithdrawalStatus(StrEnum):
    """How far a withdrawal is."""

    PENDING = "pending"
    QUEUED = "queued"
    TRANSFERRED = "transferred"
    PAID = "paid"
    FAILED = "failed"
    MANUAL = "manual_reconciliation_required"


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """What a withdrawal costs and delivers, in micro-USD."""

    amount_micros: int
    fee_micros: int
    net_micros: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawal:
    """One withdrawal; what has a default is so until something was tried."""

    withdrawal_id: str
    account_id: str
    request_id: str
    stripe_account_id: str
    quote: Quote
    method: Method
    status: WithdrawalStatus = WithdrawalStatus.PENDING
    attempt: int = 0
    tries: int = 0
    payout_tries: int = 0
    transfer_id: str = ""
    destination_payment: str = ""
    payout_id: str = ""
    failed_payout_id: str = ""
    """A payout that came to nothing; its money is on the connected account again."""
    fee_waived: bool = False
    posted: bool = False
    refunded: bool = False
    failure_reason: str = ""
    next_at: datetime
    created_at: datetime
    updated_at: datetime
    arrival_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """A transfer that Stripe made."""

    transfer_id: str
    destination_payment: str
    """The same money on the connected account: what a payout is traced by."""
    reversed_cents: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PaidOut:
    """A payout of a connected account."""

    payout_id: str
    status: str
    automatic: bool
    arrival_at: datetime | None
    withdrawal_id: str = ""
    """Ours, where we asked for it; empty: Stripe's schedule did."""


class Fault(StrEnum):
    """What a failed call to the rail proves."""

    UNKNOWN = "unknown"
    """Nothing: it may have happened."""
    REFUSED = "refused"
    """It did not happen and will not."""
    NO_FUNDS = "no_funds"
    """It did not happen for lack of money at the platform."""
    GONE = "gone"
    """It did not happen: the connected account is not there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """Stripe's balance beside ours."""

    checked_at: datetime
    stripe_micros: int
    book_micros: int
    open_items: tuple[dict[str, str | int], ...]
    unexplained_micros: int
