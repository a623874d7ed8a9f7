"""The words of operators as values. Money is integer micro-USD."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TypeAlias

Fact: TypeAlias = str | int | bool | None
"""What a row of the audit may hold: ids, words and amounts."""


class Source(StrEnum):
    """Through which door a command came."""

    HTTP = "http"
    CLI = "cli"
    DEVELOPMENT = "development"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """Who asks, as the audit names them."""

    name: str
    source: Source

    @property
    def registered(self) -> bool:
        """Whether a personal token, or development, proves who this is."""
        return self.source is not Source.HTTP


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One write of an operator, before it has a number."""

    operator: Operator
    action: str
    subject: str
    request_id: str
    before: Mapping[str, Fact]
    after: Mapping[str, Fact]


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionRow:
    """One row of the audit."""

    action_id: int
    action: Action
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountView:
    """An account with everything that an operator sees; nothing personal but its name."""

    account_id: str
    display_name: str
    role: str
    created_at: datetime
    promo_micros: int
    credit_micros: int
    earned_micros: int
    held_micros: int
    maturing_micros: int
    debt_micros: int
    frozen: bool
    platform_fee_percent: int | None
    active_keys: int
    machines: int
    erasure_state: str

    @property
    def available_micros(self) -> int:
        """Everything that can be spent now."""
        return self.promo_micros + self.credit_micros + self.earned_micros


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountChange:
    """What to change about an account; None keeps it."""

    role: str | None = None
    fee_percent: int | None = None
    """-1: back to the platform's."""
    frozen: bool | None = None


class CreditKind(StrEnum):
    """Where money of an operator goes."""

    PROMO = "credit"
    """Spendable."""
    REWARD = "reward"
    """Spendable and withdrawable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credit:
    """Money for an account, from a budget."""

    request_id: str
    account_id: str
    kind: CreditKind
    amount_micros: int
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountKey:
    """A key, as an operator sees it."""

    key_id: str
    label: str
    name: str
    revoked: bool
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What a programme may still spend."""

    name: str
    funded_micros: int
    spent_micros: int
    available_micros: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Funding:
    """Money proposed for a budget, or for the owner's capital."""

    funding_id: str
    request_id: str
    budget: str
    amount_micros: int
    proposed_by: str
    proposed_at: datetime
    approved_by: str | None
    approved_at: datetime | None


class ErasureState(StrEnum):
    """Where an erasure stands."""

    PLANNED = "planned"
    PENDING = "pending"
    ERASED = "erased"
    CANCELED = "canceled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasure:
    """An erasure; what it erased is not in it."""

    erasure_id: str
    account_id: str
    state: ErasureState
    rules: Mapping[str, int]
    """Rows by rule: as counted, or as erased."""
    balance_micros: int
    """Would be, or was, forfeited."""
    open_withdrawals: int
    held_micros: int
    forfeit: bool
    planned_at: datetime
    scrub_after: datetime | None
    erased_at: datetime | None
    outbox: int
