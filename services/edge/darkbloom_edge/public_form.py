"""The public form of a registration: what a stranger may see of it, signed by the provider itself.

A registration names the serial of a Mac, which identifies its owner. The public form says the same
with the serial replaced by a salted commitment, and follows from the full form alone: whoever holds
that can rebuild it, so one signature more makes the provider's own claims checkable by everybody.
"""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from darkbloom_edge.device_statement import serial_commitment
from darkbloom_edge.documents import HexDigest, decode_document, encode_document
from darkbloom_edge.errors import MalformedError
from darkbloom_edge.registration import MAX_BLOB_BYTES, RegistrationBlob, Text
from darkbloom_edge.signatures import IdentitySigner, from_base64, verify_p256

KIND = "public-registration"
"""What the signature is over: can be mistaken for no other document."""


class PublicRegistration(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A provider's claims without what identifies its owner."""

    authenticated_root_enabled: bool
    binary_hash: Text | None = None
    chip_family: Text | None = None
    chip_name: Text
    encryption_public_key: Text | None = None
    """K in base64."""
    hardware_model: Text
    metallib_hash: Text | None = None
    os_version: Text
    public_key: Text
    """Identity key in base64."""
    rdma_disabled: bool
    runtime_capabilities: Annotated[list[Text], Meta(max_length=64)] | None = None
    secure_boot_enabled: bool
    secure_enclave_available: bool
    serial_commitment: HexDigest | None = None
    """See `device_statement`; absent where no serial was claimed."""
    sip_enabled: bool
    system_volume_hash: Text | None = None
    timestamp: Text


def public_form(blob: RegistrationBlob) -> bytes:
    """Return the canonical bytes of a registration's public form.

    Raises:
        MalformedError: the serial is none, or has no salt and would be as good as published.
    """
    claims = msgspec.structs.asdict(blob)
    serial, salt = claims.pop("serial_number"), claims.pop("serial_salt")
    if serial:
        if salt is None:
            raise MalformedError("a serial without a salt has no public form")
        claims["serial_commitment"] = serial_commitment(serial, from_base64(salt))
    shown: dict[str, Any] = {
        name: claims.get(name) for name in PublicRegistration.__struct_fields__
    }

    return encode_document(PublicRegistration(**shown))


def sign_public_form(blob: RegistrationBlob, signer: IdentitySigner) -> bytes:
    """Return the provider's DER signature over the public form; errors as `public_form`."""
    return signer.sign(KIND, public_form(blob))


def published(document: bytes, signature: bytes, identity_key: bytes) -> bytes:
    """Return the public form of a registration as received, if its provider has signed it.

    Raises:
        MalformedError: the registration has no public form.
        SignatureRejected: the signature is not that key's over it.
    """
    form = public_form(decode_document(document, RegistrationBlob, max_bytes=MAX_BLOB_BYTES))
    verify_p256(identity_key, KIND, form, signature)

    return form


def read_public_form(document: bytes, signature: bytes) -> PublicRegistration:
    """Check a published form by itself, as a stranger does.

    Raises:
        MalformedError: it cannot be read.
        SignatureRejected: the key that it names has not signed it.
    """
    form = decode_document(document, PublicRegistration, max_bytes=MAX_BLOB_BYTES)
    verify_p256(form.public_key, KIND, document, signature)

    return form
