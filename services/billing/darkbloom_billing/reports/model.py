"""The words of reports as values. Money is integer micro-USD."""

from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Sums of work and of what came without work."""

    work_micros: int = 0
    reward_micros: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    jobs: int = 0

    @property
    def earnings_micros(self) -> int:
        """Everything that was earned."""
        return self.work_micros + self.reward_micros

    @property
    def tokens(self) -> int:
        """Of prompts and completions."""
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: "Work") -> "Work":
        """Return the sum of both."""
        return Work(
            work_micros=self.work_micros + other.work_micros,
            reward_micros=self.reward_micros + other.reward_micros,
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            jobs=self.jobs + other.jobs,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Wallets:
    """What an account has free in each wallet, and what is not free."""

    promo_micros: int
    credit_micros: int
    earned_micros: int
    held_micros: int
    maturing_micros: int
    disputed_micros: int
    debt_micros: int
    frozen: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryFilter:
    """Which rows of a history; empty fields do not filter."""

    since: datetime | None = None
    until: datetime | None = None
    """Not included."""
    key_id: str = ""
    model: str = ""
    """Name as called, or build."""
    identity_key: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineEarning:
    """One paid request, for its provider."""

    request_id: str
    build: str
    amount_micros: int
    prompt_tokens: int
    completion_tokens: int
    identity_key: bytes
    machine: str
    settled_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Movement:
    """One posting of one wallet, as the ledger has it."""

    wallet: str
    version: int
    transfer_id: int
    debit: bool
    """The wallet was debited."""
    mode: str
    code: str
    debit_class: str
    credit_class: str
    amount: int
    pending_amount: int
    """Of the transfer that this one resolves; 0 where it resolves none."""
    debits: int
    credits: int
    pending_debits: int
    pending_credits: int
    idem_key: str
    event_kind: str
    occurred_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementEntry:
    """One movement in public words."""

    entry_id: str
    type: str
    wallet: str
    amount_micros: int
    free_micros: int
    held_micros: int
    settled_micros: int
    reference: str
    occurred_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineWork:
    """One machine and its work."""

    identity_key: bytes
    name: str
    linked_at: datetime | None
    """None: no link of it is left."""
    work: Work


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """One account's work."""

    lifetime: Work
    last_24h: Work
    last_7d: Work
    machines: tuple[MachineWork, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DayWork:
    """One UTC day's work of one machine on one build."""

    day: date
    build: str
    identity_key: bytes
    work: Work


@dataclass(frozen=True, slots=True, kw_only=True)
class MinuteWork:
    """One minute's work of everybody."""

    minute: datetime
    prompt_tokens: int
    completion_tokens: int
    jobs: int


class Metric(StrEnum):
    """What a board is sorted by."""

    EARNINGS = "earnings"
    TOKENS = "tokens"
    JOBS = "jobs"


class Window(StrEnum):
    """Which time a figure covers."""

    DAY = "24h"
    WEEK = "7d"
    MONTH = "30d"
    ALL = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """An account that may stand on a board."""

    account_id: str
    chosen_name: str
    """Empty: the pseudonym."""
    work: Work


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Everything that one window shows."""

    contenders: tuple[Contender, ...]
    """Best of each metric, in no order."""
    total: Work
    active_accounts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardEntry:
    """One place on a board."""

    rank: int
    name: str
    work: Work


@dataclass(frozen=True, slots=True, kw_only=True)
class DossierKey:
    """An API key without its secret."""

    key_id: str
    name: str
    label: str
    revoked: bool
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Dossier:
    """What is known about an account besides its histories."""

    account_id: str
    display_name: str
    role: str
    created_at: datetime
    keys: tuple[DossierKey, ...]
    machines: tuple[MachineWork, ...]
