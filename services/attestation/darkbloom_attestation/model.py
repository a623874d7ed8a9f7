"""The nouns of attestation: sessions, challenges, verdicts, revocations, releases, keys."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum

from darkbloom_edge.verdict import Admission, TrustLevel

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Hashes of the code that a provider says it runs."""

    python_hash: str
    runtime_hash: str
    template_hashes: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeFinding:
    """One measured component that is not blessed."""

    component: str
    expected: str
    got: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Presented:
    """What a provider presented at registration, as received."""

    provider_id: str
    """The session: one provider stream."""
    blob: bytes = field(repr=False)
    signature: bytes = field(repr=False)
    encryption_key: bytes
    """K as registered."""
    version: str
    backend: str
    measured: Measured
    owner_account_id: str
    """Empty when the identity is linked to no account."""
    public_signature: bytes = field(default=b"", repr=False)
    """Of the provider over the blob's public form; empty from one that signs none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """A registration and what it was found to be worth; never changes."""

    registration_id: str
    presented: Presented
    accepted: bool
    trust_level: TrustLevel
    """What a challenge can confirm."""
    findings: tuple[str, ...]
    identity_key: bytes
    """65 bytes; empty when the blob could not be read."""
    binary_hash: str | None
    create_time: datetime
    serial_hash: bytes = b""
    """Hash of the serial that the blob claims; empty where it claims none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a session stands; the only part of it that changes."""

    failures: int = 0
    """Consecutive failed challenges."""
    timeouts: int = 0
    """Consecutive unanswered challenges."""
    untrusted: str = ""
    """Why it is untrusted for good; empty while it is not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One provider stream, from its registration to its end."""

    registration: Registration
    standing: Standing


class ChallengeState(StrEnum):
    """Life of a challenge; it is judged at most once."""

    PENDING = "pending"
    SUPERSEDED = "superseded"
    TIMEOUT = "timeout"
    EXPIRED = "expired"
    PASSED = "passed"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedChallenge:
    """A challenge as it was made."""

    challenge_id: str
    provider_id: str
    nonce: str
    timestamp: str
    """As it travels and is signed."""
    create_time: datetime
    expire_time: datetime
    state: ChallengeState = ChallengeState.PENDING


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What became of a challenge."""

    state: ChallengeState
    time: datetime
    status: bytes = b""
    signature: bytes = b""
    findings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """A document and its signature, exactly as they travel."""

    document: bytes
    signature: bytes
    key_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedVerdict:
    """A verdict as it was signed."""

    verdict_id: str
    provider_id: str
    code_release: str
    signed: Signed
    trust_level: TrustLevel
    admission: Admission
    issue_time: datetime
    expire_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedRevocation:
    """A revocation as it was signed; the store gives it its generation."""

    revocation_id: str
    verdict_id: str
    reason: str
    signed: Signed
    issue_time: datetime


class ViolationKind(StrEnum):
    """What an edge can see a provider do."""

    UNOPENABLE = "unopenable"
    HEADER = "header"
    COUNTS = "counts"
    TERMINAL = "terminal"
    DELTA = "delta"
    CREDIT = "credit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """One report of a broken envelope or a lie."""

    report_id: str
    provider_id: str
    attempt_id: str
    kind: ViolationKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """To how many machines a release is offered as an update; routing does not ask."""

    percent: int = 100
    """One of `rings.STEPS`."""
    held: str = ""
    """Why it is offered to nobody; empty while it is offered."""
    step_time: datetime = _EPOCH
    """When the step began, or was resumed; the epoch where there were no rings yet."""


class OfferAction(StrEnum):
    """What became of an offer."""

    BEGUN = "begun"
    WIDENED = "widened"
    HELD = "held"
    RESUMED = "resumed"


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferChange:
    """One change of an offer, for the record."""

    code_release: str
    time: datetime
    actor: str
    action: OfferAction
    percent: int
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeRelease:
    """A blessed tree of code."""

    code_release: str
    """`sha256:` and the runtime hash."""
    version: str
    platform: str
    measured: Measured
    development: bool
    active: bool
    create_time: datetime
    staged: bool = False
    """Registered, and not blessed yet."""
    manifest: Signed | None = None
    """What the operator has signed; None for a development tree."""
    offer: Offer = Offer()
    """How far it is offered once it is active."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicKey:
    """A public Ed25519 key and its life."""

    key_id: str
    public_key: bytes
    create_time: datetime
    retire_time: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptKey:
    """A gateway's key."""

    key: PublicKey
    gateway: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Exhibit:
    """What of a session may be shown: its registration, last passed answer, newest verdict."""

    registration: Registration
    challenge_id: str
    """Empty before the first pass."""
    passed: Judged | None
    verdict: IssuedVerdict | None
    """In force; None where there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedEntry:
    """One leaf of the transparency log."""

    index: int
    body: bytes
    """Canonical JSON, the bytes that the leaf hash covers."""
