"""The first word of a provider: what REGISTER says, and what others say about it."""

import base64
import binascii
import json
from dataclasses import dataclass

from darkbloom.router.v1.provider_link_pb2 import ProtocolVersion, Register
from darkbloom_mesh.errors import MeshError

from darkbloom_router import convert
from darkbloom_router.convert import MAX_MODELS, MAX_TEXT
from darkbloom_router.errors import HandshakeError, ProtocolUnsupportedError
from darkbloom_router.model import ModelFacts
from darkbloom_router.ports import Attestation, Links, Presented, Registration
from darkbloom_router.provider import Provider

PROTOCOL = ProtocolVersion(major=1, minor=0)
FEATURES = frozenset({"terminal_ack", "credits", "drain_ack"})
_SUPPORTED = "1.0"
_MAX_BLOB = 64 * 1024
_MAX_PUSH_TOKEN = 256
_MAX_SIGNATURE = 256
_POINT, _RAW_POINT = 65, 64


@dataclass(frozen=True, slots=True)
class Registered:
    """A provider as the fleet takes it, and what attestation found."""

    provider: Provider
    models: tuple[ModelFacts, ...]
    found: Registration
    features: tuple[str, ...]


def check(message: Register) -> None:
    """Refuse a registration that cannot be spoken with.

    Raises:
        ProtocolUnsupportedError: The major versions differ.
        HandshakeError: A bound is broken or the key has another length.
    """
    if message.protocol.major != PROTOCOL.major:
        raise ProtocolUnsupportedError(
            "protocol version is not supported", metadata={"darkbloom-supported": _SUPPORTED}
        )
    if len(message.models) > MAX_MODELS:
        raise HandshakeError("too many models")
    if len(message.encryption_key) not in (0, 32):
        raise HandshakeError("encryption key has another length than 32 bytes")
    if len(message.attestation_blob) > _MAX_BLOB or len(message.attestation_signature) > _MAX_BLOB:
        raise HandshakeError("attestation blob is too large")
    if len(message.template_hashes) > MAX_MODELS:
        raise HandshakeError("too many template hashes")


def claimed_identity(blob: bytes) -> bytes:
    """Read the identity key out of a blob that nobody has checked; empty when unreadable."""
    try:
        fields = json.loads(blob)
        raw = base64.b64decode(fields["publicKey"], validate=True)
    except (ValueError, KeyError, TypeError, binascii.Error, RecursionError):
        return b""
    if len(raw) == _RAW_POINT:
        return b"\x04" + raw
    return raw if len(raw) == _POINT else b""


async def evaluate(
    message: Register, provider_id: str, attestation: Attestation, links: Links
) -> Registered:
    """Ask billing whose machine it is and attestation what its evidence is worth.

    Raises:
        MeshError: Attestation is away; billing may be, then nothing is routed until it answers.
    """
    claimed = claimed_identity(message.attestation_blob)
    account_id, known = await account_of(links, claimed)
    found = await attestation.register(
        Presented(
            provider_id=provider_id,
            blob=message.attestation_blob,
            signature=message.attestation_signature,
            encryption_key=message.encryption_key,
            version=message.version,
            backend=message.backend,
            python_hash=message.python_hash,
            runtime_hash=message.runtime_hash,
            template_hashes=dict(message.template_hashes),
            owner_account_id=account_id,
            public_signature=message.public_signature[:_MAX_SIGNATURE],
            push_token=message.apns_device_token[:_MAX_PUSH_TOKEN],
            push_environment=message.apns_environment[:_MAX_PUSH_TOKEN],
        )
    )
    if found.identity_key != claimed:
        # The claim was read leniently; what attestation read is the identity.
        account_id, known = await account_of(links, found.identity_key)
    provider = Provider(
        provider_id=provider_id,
        identity_key=found.identity_key,
        encryption_key=message.encryption_key,
        hardware=convert.hardware(message.hardware),
        privacy=convert.privacy(message.privacy),
        backend=message.backend[:MAX_TEXT],
        version=message.version[:MAX_TEXT],
        private_only=message.private_only,
        constraint_builds=frozenset(message.tool_constraint_models)
        if message.tool_constraint_protocol == 1
        else frozenset(),
        account_id=account_id,
        restoring=not known,
        runtime_verified=found.runtime_verified,
    )
    if not found.accepted:
        provider.untrusted = found.findings[0] if found.findings else "evidence"
        provider.untrusted_for_good = True
    return Registered(
        provider,
        tuple(convert.model_facts(model) for model in message.models),
        found,
        tuple(sorted(FEATURES & set(message.capabilities))),
    )


async def account_of(links: Links, identity_key: bytes) -> tuple[str, bool]:
    """Return the account of a machine, empty when it has none, and whether billing could say."""
    if len(identity_key) != _POINT:
        return "", True
    try:
        return await links.account_of(identity_key), True
    except MeshError:
        return "", False
