"""Names and values of the books: paths, legs, outcomes. Pure."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

Json: TypeAlias = "str | int | bool | Sequence[Json] | Mapping[str, Json] | None"

OWNER = "asset:owner:available"
STRIPE = "asset:stripe:platform"
DISPUTED = "asset:stripe:disputed"
PAYABLE = "platform:stripe_payable"
EQUITY = "platform:equity"
EXPENSE = "platform:stripe_fees"

_SHARDS = 16


class Budget(StrEnum):
    """Who pays for a programme."""

    PROMO = "promo"
    INVITE = "invite"
    REFERRAL = "referral"
    FEES = "fees"
    BASE = "base"

    @property
    def path(self) -> str:
        """Its account."""
        return f"platform:budget:{self.value}"


class Wallet(StrEnum):
    """Kinds of money of one account."""

    PROMO = "promo"
    CREDIT = "credit"
    EARNED = "earned"
    CHARGE = "charge"
    MATURING = "maturing"
    DISPUTED = "disputed"
    DEBT = "debt"

    def of(self, account_id: str) -> str:
        """Return the path of this wallet of an account."""
        return f"user:{account_id}:{self.value}"


class FeePayer(StrEnum):
    """Who bears a fee of Stripe: the consumer's own line of the deposit, or the fees budget."""

    LINE = "line"
    BUDGET = "budget"


class Source(StrEnum):
    """Whose money covers what is owed to Stripe."""

    STRIPE = "stripe"
    OWNER = "owner"

    @property
    def path(self) -> str:
        """Its account."""
        return STRIPE if self is Source.STRIPE else OWNER


def revenue(subject: str) -> str:
    """Return the revenue shard of a payment or withdrawal: always the same one for the same id."""
    return f"platform:fees:{zlib.crc32(subject.encode()) % _SHARDS:02d}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Leg:
    """One transfer to write; `pending_id` names what a post or void ends."""

    mode: str
    code: str
    debit: str
    credit: str
    amount: int
    pending_id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """A pending transfer that waits for its end."""

    id: int
    code: str
    debit: str
    credit: str
    amount: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Funded:
    """An unmatured earning, and how much of its charge a deposit paid, in micro-USD."""

    request_id: str
    account_id: str
    overlap: int
    charge: int
    free: int
    """What neither matured nor was lost nor is held by another dispute."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What a dispute holds, or takes, of one earning."""

    request_id: str
    account_id: str
    amount: int
    lost: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """What a lost dispute took of one earning and did not give back yet."""

    request_id: str
    account_id: str
    amount: int
    matured: bool
    """Whether what comes back is spendable at once, or waits with the rest of the earning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a command did. A replay says what it did the first time."""

    result: Mapping[str, int]
    """Amounts in micro-USD, by name; each command says which."""
    replayed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Wallets:
    """The money of one account, in micro-USD."""

    promo_micros: int
    credit_micros: int
    earned_micros: int
    held_micros: int
    """In open holds and withdrawals."""
    maturing_micros: int
    """Earned, not yet mature."""
    disputed_micros: int
    debt_micros: int
    frozen: bool
    """It owes, or an operator froze it: no spending, no withdrawing."""

    @property
    def balance_micros(self) -> int:
        """Everything that could be spent now."""
        return self.promo_micros + self.credit_micros + self.earned_micros


@dataclass(frozen=True, slots=True, kw_only=True)
class StripePosition:
    """What the books say about Stripe, in micro-USD."""

    asset_micros: int
    """What Stripe holds for us, withdrawals that wait included."""
    payable_micros: int
    """What we owe Stripe: its balance below zero."""
    disputed_micros: int
    """What Stripe took until disputes are decided."""

    @property
    def balance_micros(self) -> int:
        """What Stripe's own balance should be."""
        return self.asset_micros - self.payable_micros


@dataclass(slots=True, kw_only=True)
class Plan:
    """What a command will write."""

    legs: list[Leg] = field(default_factory=list)
    result: dict[str, int] = field(default_factory=dict)
    skipped: bool = False
    """There was nothing to do: no event is written."""
