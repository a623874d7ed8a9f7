"""The words of billing as values. Money is integer micro-USD, prices micro-USD per 1M tokens."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceRow:
    """What tokens of one build cost; equal ids mean equal prices."""

    price_id: str
    build: str
    input_micros: int
    output_micros: int
    cache_read_micros: int
    minimum_charge_micros: int
    account_id: str = ""
    """Account whose machines serve at it; empty: the platform's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceVersion:
    """A price row and since when it is in force."""

    row: PriceRow
    effective_at: datetime
    sequence: int
    """Order of writing: of two rows with one time, the later written wins."""
    ended: bool = False
    """From then on there is no own price."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPrice:
    """A price to set."""

    request_id: str
    build: str
    input_micros: int
    output_micros: int
    cache_read_micros: int
    effective_at: datetime | None
    """None: from now on."""
    account_id: str = ""
    """Account whose machines serve at it; empty: the platform's."""
    cache_read_defaulted: bool = False
    """Nobody named the price of cached input."""

    def rates(self) -> PriceRow:
        """Return the rates as a row that is not written yet."""
        return PriceRow(
            price_id="",
            build=self.build,
            input_micros=self.input_micros,
            output_micros=self.output_micros,
            cache_read_micros=self.cache_read_micros,
            minimum_charge_micros=0,
            account_id=self.account_id,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """What a request may cost at most, and how far money reaches."""

    price: PriceRow
    amount_micros: int
    available_micros: int
    max_affordable_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldOrder:
    """The worst case of one request."""

    request_id: str
    account_id: str
    key_id: str
    """Empty: no key, no cap."""
    build: str
    prompt_bound: int
    output_bound: int
    requested_model: str
    fallback_build: str = ""
    """Build that may serve instead; empty: none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """Money reserved for one request."""

    request_id: str
    account_id: str
    amount_micros: int
    price: PriceRow
    expires_at: datetime
    prompt_bound: int
    output_bound: int


class HoldRefusal(StrEnum):
    """Why a hold was not placed or extended."""

    INSUFFICIENT_FUNDS = "insufficient_funds"
    KEY_CAP_REACHED = "key_cap_reached"
    KEY_REVOKED = "key_revoked"
    ACCOUNT_FROZEN = "account_frozen"
    HOLD_ENDED = "hold_ended"
    IDEMPOTENCY_CONFLICT = "idempotency_conflict"
    NOT_FOUND = "not_found"
    INVALID_ARGUMENT = "invalid_argument"


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldOutcome:
    """What became of one order: a hold, or a refusal with the reason."""

    request_id: str
    hold: Hold | None = None
    refusal: HoldRefusal | None = None
    required_micros: int = 0
    available_micros: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldFacts:
    """What a settlement is judged against, as the ledger has it."""

    account_id: str
    build: str
    prompt_bound: int
    output_bound: int
    prices: tuple[PriceRow, ...]
    """Snapshot of the hold, then of each extension."""
    amount_micros: int
    """Everything held, extensions included."""
    held_at: datetime
    payee: str | None
    """Account linked to the identity key asked about."""
    resolved: bool
    """The hold has ended."""
    fallback_build: str = ""
    """Build that may have served instead; empty: none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """A document and its signature, exactly as carried."""

    document: bytes
    signature: bytes
    key_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """What the edge itself could open, cumulative."""

    frames: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """What the router hands in at the end of a request."""

    request_id: str
    attempt_id: str
    verdict: Signed
    terminal: Signed | None
    opened: Opened
    price_id: str


class EndKind(StrEnum):
    """Which command ends a hold."""

    SETTLE = "settle"
    RELEASE = "release"
    SWEEP = "sweep"


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """One command to end a hold, ready for the ledger."""

    request_id: str
    kind: EndKind
    charge_micros: int
    payee: str
    """Account to credit; empty where nothing is charged."""
    body_hash: bytes
    """Equal hashes are the same settlement."""
    body: dict[str, str | int]
    """Facts of the end, stored with it."""


class EndStatus(StrEnum):
    """What became of one end."""

    SETTLED = "settled"
    RELEASED = "released"
    REPLAYED = "replayed"
    LATE = "late"
    REJECTED = "rejected"
    UNKNOWN = "unknown"


class Rejection(StrEnum):
    """Why a settlement does not count; the hold stands."""

    VERDICT_SIGNATURE = "verdict_signature"
    VERDICT_EXPIRED = "verdict_expired"
    ADMISSION = "admission"
    TERMINAL_SIGNATURE = "terminal_signature"
    IDS = "ids"
    BOUNDS = "bounds"
    PRICE = "price"
    UNLINKED = "unlinked"


@dataclass(frozen=True, slots=True, kw_only=True)
class EndOutcome:
    """What became of one settlement, release or sweep."""

    request_id: str
    status: EndStatus
    charge_micros: int = 0
    provider_credit_micros: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    rejection: Rejection | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Owner of money."""

    account_id: str
    display_name: str
    role: str
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKey:
    """An API key to create; only the hash of its secret is known here."""

    account_id: str
    key_hash: bytes
    label: str
    name: str
    allowed_models: tuple[str, ...]
    limit_micros: int | None
    rpm_limit: int | None
    expires_at: datetime | None
    limit_reset: str = "none"
    """When the limit's window ends: `none`, `daily`, `weekly` or `monthly`, UTC."""
    input_tpm_limit: int | None = None
    output_tpm_limit: int | None = None
    self_route_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """An API key."""

    key_id: str
    new: NewKey
    revoked: bool
    disabled: bool = False
    closing: bool = False
    """Its account is being deleted."""
    account_role: str
    created_at: datetime


class CapReset(StrEnum):
    """How long a key's limit counts before it starts anew, in UTC."""

    NONE = "none"
    """For the whole life of the key."""
    DAILY = "daily"
    """From midnight."""
    WEEKLY = "weekly"
    """From Monday."""
    MONTHLY = "monthly"
    """From the 1st."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySpend:
    """What one key has spent and may still spend."""

    key_id: str
    limit_micros: int | None
    """None: no limit; usage is then that of the key's whole life."""
    reset: CapReset
    window_start: datetime | None
    """None: the window has no beginning."""
    usage_micros: int
    """Settled in this window."""
    held_micros: int
    """In open holds of this window."""
    remaining_micros: int | None
    """None: no limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyChange:
    """One key changed, or everything of one account; None instead means forget everything."""

    generation: int
    key_id: str
    key_hash: bytes
    account_id: str = ""
    """Set where a whole account changed; then there is no key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderLink:
    """A machine and the account that it earns for."""

    identity_key: bytes
    account_id: str
    name: str
    linked_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """Money of one account."""

    promo_micros: int
    credit_micros: int
    earned_micros: int
    held_micros: int
    maturing_micros: int
    debt_micros: int
    frozen: bool
    """It owes, or an operator froze it."""

    @property
    def available_micros(self) -> int:
        """Everything that can be spent now."""
        return self.promo_micros + self.credit_micros + self.earned_micros


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageRow:
    """One settled request, for its consumer."""

    request_id: str
    attempt_id: str
    key_id: str
    model: str
    build: str
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    charge_micros: int
    outcome: str
    settled_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class EarningRow:
    """One settled request, for its provider."""

    request_id: str
    build: str
    amount_micros: int
    prompt_tokens: int
    completion_tokens: int
    identity_key: bytes
    settled_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """The last row of a page; rows come newest first."""

    settled_at: datetime
    request_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """A gateway's countersigned record of one request, checked."""

    request_id: str
    signed: Signed
    terminal_sha256: str
    """Empty where the answer broke before its terminal was verified."""
    attempt_id: str
    terminal: Signed | None
    """The provider's word; None where it is not just what the countersign names."""
    verdict: Signed | None
    identity_key: bytes
    free_account_id: str = ""
    """Whose, where nobody paid; a hold of the request says it better."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """A service's public Ed25519 key."""

    key_id: str
    public: bytes
    retired_at: datetime | None
