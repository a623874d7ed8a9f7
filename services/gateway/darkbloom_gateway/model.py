"""What the gateway knows about keys, models, prices and requests."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from darkbloom_gateway.buckets import Charge
from darkbloom_gateway.self_route import Route

MAX_BOUND = 1 << 24
"""Largest token bound that a hold accepts."""
ADMIN_ACCOUNT = "admin"
"""Account of the operator's key: a name for limits and audit, without money."""


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """An API key without its secret."""

    key_id: str
    account_id: str
    account_role: str = ""
    allowed_models: frozenset[str] = frozenset()
    """Empty: every model."""
    rpm_limit: int | None = None
    itpm_limit: int | None = None
    """Input tokens per minute."""
    otpm_limit: int | None = None
    """Output tokens per minute."""
    self_route_only: bool = False
    """Requests go to the account's own machines only."""
    expire_time: datetime | None = None

    def allows(self, requested_model: str) -> bool:
        """Whether the key may name this model; matched before any alias is resolved."""
        return not self.allowed_models or requested_model in self.allowed_models


class Refusal(StrEnum):
    """Why a credential does not count."""

    UNUSABLE = "unusable"
    """Unknown, revoked, disabled or expired."""
    CLOSING = "closing"
    """Its account is being deleted."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever presented a credential."""

    account_id: str
    """`ADMIN_ACCOUNT` for the operator's key, which has no account."""
    user_id: str = ""
    """Empty unless this is a login."""
    email: str = field(default="", repr=False)
    role: str = ""
    """Role of the account: empty or `service`."""
    key: KeyRecord | None = None
    """The API key; None for a login and for the operator."""
    is_admin: bool = False

    def allows(self, requested_model: str) -> bool:
        """Whether the caller may name this model; only a key narrows that."""
        return self.key is None or self.key.allows(requested_model)


@dataclass(frozen=True, slots=True)
class ProviderToken:
    """A machine's credential without its secret."""

    token_id: str
    account_id: str
    label: str
    machine_name: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Price:
    """Micro-USD per 1,000,000 tokens."""

    price_id: str
    build: str
    input_micros: int
    output_micros: int
    cache_read_micros: int
    minimum_charge_micros: int

    def dearer_than(self, other: "Price") -> bool:
        """Whether any request could cost more at this row than at the other."""
        return (
            self.input_micros > other.input_micros
            or self.output_micros > other.output_micros
            or self.cache_read_micros > other.cache_read_micros
            or self.minimum_charge_micros > other.minimum_charge_micros
        )


@dataclass(frozen=True, slots=True)
class Hold:
    """Money reserved for one request."""

    request_id: str
    price: Price
    amount_micros: int = 0


@dataclass(frozen=True, slots=True)
class HoldOrder:
    """What is to be reserved."""

    request_id: str
    account_id: str
    key_id: str
    build: str
    prompt_bound: int
    output_bound: int
    requested_model: str
    traceparent: str = ""
    """Trace of the request; empty for none."""
    fallback_build: str = ""
    """Build that may serve instead; empty for none."""


@dataclass(frozen=True, slots=True)
class HoldRefusal:
    """Why nothing was reserved."""

    reason: str
    """Name of the reason without its enum prefix, e.g. `INSUFFICIENT_FUNDS`."""
    required_micros: int
    available_micros: int


@dataclass(frozen=True, slots=True)
class SignedBytes:
    """A document exactly as signed, its signature and the key's id."""

    document: bytes
    signature: bytes
    key_id: str


@dataclass(frozen=True, slots=True)
class ProviderFacts:
    """What response headers say; the verdict, not these, is evidence."""

    chip_name: str = ""
    machine_model: str = ""


@dataclass(frozen=True, slots=True)
class Offer:
    """One provider is reserved for this request."""

    attempt_id: str
    stream: int
    verdict: SignedBytes
    price: Price | None
    build: str
    provider_id: str
    facts: ProviderFacts
    hedge: bool
    scripted: bool


@dataclass(frozen=True, slots=True)
class OpenedCounts:
    """Cumulative counts that this edge opened and checked."""

    frames: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """What one request needs, before anything was reserved for it."""

    account_id: str
    key_id: str
    requested_model: str
    build: str
    fallback_build: str
    prompt_bound: int
    output_bound: int
    prompt_estimate: int
    prompt_date: str
    counted: bool = False
    """Whether a tokenizer has counted the prompt; else bound and estimate are of its bytes."""
    tools: bool = False
    tool_choice_mode: str = ""
    parallel_tool_calls: bool = True
    json_schema: bool = False
    vision: bool = False
    """There are images or videos."""
    claim: Charge | None = None
    """What it takes of the rates; None where nothing limits it."""
    route: Route = Route.PUBLIC
    machine: str = ""
    """With self-route: the one that is wanted; empty for any."""
    prefix_hint: bytes = b""
    """Opaque keys of the prompt's prefixes; empty for none."""

    @property
    def free(self) -> bool:
        """Whether nobody pays, so that nothing is held."""
        return self.route is Route.SELF

    @property
    def constrains_tools(self) -> bool:
        """Whether the tool choice must be enforced by the engine, not only prompted for."""
        return self.tool_choice_mode in ("required", "named") or (
            self.tools and self.tool_choice_mode == "none"
        )


@dataclass(slots=True)
class Timing:
    """Microseconds spent per phase, for `X-Timing`."""

    parse_us: int = 0
    reserve_us: int = 0
    media_fetch_us: int | None = None
    """None where nothing was fetched, and then it is not said."""
    route_us: int = 0
    queue_us: int = 0
    encrypt_us: int = 0
    dispatch_us: int = 0
    provider_us: int = 0

    def as_json(self) -> bytes:
        """Write the header's value."""
        values = ((name, getattr(self, name)) for name in self.__slots__)
        pairs = (f'"{name}":{value}' for name, value in values if value is not None)
        return ("{" + ",".join(pairs) + "}").encode("ascii")


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything about the winner that goes into a receipt."""

    verdict: SignedBytes
    identity_key: bytes = field(repr=False)
