"""Protobuf to attestation's nouns and back; pure and total."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Literal, cast, get_args

from darkbloom.attestation.v1 import attestation_pb2
from darkbloom.attestation.v1 import attestation_service_pb2 as pb
from darkbloom.common.v1 import price_pb2
from darkbloom.registry.v1.catalog_pb2 import Catalog
from darkbloom_edge.challenge import MAX_STATUS_BYTES
from darkbloom_edge.documents import rfc3339
from darkbloom_edge.errors import MalformedError
from darkbloom_edge.ids import id_bytes
from darkbloom_edge.log import CatalogEntry, EntryKind, LoggedBuild
from darkbloom_edge.release import MAX_MANIFEST_BYTES
from darkbloom_edge.signatures import ED25519_BYTES, ed25519_key_id
from darkbloom_mesh.errors import InvalidArgumentError
from google.protobuf.timestamp_pb2 import Timestamp

from darkbloom_attestation.feed import Heartbeat, Revoked, Synced
from darkbloom_attestation.judgement import Judgement
from darkbloom_attestation.model import (
    CodeRelease,
    Exhibit,
    Measured,
    Presented,
    PublicKey,
    ReceiptKey,
    Registration,
    RuntimeFinding,
    Signed,
    Violation,
    ViolationKind,
)
from darkbloom_attestation.publishing import Backing, Shown

MAX_EVIDENCE_BYTES = MAX_STATUS_BYTES
"""Most bytes of a blob or a status that are kept; no honest one comes near."""
MAX_SIGNATURE_BYTES = 256
"""Largest signature that is taken in."""
MAX_SESSIONS = 256
"""Most sessions of one question."""
MAX_HASHES = 256
"""Most templates or builds of one provider."""

_MAX_WORD = 256
_MAX_SUBJECT = 1100
_KINDS = {kind.value: kind for kind in ViolationKind}
_BACKINGS = {
    Backing.STRANGER: attestation_pb2.EVIDENCE_BACKING_STRANGER,
    Backing.OPERATOR_ASSERTED: attestation_pb2.EVIDENCE_BACKING_OPERATOR_ASSERTED,
}
_OLDEST = datetime(2000, 1, 1, tzinfo=UTC)


def presented_from(request: pb.EvaluateRegistrationRequest) -> Presented:
    """Read what a provider presented.

    Bad evidence passes through. What is absurdly long is cut, and then verifies no more.

    Raises:
        InvalidArgumentError: the session's id is none, or there are too many template hashes.
    """
    if len(request.template_hashes) > MAX_HASHES:
        raise InvalidArgumentError(f"more than {MAX_HASHES} entries", "template_hashes")

    return Presented(
        provider_id=provider_id_from(request.provider_id),
        blob=request.attestation_blob[:MAX_EVIDENCE_BYTES],
        signature=request.attestation_signature[:MAX_SIGNATURE_BYTES],
        encryption_key=request.encryption_key[:MAX_SIGNATURE_BYTES],
        version=_claim(request.version),
        backend=_claim(request.backend),
        measured=Measured(
            python_hash=_claim(request.python_hash),
            runtime_hash=_claim(request.runtime_hash),
            template_hashes={
                _claim(name): _claim(value) for name, value in request.template_hashes.items()
            },
        ),
        owner_account_id=_word(request.owner_account_id, "owner_account_id"),
        public_signature=request.public_signature[:MAX_SIGNATURE_BYTES],
    )


def session_ids_from(names: Sequence[str]) -> list[str]:
    """Read ids of sessions to look up.

    Raises:
        InvalidArgumentError: too many, or one is none.
    """
    if len(names) > MAX_SESSIONS:
        raise InvalidArgumentError(f"more than {MAX_SESSIONS} entries", "provider_ids")

    return [provider_id_from(name) for name in names]


def exhibit_to(exhibit: Exhibit, shown: Iterable[Shown]) -> pb.ProviderEvidence:
    """Write what everybody may see of one session."""
    message = pb.ProviderEvidence(
        provider_id=exhibit.registration.presented.provider_id, evidence=map(_shown_to, shown)
    )
    verdict = exhibit.verdict
    if verdict is not None:
        message.verdict_id = verdict.verdict_id
        message.trust_level = verdict.trust_level
        message.verdict.CopyFrom(signed_to(verdict.signed))

    return message


def registration_to(
    registration: Registration, runtime: tuple[RuntimeFinding, ...]
) -> pb.EvaluateRegistrationResponse:
    """Write what was found."""
    return pb.EvaluateRegistrationResponse(
        accepted=registration.accepted,
        trust_level=registration.trust_level,
        findings=registration.findings,
        identity_key=registration.identity_key,
        runtime_verified=not runtime,
        runtime_findings=map(_finding_to, runtime),
    )


def judgement_to(judgement: Judgement) -> pb.VerifyChallengeResponse:
    """Write a judgement, with its verdict if it has one."""
    response = pb.VerifyChallengeResponse(
        passed=judgement.passed,
        failure=judgement.failure,
        untrust=judgement.untrust,
        trust_level=judgement.trust_level,
        runtime_verified=judgement.passed and not judgement.runtime_findings,
        runtime_findings=map(_finding_to, judgement.runtime_findings),
        trust_reasons=[
            attestation_pb2.TrustReason.Value(f"TRUST_REASON_{reason.value.upper()}")
            for reason in judgement.reasons
        ],
        evidence_findings=judgement.evidence_findings,
    )
    verdict = judgement.verdict
    if verdict is not None:
        response.verdict.CopyFrom(signed_to(verdict.signed))
        response.verdict_id = verdict.verdict_id
        response.admission = verdict.admission
        response.expire_time.CopyFrom(timestamp(verdict.expire_time))

    return response


def violation_from(request: pb.ReportViolationRequest) -> Violation:
    """Read a report.

    Raises:
        InvalidArgumentError: an id is missing, or the kind is not a known word.
    """
    kind = _KINDS.get(request.kind)
    if kind is None:
        raise InvalidArgumentError("not a known kind", "kind")
    if not request.report_id:
        raise InvalidArgumentError("required", "report_id")

    return Violation(
        report_id=_word(request.report_id, "report_id"),
        provider_id=provider_id_from(request.provider_id),
        attempt_id=_word(request.attempt_id, "attempt_id"),
        kind=kind,
    )


def event_to(event: Revoked | Synced | Heartbeat) -> pb.WatchRevocationsResponse:
    """Write one event of a watch."""
    response = pb.WatchRevocationsResponse(generation=event.generation)
    match event:
        case Revoked():
            response.revocation.CopyFrom(signed_to(event.revocation.signed))
        case Synced():
            response.synced.SetInParent()
        case Heartbeat():
            response.heartbeat.SetInParent()

    return response


def signed_to(signed: Signed) -> price_pb2.SignedDocument:
    """Write a signed document."""
    return price_pb2.SignedDocument(
        document=signed.document, signature=signed.signature, key_id=signed.key_id
    )


def receipt_key_from(request: pb.RegisterReceiptKeyRequest, now: datetime) -> ReceiptKey:
    """Read a gateway's key; one without a time is new now.

    Raises:
        InvalidArgumentError: not 32 bytes, an id that is not its own, or no name of a gateway.
    """
    key = request.key
    if len(key.public_key) != ED25519_BYTES:
        raise InvalidArgumentError(f"must have {ED25519_BYTES} bytes", "key.public_key")
    if key.key_id != ed25519_key_id(key.public_key):
        raise InvalidArgumentError("is not the id of this key", "key.key_id")
    if not request.gateway:
        raise InvalidArgumentError("required", "gateway")

    public = PublicKey(
        key_id=key.key_id,
        public_key=key.public_key,
        create_time=_time_from(key, "create_time") or now,
        retire_time=_time_from(key, "retire_time"),
    )
    return ReceiptKey(key=public, gateway=_word(request.gateway, "gateway"))


def key_to(key: PublicKey) -> attestation_pb2.SigningKey:
    """Write a public key."""
    return attestation_pb2.SigningKey(
        key_id=key.key_id,
        public_key=key.public_key,
        create_time=timestamp(key.create_time),
        retire_time=None if key.retire_time is None else timestamp(key.retire_time),
    )


def release_from(release: attestation_pb2.CodeRelease, now: datetime) -> CodeRelease:
    """Read a release to bless.

    Raises:
        InvalidArgumentError: a text is too long.
    """
    return CodeRelease(
        code_release=_word(release.code_release, "release.code_release"),
        version=_word(release.version, "release.version"),
        platform=_word(release.platform, "release.platform"),
        measured=Measured(
            python_hash=_word(release.python_hash, "release.python_hash"),
            runtime_hash=_word(release.runtime_hash, "release.runtime_hash"),
            template_hashes=hashes_from(release.template_hashes, "release.template_hashes"),
        ),
        development=release.development,
        active=not release.staged,
        create_time=now,
        staged=release.staged,
        manifest=_manifest_from(release),
    )


def release_to(release: CodeRelease) -> attestation_pb2.CodeRelease:
    """Write a release."""
    return attestation_pb2.CodeRelease(
        code_release=release.code_release,
        version=release.version,
        platform=release.platform,
        python_hash=release.measured.python_hash,
        runtime_hash=release.measured.runtime_hash,
        template_hashes=release.measured.template_hashes,
        development=release.development,
        active=release.active,
        create_time=timestamp(release.create_time),
        staged=release.staged,
        manifest=None if release.manifest is None else signed_to(release.manifest),
        offer=attestation_pb2.ReleaseOffer(
            percent=release.offer.percent,
            held=release.offer.held,
            step_time=timestamp(release.offer.step_time),
        ),
    )


def provider_id_from(text: str) -> str:
    """Read a provider id.

    Raises:
        InvalidArgumentError: it is none.
    """
    try:
        id_bytes(text, "prov")
    except MalformedError as error:
        raise InvalidArgumentError(error.what, "provider_id") from None

    return text


def nonce_from(text: str) -> str:
    """Read a nonce to look up.

    Raises:
        InvalidArgumentError: too long, or with a nul, which no nonce of ours has.
    """
    return _word(text, "nonce")


def code_release_from(text: str) -> str:
    """Read the id of a release to look up.

    Raises:
        InvalidArgumentError: too long, or with a nul, which no id has.
    """
    return _word(text, "code_release")


def hashes_from(hashes: Mapping[str, str], field: str) -> dict[str, str]:
    """Read hashes by name.

    Raises:
        InvalidArgumentError: too many, or one too long.
    """
    if len(hashes) > MAX_HASHES:
        raise InvalidArgumentError(f"more than {MAX_HASHES} entries", field)

    return {_word(name, field): _word(value, field) for name, value in hashes.items()}


def answer_from(request: pb.VerifyChallengeRequest) -> tuple[bytes, bytes]:
    """Return (status, signature), cut where absurdly long: what was cut verifies no more."""
    return request.status[:MAX_EVIDENCE_BYTES], request.status_signature[:MAX_SIGNATURE_BYTES]


def timestamp(time: datetime) -> Timestamp:
    """Write a time that is aware of its zone."""
    message = Timestamp()
    message.FromDatetime(time)

    return message


def _time_from(
    key: attestation_pb2.SigningKey, name: Literal["create_time", "retire_time"]
) -> datetime | None:
    if not key.HasField(name):
        return None

    message: Timestamp = getattr(key, name)
    try:
        time = message.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise InvalidArgumentError("no such time", f"key.{name}") from None
    if time < _OLDEST:
        raise InvalidArgumentError("older than this protocol", f"key.{name}")

    return time


def _shown_to(shown: Shown) -> attestation_pb2.Evidence:
    message = attestation_pb2.Evidence(
        evidence_id=shown.evidence_id,
        kind=shown.kind,
        backing=_BACKINGS[shown.backing],
        observe_time=timestamp(shown.observe_time),
        document=shown.document,
        signature=shown.signature,
        attestation=shown.attestation,
        attestation_document=shown.attestation_document,
        key_id=shown.key_id,
        environment=shown.environment,
    )
    if shown.expire_time is not None:
        message.expire_time.CopyFrom(timestamp(shown.expire_time))

    return message


def _manifest_from(release: attestation_pb2.CodeRelease) -> Signed | None:
    if not release.HasField("manifest"):
        return None

    signed = release.manifest
    if len(signed.document) > MAX_MANIFEST_BYTES or len(signed.signature) > MAX_SIGNATURE_BYTES:
        raise InvalidArgumentError("too large", "release.manifest")
    return Signed(
        document=signed.document,
        signature=signed.signature,
        key_id=_word(signed.key_id, "release.manifest.key_id"),
    )


def _finding_to(finding: RuntimeFinding) -> attestation_pb2.RuntimeFinding:
    return attestation_pb2.RuntimeFinding(
        component=finding.component, expected=finding.expected, got=finding.got
    )


def _claim(text: str) -> str:
    """Cut a provider's own words to what a row can hold."""
    return text.replace("\0", "")[:_MAX_WORD]


def _word(text: str, field: str) -> str:
    if len(text) > _MAX_WORD or "\0" in text:
        raise InvalidArgumentError(f"longer than {_MAX_WORD} characters, or has a nul", field)

    return text


def entry_kind_from(text: str) -> EntryKind | None:
    """Read which entries are wanted; empty is all.

    Raises:
        InvalidArgumentError: no such kind.
    """
    if not text:
        return None
    for kind in get_args(EntryKind):
        if text == kind:
            return cast("EntryKind", kind)

    raise InvalidArgumentError("no such kind of entry", "kind")


def subject_from(text: str) -> str:
    """Read what entries are to speak of; empty is anything.

    Raises:
        InvalidArgumentError: too long, or with a nul.
    """
    if len(text) > _MAX_SUBJECT or "\0" in text:
        raise InvalidArgumentError(f"longer than {_MAX_SUBJECT}, or has a nul", "subject")

    return text


def batch_id_from(text: str) -> str:
    """Read the id of a batch.

    Raises:
        InvalidArgumentError: it is none.
    """
    try:
        id_bytes(text, "bat")
    except MalformedError as error:
        raise InvalidArgumentError(error.what, "batch_id") from None

    return text


def catalog_entry_from(catalog: Catalog, now: datetime) -> CatalogEntry:
    """Read what a revision of the catalog lets builds answer with."""
    return CatalogEntry(
        generation=catalog.generation,
        builds={
            build.id: LoggedBuild(
                weight_hash=build.weight_hash,
                identity_hash=build.identity_hash,
                accepted=sorted({*build.accepted_weight_hashes, build.weight_hash} - {""}),
            )
            for build in catalog.builds
        },
        time=rfc3339(now),
    )
