"""Claims about the machine: what it has signed itself, what Apple vouches for, what only we saw."""

from collections.abc import Iterator
from datetime import datetime

from darkbloom_edge.apple import AppleRejected
from darkbloom_edge.apple.app_attest import AppAttestPolicy, verify_attestation
from darkbloom_edge.apple.assertion import verify_assertion
from darkbloom_edge.apple.authenticator import Environment
from darkbloom_edge.apple.roots import AppleRoots
from darkbloom_edge.bundle import BundledEvidence, BundledProvider
from darkbloom_edge.challenge import DOMAIN, MAX_STATUS_BYTES
from darkbloom_edge.device_statement import (
    MAX_STATEMENT_BYTES,
    DeviceStatement,
    client_data_hash,
)
from darkbloom_edge.documents import decode_document, parse_rfc3339
from darkbloom_edge.errors import EdgeError, MalformedError
from darkbloom_edge.public_form import read_public_form
from darkbloom_edge.report import ATTESTATION, Claim
from darkbloom_edge.signatures import from_base64, parse_p256_public, to_base64, verify_p256_raw
from darkbloom_edge.strict_json import parse_json_object
from darkbloom_edge.verdict import Verdict

MACHINE = "the machine's own signature"
"""Backs only that the holder of the identity key says so."""
APPLE = "Apple's signature over the app's key"
"""Backs that an unmodified app of this App ID says so."""
_NAMES = ("machine_named", "registration_signed", "challenge_signed", "evidence_named")
_POSTURES = frozenset({"mda", "security_info"})


def evidence_claims(
    provider: BundledProvider | None,
    verdict: Verdict,
    *,
    roots: AppleRoots | None,
    app_id: str | None,
) -> Iterator[Claim]:
    """Say what is known of the machine that answered, and from whom.

    Args:
        provider: its entry on the attestation page.
        verdict: what the request was sealed under.
        roots: Apple's pinned roots; None checks nothing of Apple's.
        app_id: `<TeamID>.<bundle id>` of the app that is trusted; None checks nothing of Apple's.
    """
    if provider is None:
        for name in _NAMES:
            yield Claim(name, holds=None, detail="the bundle has no evidence", backed_by=MACHINE)
        yield from _asserted(verdict, [])
        return

    yield _named(provider, verdict)
    yield _registration(provider, verdict)
    yield _challenge(provider, verdict)
    yield _complete(provider, verdict)
    proofs = [piece for piece in provider.evidence if piece.kind == "app_attest"]
    for piece in proofs:
        yield _app_attest(piece, verdict, roots, app_id)
    if not proofs:
        detail = "nothing of Apple's vouches for the app or its keys"
        yield Claim("app_attested", holds=None, detail=detail, backed_by=APPLE)
    yield from _asserted(verdict, provider.evidence)


def _named(provider: BundledProvider, verdict: Verdict) -> Claim:
    same = (
        provider.provider_id == verdict.provider_id
        and to_base64(provider.encryption_key) == verdict.encryption_key
        and _same_key(provider.identity_key, verdict.identity_key)
    )
    detail = (
        f"the page names the verdict's machine, {verdict.provider_id}"
        if same
        else "the page names another machine, or other keys"
    )

    return Claim("machine_named", same, detail, ATTESTATION)


def _registration(provider: BundledProvider, verdict: Verdict) -> Claim:
    name = "registration_signed"
    piece = _find(provider, "registration")
    if piece is None or not piece.document:
        detail = "the machine has signed no public form"
        return Claim(name, holds=None, detail=detail, backed_by=MACHINE)

    try:
        form = read_public_form(piece.document, piece.signature)
    except EdgeError as error:
        return Claim(name, holds=False, detail=str(error), backed_by=MACHINE)
    same = form.encryption_public_key == verdict.encryption_key and _same_key(
        form.public_key, verdict.identity_key
    )
    detail = (
        f"says {form.hardware_model}, {form.chip_name}, of itself"
        if same
        else "names other keys than the verdict"
    )

    return Claim(name, same, detail, MACHINE)


def _challenge(provider: BundledProvider, verdict: Verdict) -> Claim:
    name = "challenge_signed"
    piece = _find(provider, "challenge")
    if piece is None or not piece.document:
        detail = "no challenge is shown"
        return Claim(name, holds=None, detail=detail, backed_by=MACHINE)

    try:
        verify_p256_raw(verdict.identity_key, piece.document, piece.signature)
        fields = parse_json_object(piece.document, max_bytes=MAX_STATUS_BYTES)
    except EdgeError as error:
        return Claim(name, holds=False, detail=str(error), backed_by=MACHINE)
    same = (fields.get("domain"), fields.get("provider_id"), fields.get("public_key")) == (
        DOMAIN,
        verdict.provider_id,
        verdict.encryption_key,
    )
    detail = (
        f"answered the challenge of {fields.get('timestamp')} with key and session of the verdict"
        if same
        else "is about another session or key"
    )

    return Claim(name, same, detail, MACHINE)


def _complete(provider: BundledProvider, verdict: Verdict) -> Claim:
    shown = {piece.id for piece in provider.evidence}
    missing = [name for name in verdict.evidence if name not in shown]
    if missing:
        detail = f"the page shows newer evidence than the verdict's {missing[0]}"
        return Claim("evidence_named", holds=None, detail=detail, backed_by=ATTESTATION)

    detail = "the page shows all evidence that the verdict names"
    return Claim("evidence_named", holds=True, detail=detail, backed_by=ATTESTATION)


def _app_attest(
    piece: BundledEvidence, verdict: Verdict, roots: AppleRoots | None, app_id: str | None
) -> Claim:
    name = "app_attested"
    if roots is None or app_id is None:
        return Claim(name, holds=None, detail="no app id was given", backed_by=APPLE)

    try:
        statement = proven_statement(piece, roots, app_id)
    except (AppleRejected, EdgeError, ValueError) as error:
        return Claim(name, holds=False, detail=str(error), backed_by=APPLE)
    same = (
        statement.provider_id == verdict.provider_id
        and statement.encryption_key == verdict.encryption_key
        and _same_key(statement.identity_key, verdict.identity_key)
    )
    detail = (
        f"app {app_id} {statement.app_version} holds the key that the request was sealed to"
        if same
        else "the app speaks of other keys"
    )

    return Claim(name, same, detail, APPLE)


def proven_statement(piece: BundledEvidence, roots: AppleRoots, app_id: str) -> DeviceStatement:
    """Check attestation and assertion; return what the app said with its key.

    The leaf lives for days, the key for months: the chain is checked for when the key was made.
    The statement that a key was made with is proven by the attestation; each later one needs an
    assertion.
    """
    made = decode_document(
        piece.attestation_document, DeviceStatement, max_bytes=MAX_STATEMENT_BYTES
    )
    policy = AppAttestPolicy.for_app(app_id, environment=Environment(piece.environment))
    key = verify_attestation(
        piece.attestation,
        key_id=to_base64(piece.key_id),
        client_data_hash=client_data_hash(piece.attestation_document),
        policy=policy,
        roots=roots,
        now=_time(made),
    )
    if piece.signature or piece.document != piece.attestation_document:
        verify_assertion(
            piece.signature,
            client_data_hash=client_data_hash(piece.document),
            public_key=key.public_key,
            app_id_hash=key.app_id_hash,
            previous_counter=0,
            launch_categories=policy.launch_categories,
        )

    return decode_document(piece.document, DeviceStatement, max_bytes=MAX_STATEMENT_BYTES)


def _asserted(verdict: Verdict, pieces: list[BundledEvidence]) -> Iterator[Claim]:
    """List what nobody but the operator has seen."""
    postures = sorted(piece.kind for piece in pieces if piece.kind in _POSTURES)
    if postures:
        detail = f"SIP and Secure Boot, by {', '.join(postures)}: shown to the operator only"
        yield Claim("posture", None, detail, ATTESTATION, asserted=True)
    else:
        detail = "nothing is said about SIP and Secure Boot that anybody has checked"
        yield Claim("posture", holds=None, detail=detail, backed_by=ATTESTATION)
    detail = f"{verdict.trust_level}, admitted as {verdict.admission}"
    yield Claim("trust_level", None, detail, ATTESTATION, asserted=True)


def _find(provider: BundledProvider, kind: str) -> BundledEvidence | None:
    return next((piece for piece in provider.evidence if piece.kind == kind), None)


def _same_key(one: bytes | str, other: str) -> bool:
    try:
        return parse_p256_public(one) == parse_p256_public(from_base64(other))
    except MalformedError:
        return False


def _time(statement: DeviceStatement) -> datetime:
    return parse_rfc3339(statement.timestamp, fraction=True)
