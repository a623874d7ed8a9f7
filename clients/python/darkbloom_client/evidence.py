"""Whether what a machine shows proves what the policy asks; pure, by our own clock."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from darkbloom_edge.apple import AppleRejected
from darkbloom_edge.bundle import BundledEvidence, BundledProvider, BundledSigned
from darkbloom_edge.documents import parse_rfc3339
from darkbloom_edge.errors import EdgeError, MalformedError, RejectReason, SignatureRejected
from darkbloom_edge.evidence_claims import evidence_claims, proven_statement
from darkbloom_edge.report import Claim
from darkbloom_edge.signatures import from_base64, parse_p256_public
from darkbloom_edge.strict_json import parse_json_object
from darkbloom_edge.verdict import Verdict, lifetime_of, trust_level_rank, verify_verdict

from darkbloom_client.policy import MAX_SKEW, Policy
from darkbloom_client.refusal import Reason, RefusedError

_MACHINE_SIGNED = ("registration_signed", "challenge_signed")
_MAX_STATUS_BYTES = 65_536
_REJECTED = {
    RejectReason.UNKNOWN_KEY: (Reason.VERDICT_UNPINNED, "a pinned key", "another key"),
    RejectReason.EXPIRED: (Reason.VERDICT_EXPIRED, "a verdict in force", "one past its time"),
    RejectReason.NOT_YET_VALID: (Reason.VERDICT_EXPIRED, "a verdict in force", "one to come"),
}


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine that satisfies the policy, at one moment."""

    verdict: Verdict
    signed: BundledSigned
    encryption_key: bytes
    """K, 32 bytes: the only key that is ever sealed to."""
    identity_key: bytes
    """Signs terminals, 65 bytes."""
    apple: bool
    """Whether Apple vouches for it."""


def check_verdict(signed: BundledSigned, policy: Policy, now: datetime) -> Verdict:
    """Check what attestation says, before anything else is asked about it.

    Raises:
        RefusedError: not signed by a pinned key, not in force, too old, or below the policy.
    """
    keys = policy.pins.verdict_keys
    try:
        verdict = verify_verdict(signed.document, signed.signature, signed.key_id, keys, now)
        issued, _ = lifetime_of(verdict)
    except SignatureRejected as error:
        reason, expected, found = _REJECTED.get(
            error.reason, (Reason.VERDICT_FORGED, "a signature that holds", error.reason.value)
        )
        raise RefusedError(reason, expected=expected, found=found) from None
    except EdgeError:
        raise RefusedError(
            Reason.VERDICT_FORGED, expected="a verdict", found="something else"
        ) from None

    _check_age(issued, "verdict", policy.max_age, now)
    _check_level(verdict, policy)
    allowed = policy.allowed_releases
    if allowed is not None and verdict.code_release not in allowed:
        raise RefusedError(
            Reason.RELEASE_NOT_ALLOWED,
            expected="a release of the policy's list",
            found=verdict.code_release,
        )

    return verdict


def check_machine(
    provider: BundledProvider | None,
    verdict: Verdict,
    signed: BundledSigned,
    policy: Policy,
    now: datetime,
) -> Machine:
    """Check raw evidence against a verdict that `check_verdict` has passed.

    The operator's word is never looked at: neither posture nor level as the page tells them.

    Raises:
        RefusedError: missing, forged, stale, or about another machine.
    """
    roots = policy.apple if policy.app_id is not None else None
    claims = list(evidence_claims(provider, verdict, roots=roots, app_id=policy.app_id))
    lenient = policy.allow_unattested
    named = _claim(claims, "machine_named")
    if named.holds is False:
        raise RefusedError(
            Reason.KEY_SWAPPED, expected="evidence of the verdict's machine", found=named.detail
        )
    for name in _MACHINE_SIGNED:
        claim = _claim(claims, name)
        if claim.holds is False:
            raise RefusedError(
                Reason.EVIDENCE_FORGED, expected=f"{name} to hold", found=claim.detail
            )
        if claim.holds is None and not lenient:
            raise RefusedError(Reason.EVIDENCE_MISSING, expected=name, found=claim.detail)
    if provider is not None:
        for asked in _challenge_times(provider):
            _check_age(asked, "challenge", policy.max_age, now)

    apple = any(claim.name == "app_attested" and claim.holds for claim in claims)
    if policy.needs_apple:
        _require_apple(provider, verdict, claims, policy, now)
    elif any(claim.name == "app_attested" and claim.holds is False for claim in claims) and not (
        apple
    ):
        _refuse_apple(claims)

    try:
        return Machine(
            verdict,
            signed,
            encryption_key=from_base64(verdict.encryption_key),
            identity_key=parse_p256_public(verdict.identity_key),
            apple=apple,
        )
    except MalformedError:
        raise RefusedError(
            Reason.VERDICT_FORGED, expected="usable keys", found="something else"
        ) from None


def _check_level(verdict: Verdict, policy: Policy) -> None:
    found = f"{verdict.trust_level}, admitted as {verdict.admission}"
    if policy.allow_unattested:
        return
    if trust_level_rank(verdict.trust_level) < trust_level_rank(policy.trust):
        raise RefusedError(Reason.TRUST_TOO_LOW, expected=policy.trust, found=found)
    if verdict.admission != "public":
        raise RefusedError(Reason.TRUST_TOO_LOW, expected="admitted to the public", found=found)


def _require_apple(
    provider: BundledProvider | None,
    verdict: Verdict,
    claims: list[Claim],
    policy: Policy,
    now: datetime,
) -> None:
    """Demand one statement of an app that Apple vouches for, about these keys, and fresh."""
    proofs = [] if provider is None else [p for p in provider.evidence if p.kind == "app_attest"]
    stale: RefusedError | None = None
    for piece in proofs:
        asked = _proven_time(piece, verdict, policy)
        if asked is None:
            continue
        try:
            _check_age(asked, "app attest statement", policy.max_age, now)
        except RefusedError as error:
            stale = error
            continue
        return
    if stale is not None:
        raise stale

    _refuse_apple(claims)


def _refuse_apple(claims: list[Claim]) -> None:
    """Refuse for what is wrong with Apple's part."""
    worst = next((c for c in claims if c.name == "app_attested" and c.holds is False), None)
    if worst is not None:
        raise RefusedError(
            Reason.EVIDENCE_FORGED,
            expected="an app that Apple vouches for to name this key",
            found=worst.detail,
        )
    raise RefusedError(
        Reason.EVIDENCE_MISSING,
        expected="an app that Apple vouches for",
        found="nothing that leads to Apple's root",
    )


def _proven_time(piece: BundledEvidence, verdict: Verdict, policy: Policy) -> datetime | None:
    """Return when a piece was asked for, if Apple vouches for it and it is about this verdict."""
    try:
        statement = proven_statement(piece, policy.apple, policy.app_id or "")
        same = (
            statement.provider_id == verdict.provider_id
            and statement.encryption_key == verdict.encryption_key
            and parse_p256_public(from_base64(statement.identity_key))
            == parse_p256_public(from_base64(verdict.identity_key))
        )
        return parse_rfc3339(statement.timestamp, fraction=True) if same else None
    except (AppleRejected, EdgeError, ValueError):
        return None


def _challenge_times(provider: BundledProvider) -> Iterator[datetime]:
    """Return when each shown challenge was asked; their signatures were checked before."""
    for piece in provider.evidence:
        if piece.kind != "challenge" or not piece.document:
            continue
        try:
            fields = parse_json_object(piece.document, max_bytes=_MAX_STATUS_BYTES)
            yield parse_rfc3339(str(fields.get("timestamp")), fraction=True)
        except MalformedError:
            raise RefusedError(
                Reason.EVIDENCE_FORGED, expected="a challenge with its time", found="none"
            ) from None


def _check_age(observed: datetime, what: str, max_age: timedelta, now: datetime) -> None:
    age = now - observed
    if age > max_age or age < -MAX_SKEW:
        raise RefusedError(
            Reason.EVIDENCE_STALE,
            expected=f"a {what} of at most {int(max_age.total_seconds())} s",
            found=f"one of {int(age.total_seconds())} s",
        )


def _claim(claims: list[Claim], name: str) -> Claim:
    return next(claim for claim in claims if claim.name == name)
