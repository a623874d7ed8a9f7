"""Challenges: a provider proves that it still is who it was, and reports how it stands.

One signature over the canonical status is enough, because it contains nonce and time. The domain
and the provider id are signed too, so that nothing signed here can be used anywhere else.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta

from darkbloom_edge.documents import convert_document, parse_rfc3339
from darkbloom_edge.errors import MalformedError, SignatureRejected
from darkbloom_edge.signatures import IdentitySigner, to_base64, verify_p256_raw
from darkbloom_edge.status import canonical_status
from darkbloom_edge.strict_json import parse_json_object

DOMAIN = "darkbloom:challenge:v1"
"""The domain inside every status."""
MAX_STATUS_BYTES = 65_536
"""Largest status that is read."""
MAX_AGE = timedelta(seconds=35)
"""An answer may take 30 s, and 5 s of transport."""
MAX_SKEW = timedelta(minutes=2)
"""How far in the future a challenge may have been made, for clocks that differ."""

Text = Annotated[str, Meta(max_length=1024)]
Hashes = Annotated[dict[Text, Text], Meta(max_length=1024)]


class Challenge(NamedTuple):
    """What a provider was asked."""

    nonce: str
    """32 random bytes in base64."""
    timestamp: str
    """RFC 3339, UTC."""
    provider_id: str
    """The session that was asked."""


class StatusReport(msgspec.Struct, frozen=True, kw_only=True):
    """How a provider stands, measured; None is what was not measured."""

    public_key: Text
    """K in base64."""
    sip_enabled: bool | None = None
    secure_boot_enabled: bool | None = None
    rdma_disabled: bool | None = None
    binary_hash: Text | None = None
    metallib_hash: Text | None = None
    runtime_capabilities: Annotated[list[Text], Meta(max_length=64)] | None = None
    """What the runtime can do, as in the registration."""
    active_model_hash: Text | None = None
    python_hash: Text | None = None
    runtime_hash: Text | None = None
    template_hashes: Hashes | None = None
    model_hashes: Hashes | None = None
    """Weight hash by build."""


class Severity(StrEnum):
    """What a finding leads to."""

    RECORDED = "recorded"
    """Nothing but a lower level."""
    STRIKE = "strike"
    """Unroutable until the next pass; three in a row untrust."""
    UNTRUST = "untrust"
    """Untrusted at once, for this connection."""


class ChallengeFault(StrEnum):
    """What is wrong with an answer."""

    MALFORMED = "malformed"
    WRONG_DOMAIN = "wrong_domain"
    WRONG_PROVIDER = "wrong_provider"
    NONCE_MISMATCH = "nonce_mismatch"
    STALE = "stale"
    PUBLIC_KEY_MISMATCH = "public_key_mismatch"
    EMPTY_SIGNATURE = "empty_signature"
    SIGNATURE_FAILED = "signature_failed"
    SIP_NOT_REPORTED = "sip_not_reported"
    SIP_DISABLED = "sip_disabled"
    SECURE_BOOT_NOT_REPORTED = "secure_boot_not_reported"
    SECURE_BOOT_DISABLED = "secure_boot_disabled"
    RDMA_NOT_REPORTED = "rdma_not_reported"
    BINARY_HASH_MISMATCH = "binary_hash_mismatch"
    METALLIB_HASH_MISMATCH = "metallib_hash_mismatch"
    CAPABILITIES_MISMATCH = "capabilities_mismatch"
    WEIGHT_HASH_MISMATCH = "weight_hash_mismatch"


class ChallengeFinding(NamedTuple):
    """One thing that is wrong, and what follows."""

    code: ChallengeFault
    severity: Severity


@dataclass(frozen=True, slots=True)
class Expected:
    """What is known about the provider that was asked."""

    challenge: Challenge
    identity_key: bytes
    """The key of its registration, never one out of the answer."""
    encryption_key: bytes
    """K as registered, 32 bytes."""
    posture_required: bool
    """Whether it claims more than `none`; at `none` posture is recorded, and never untrusts."""
    binary_hash: str | None = None
    """As registered."""
    known_binaries: Collection[str] | None = None
    """Hashes of known code; None where that is not enforced."""
    metallib_hash: str | None = None
    """As registered."""
    runtime_capabilities: Collection[str] | None = None
    """As registered; None where the registration named none."""
    model_hashes: Mapping[str, str] | None = None
    """Accepted weight hash by build; builds that are not in here are not compared."""


@dataclass(frozen=True, slots=True)
class ChallengeOutcome:
    """The judgement of one answer."""

    findings: tuple[ChallengeFinding, ...]
    """Everything that is wrong, in the order of the checks."""
    report: StatusReport | None = None
    """What was reported; only where the signature is good."""

    @property
    def passed(self) -> bool:
        """Whether nothing but recorded posture is wrong."""
        recorded = all(finding.severity is Severity.RECORDED for finding in self.findings)

        return self.report is not None and recorded

    @property
    def untrust(self) -> bool:
        """Whether the provider is untrusted at once."""
        return any(finding.severity is Severity.UNTRUST for finding in self.findings)

    @property
    def posture_clean(self) -> bool:
        """Whether the posture supports a level above `none`."""
        return self.report is not None and not self.findings


def new_challenge(entropy: bytes, timestamp: str, provider_id: str) -> Challenge:
    """Make a challenge out of 32 random bytes.

    Raises:
        MalformedError: not 32 bytes.
    """
    if len(entropy) != len(bytes(32)):
        raise MalformedError("a challenge nonce has 32 bytes")

    return Challenge(to_base64(entropy), timestamp, provider_id)


def answer_challenge(
    challenge: Challenge, report: StatusReport, signer: IdentitySigner
) -> tuple[bytes, bytes]:
    """Return (status, DER signature): the provider's answer."""
    status = challenge_status(challenge, report)

    return status, signer.sign_raw(status)


def challenge_status(challenge: Challenge, report: StatusReport) -> bytes:
    """Return the canonical status that answers a challenge."""
    fields: dict[str, Any] = msgspec.to_builtins(report)

    return canonical_status({**fields, **challenge._asdict(), "domain": DOMAIN})


def verify_challenge(
    status: bytes, signature: bytes, expected: Expected, now: datetime
) -> ChallengeOutcome:
    """Judge an answer over the exact bytes received; never raises on bad input."""
    if not signature:
        return _failed(ChallengeFault.EMPTY_SIGNATURE)
    try:
        verify_p256_raw(expected.identity_key, status, signature)
    except SignatureRejected:
        return _failed(ChallengeFault.SIGNATURE_FAILED)

    try:
        fields = parse_json_object(status, max_bytes=MAX_STATUS_BYTES)
        report = convert_document(fields, StatusReport)
        canonical = canonical_status(fields) == status
    except MalformedError:
        return _failed(ChallengeFault.MALFORMED)
    if not canonical:
        return _failed(ChallengeFault.MALFORMED)

    findings = (
        *_check_binding(fields, report, expected, now),
        *_check_posture(report, required=expected.posture_required),
        *_check_hashes(report, expected),
    )

    return ChallengeOutcome(findings, report)


def _failed(code: ChallengeFault) -> ChallengeOutcome:
    return ChallengeOutcome((ChallengeFinding(code, Severity.STRIKE),))


def _check_binding(
    fields: dict[str, Any], report: StatusReport, expected: Expected, now: datetime
) -> Iterator[ChallengeFinding]:
    challenge = expected.challenge
    rows = (
        (fields.get("domain") == DOMAIN, ChallengeFault.WRONG_DOMAIN),
        (fields.get("provider_id") == challenge.provider_id, ChallengeFault.WRONG_PROVIDER),
        (
            (fields.get("nonce"), fields.get("timestamp"))
            == (challenge.nonce, challenge.timestamp),
            ChallengeFault.NONCE_MISMATCH,
        ),
        (_in_time(challenge.timestamp, now), ChallengeFault.STALE),
        (
            report.public_key == to_base64(expected.encryption_key),
            ChallengeFault.PUBLIC_KEY_MISMATCH,
        ),
    )
    for holds, fault in rows:
        if not holds:
            yield ChallengeFinding(fault, Severity.STRIKE)


def _in_time(timestamp: str, now: datetime) -> bool:
    try:
        asked = parse_rfc3339(timestamp, fraction=True)
    except MalformedError:
        return False

    return -MAX_SKEW <= now - asked <= MAX_AGE


def _check_posture(report: StatusReport, *, required: bool) -> Iterator[ChallengeFinding]:
    missing = Severity.STRIKE if required else Severity.RECORDED
    bad = Severity.UNTRUST if required else Severity.RECORDED
    if report.sip_enabled is None:
        yield ChallengeFinding(ChallengeFault.SIP_NOT_REPORTED, missing)
    if report.sip_enabled is False:
        yield ChallengeFinding(ChallengeFault.SIP_DISABLED, bad)
    if report.secure_boot_enabled is None:
        yield ChallengeFinding(ChallengeFault.SECURE_BOOT_NOT_REPORTED, missing)
    if report.secure_boot_enabled is False:
        yield ChallengeFinding(ChallengeFault.SECURE_BOOT_DISABLED, bad)
    # The value of rdma_disabled is informational, only its absence is a fault.
    if report.rdma_disabled is None:
        yield ChallengeFinding(ChallengeFault.RDMA_NOT_REPORTED, missing)


def _check_hashes(report: StatusReport, expected: Expected) -> Iterator[ChallengeFinding]:
    same_binary = expected.binary_hash is None or report.binary_hash == expected.binary_hash
    known = expected.known_binaries
    if not same_binary or (known is not None and report.binary_hash not in known):
        yield ChallengeFinding(ChallengeFault.BINARY_HASH_MISMATCH, Severity.UNTRUST)
    if expected.metallib_hash is not None and report.metallib_hash != expected.metallib_hash:
        yield ChallengeFinding(ChallengeFault.METALLIB_HASH_MISMATCH, Severity.UNTRUST)
    if _capabilities_differ(report, expected):
        yield ChallengeFinding(ChallengeFault.CAPABILITIES_MISMATCH, Severity.UNTRUST)

    accepted = expected.model_hashes or {}
    reported = report.model_hashes or {}
    changed = any(reported.get(build, value) != value for build, value in accepted.items())
    active = report.active_model_hash
    strange = bool(accepted) and active is not None and active not in accepted.values()
    if changed or strange:
        yield ChallengeFinding(ChallengeFault.WEIGHT_HASH_MISMATCH, Severity.UNTRUST)


def _capabilities_differ(report: StatusReport, expected: Expected) -> bool:
    reported = report.runtime_capabilities

    # Not to mention them changes nothing; to mention others does.
    return reported is not None and set(reported) != set(expected.runtime_capabilities or ())
