"""Device evidence from and to protobuf; pure and total, bounded before anything is parsed."""

from collections.abc import Sequence

from darkbloom.attestation.v1 import attestation_pb2
from darkbloom.attestation.v1 import attestation_service_pb2 as pb
from darkbloom_edge.device_statement import MAX_SERIAL, MAX_STATEMENT_BYTES, SALT_BYTES
from darkbloom_mesh.errors import InvalidArgumentError
from google.protobuf.message import DecodeError

from darkbloom_attestation.convert import provider_id_from
from darkbloom_attestation.evidence import (
    AppAttestShown,
    DeviceEvidence,
)

MAX_EVIDENCE_BYTES = 128 * 1024
"""Most bytes of one provider's device evidence; more is dropped unread."""
MAX_SESSIONS_SEEN = 4096
MAX_WEBHOOK_BYTES = 1024 * 1024

_KEY_ID_BYTES = 32
_MAX_OBJECT = 64 * 1024
_MAX_CHAIN = 5
_MAX_CERTIFICATE = 8192


def evidence_from(data: bytes) -> DeviceEvidence | None:
    """Read what a provider shows; None where it shows nothing, or nothing that could be read.

    Bad evidence is no error of the router that carries it: it counts as none.
    """
    if not data or len(data) > MAX_EVIDENCE_BYTES:
        return None
    try:
        message = attestation_pb2.DeviceEvidence.FromString(data)
    except DecodeError:
        return None
    if (
        len(message.statement) > MAX_STATEMENT_BYTES
        or len(message.serial_number) > MAX_SERIAL
        or len(message.serial_salt) not in {0, SALT_BYTES}
        or len(message.mda_chain) > _MAX_CHAIN
        or any(len(certificate) > _MAX_CERTIFICATE for certificate in message.mda_chain)
    ):
        return None

    return DeviceEvidence(
        statement=message.statement,
        serial=message.serial_number,
        salt=message.serial_salt,
        app_attest=_app_attest(message),
        mda_chain=tuple(message.mda_chain),
    )


def sessions_from(provider_ids: Sequence[str], *, most: int) -> list[str]:
    """Read a list of sessions.

    Raises:
        InvalidArgumentError: too many, or one is no provider id.
    """
    if len(provider_ids) > most:
        raise InvalidArgumentError(f"more than {most}", "provider_ids")

    return [provider_id_from(provider_id) for provider_id in provider_ids]


def webhook_from(request: pb.RecordPostureRequest) -> bytes:
    """Read a webhook.

    Raises:
        InvalidArgumentError: absurdly large.
    """
    if len(request.webhook) > MAX_WEBHOOK_BYTES:
        raise InvalidArgumentError(f"larger than {MAX_WEBHOOK_BYTES} bytes", "webhook")

    return request.webhook


def _app_attest(message: attestation_pb2.DeviceEvidence) -> AppAttestShown | None:
    if not message.HasField("app_attest"):
        return None
    proof = message.app_attest
    if len(proof.key_id) != _KEY_ID_BYTES:
        return None
    if max(len(proof.assertion), len(proof.attestation)) > _MAX_OBJECT:
        return None

    return AppAttestShown(
        key_id=proof.key_id, assertion=proof.assertion, attestation=proof.attestation
    )
